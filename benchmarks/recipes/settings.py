"""Recipes on the nuclei: legacy, modern, and modern with one choice taken back.

All have the demo's small network and its data; what they differ in are the choices of `mrcnn.presets`.
"""

from __future__ import annotations

from typing import Any

from mrcnn.presets import PRESETS
from mrcnn.recipe import Recipe

MODERN, LEGACY = "modern", "legacy"
LEGACY_ALL_SCORES = "legacy, least score 0.05"

# Of the modern recipe what is of the data and the size of the network, and therefore the same in all.
_SIZES = (
    "BACKBONE", "RPN_CONV_SIZE", "RPN_ANCHOR_RATIOS", "MEAN_PIXEL", "STD_PIXEL", "IMAGE_RESIZE_MODE", "IMAGE_MIN_DIM",
    "IMAGE_MAX_DIM", "IMAGE_SIZE_MULTIPLE", "IMAGE_INTERPOLATION", "IMAGE_PAD_CORNER", "MINI_MASK_SHAPE",
    "USE_MINI_MASK", "TRAIN_BN", "TRAIN_ROIS_PER_IMAGE",
)  # fmt: skip

# What is taken back, one at a time: a name and the fields that it stands for.
SWITCHES: dict[str, tuple[str, ...]] = {
    "stride in the 1x1": ("RESNET_STRIDE_IN_3X3",),
    "padding as TensorFlow has it": ("SYMMETRIC_PADDING",),
    "biases before normalization, epsilon 1e-3": ("CONV_BIAS", "NORM_EPSILON"),
    "box head of two layers, nothing normalized in the pyramid": (
        "BOX_HEAD_CONVS", "BOX_HEAD_FCS", "NORM_PARTS",
    ),
    "RPN of one convolution": ("RPN_CONV_DEPTH",),
    "objectness of two numbers": ("RPN_OBJECTNESS",),
    "proposals of all levels together": ("RPN_PER_LEVEL", "PRE_NMS_LIMIT", "PRE_NMS_LIMIT_TRAINING"),
    "proposals not clipped to the image, of any size, growing up to e^40": (
        "RPN_CLIP_TO_IMAGE", "RPN_MIN_SIZE", "BBOX_LOG_LIMIT", "DETECTION_MIN_SIZE",
    ),
    "the legacy grid of boxes, ROIAlign and masks": (
        "BOX_GRID", "ROI_ALIGN", "MASK_TARGETS", "MASK_PASTE", "MASK_GRID",
    ),
    "levels rounded": ("ROI_LEVELS",),
    "the best class of a region alone, from 0.7 on": ("DETECTION_ALL_CLASSES", "DETECTION_MIN_CONFIDENCE"),
    "suppression from 0.3 on": ("DETECTION_NMS_THRESHOLD",),
    "losses of boxes square up to 1": ("RPN_BBOX_LOSS_BETA", "BBOX_LOSS_BETA"),
    "losses of boxes as means over positives, of classes over known ones": (
        "BBOX_LOSS_OVER_SAMPLES", "CLASS_LOSS_ALL_CLASSES",
    ),
    "no ground truth among the proposals": ("ROI_ADD_GT_BOXES",),
    "negatives in proportion, gradients through proposals": ("ROI_FILL_NEGATIVES", "STOP_PROPOSAL_GRADIENT"),
    "RPN deltas divided by deviations": ("RPN_BBOX_STD_DEV",),
    "a third of the sampled regions positive": ("ROI_POSITIVE_RATIO",),
    "the mask head on all sampled regions": ("MASK_HEAD_POSITIVES_ONLY",),
}  # fmt: skip

# What training does not know of: the same weights, used otherwise. Run -> the one whose weights it has.
_DETECTION = {"DETECTION_ALL_CLASSES", "DETECTION_MIN_CONFIDENCE", "DETECTION_NMS_THRESHOLD"}
WEIGHTS_OF = {LEGACY_ALL_SCORES: LEGACY}
WEIGHTS_OF |= {name: MODERN for name, fields in SWITCHES.items() if _DETECTION.issuperset(fields)}

TRAINED = (MODERN, LEGACY, *(name for name in SWITCHES if name not in WEIGHTS_OF))
RUNS = (*TRAINED, *WEIGHTS_OF)


def numbers_of(trained: str) -> list[int]:
    """Numbers, in `RUNS`, of the runs that have the weights of one: its own and others."""
    return [number for number, name in enumerate(RUNS) if WEIGHTS_OF.get(name, name) == trained]


def config(name: str, mode: str) -> Any:
    """The configuration of a run.

    Args:
        name: of `RUNS`.
        mode: "training" or "inference".
    """
    from mrcnn.config import Config
    from mrcnn.nuclei import NucleiConfig

    legacy = {field: getattr(Config, field) for field in (*vars(Recipe), *PRESETS[MODERN]) if field.isupper()}
    modern = {field: value for field, value in PRESETS[MODERN].items() if field not in _SIZES}
    sizes = {
        field: value
        for field, value in vars(NucleiConfig).items()
        if field.isupper() and field not in modern
    }  # fmt: skip
    chosen = {field: legacy[field] for field in modern}
    if name not in (LEGACY, LEGACY_ALL_SCORES):
        chosen = {**modern, **{field: legacy[field] for field in SWITCHES.get(name, ())}}
    if name == LEGACY_ALL_SCORES:
        chosen["DETECTION_MIN_CONFIDENCE"] = 0.05
    values = {
        **sizes,
        **chosen,
        "BOX_HEAD_CONV_SIZE": 64,
        "POST_NMS_ROIS_INFERENCE": 1000,
        "OPTIMIZER": "AdamW",
        "WEIGHT_DECAY": 0.05,
        "STEPS_PER_EPOCH": 200,
        "VALIDATION_STEPS": 0,
    }
    if mode == "inference":
        values |= {"IMAGES_PER_GPU": 1, "IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 64}
    return Config.from_dict(values)
