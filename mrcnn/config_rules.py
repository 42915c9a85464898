"""The rules that a configuration is held to, field by field.

Letters: K classes (0 is background).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mrcnn import config_checks as checks
from mrcnn import config_habits as habits
from mrcnn import recipe
from mrcnn.applications import APPLICATIONS, application_of, suggestions

RESIZE_MODES = ("none", "square", "pad64", "crop", "shortest")
MASK_GRIDS = ("legacy", "image")
BACKBONES = (
    "resnet50", "resnet101", "resnet152", "resnet18", "resnet34", "resnext50_32x4d", "resnext101_32x8d",
    "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2", "resnet14",
)  # fmt: skip
AUGMENTATIONS = ("none", "flip", "standard", "strong")
LOSS_NAMES = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")

# The network halves the image six times: P6 is one 64th of it.
SIZE_MULTIPLE = 64

# The levels of the pyramid that have anchors.
LEVELS = ("P2", "P3", "P4", "P5", "P6")

# Fields that are whole numbers of at least 1.
_COUNTS = (
    "GPU_COUNT", "IMAGES_PER_GPU", "STEPS_PER_EPOCH", "NUM_CLASSES", "IMAGE_CHANNEL_COUNT", "POOL_SIZE",
    "MASK_POOL_SIZE", "TRAIN_ROIS_PER_IMAGE", "MAX_GT_INSTANCES", "DETECTION_MAX_INSTANCES", "PRE_NMS_LIMIT",
    "POST_NMS_ROIS_TRAINING", "POST_NMS_ROIS_INFERENCE", "RPN_ANCHOR_STRIDE", "RPN_TRAIN_ANCHORS_PER_IMAGE",
    "FPN_CLASSIF_FC_LAYERS_SIZE", "TOP_DOWN_PYRAMID_SIZE", "RPN_CONV_SIZE", "MASK_CONV_SIZE", "LOADER_WORKERS",
)  # fmt: skip


class ConfigError(ValueError):
    """A configuration that cannot work. The message names the field, what it holds and what would do."""


def check_fields(config: Any) -> None:
    """Check every field of a `Config`.

    Raises:
        ConfigError: names the field, the value received and what would do.
    """
    for name in _COUNTS:
        _require(config, name, lambda v: checks.is_whole(v) and v >= 1, "a whole number of at least 1")
    _require(config, "GPUS", checks.is_gpu_list, checks.GPUS_WANTED)
    _require(config, "GPU_MEMORY", checks.is_gpu_memory, checks.MEMORY_WANTED)
    for name in ("VALIDATION_STEPS", "SEED", "EVALUATE_EVERY", "EVALUATE_IMAGES", "EARLY_STOPPING"):
        _require(config, name, lambda v: checks.is_whole(v) and v >= 0, "a whole number of at least 0")
    _require(config, "AUGMENTATION", lambda v: v in AUGMENTATIONS, f"one of {', '.join(AUGMENTATIONS)}")
    for name, (holds, wanted) in {**checks.BY_THEMSELVES, **recipe.RULES}.items():
        _require(config, name, holds, wanted)
    _check_backbone(config)
    for name in ("RPN_BBOX_STD_DEV", "BBOX_STD_DEV"):
        _require(
            config,
            name,
            lambda v: np.shape(v) == (4,) and np.all(np.asarray(v) > 0),
            "four numbers above 0",
        )
    _require(config, "MEAN_PIXEL", lambda v: np.size(v) in (1, config.IMAGE_CHANNEL_COUNT),
             f"a number for each of the IMAGE_CHANNEL_COUNT = {config.IMAGE_CHANNEL_COUNT} channels")  # fmt: skip
    for name in ("MASK_SHAPE", "MINI_MASK_SHAPE"):
        _require(
            config, name, lambda v: len(v) == 2 and all(checks.is_whole(n) and n >= 1 for n in v), "(height, width)"
        )
    if tuple(config.MASK_SHAPE) != (2 * config.MASK_POOL_SIZE, 2 * config.MASK_POOL_SIZE):
        raise ConfigError(
            f"MASK_SHAPE must be twice MASK_POOL_SIZE, for the mask head doubles its input. Received: MASK_SHAPE "
            f"{tuple(config.MASK_SHAPE)}, MASK_POOL_SIZE {config.MASK_POOL_SIZE}."
        )
    if int(config.TRAIN_ROIS_PER_IMAGE * config.ROI_POSITIVE_RATIO) < 1:
        raise ConfigError(
            "TRAIN_ROIS_PER_IMAGE x ROI_POSITIVE_RATIO must be at least 1, for a positive ROI. Received: "
            f"{config.TRAIN_ROIS_PER_IMAGE} x {config.ROI_POSITIVE_RATIO}."
        )
    for name, what in (("BACKBONE_STRIDES", "a stride"), ("RPN_ANCHOR_SCALES", "a scale")):
        _require(config, name, lambda v: 0 < len(v) <= len(LEVELS) and all(n > 0 for n in v),
                 f"{what} for each of the levels {', '.join(LEVELS)}, or of the first ones")  # fmt: skip
    if len(config.RPN_ANCHOR_SCALES) > len(config.BACKBONE_STRIDES):
        raise ConfigError(
            "RPN_ANCHOR_SCALES must have no more numbers than BACKBONE_STRIDES. Received: "
            f"{config.RPN_ANCHOR_SCALES!r}, BACKBONE_STRIDES {config.BACKBONE_STRIDES!r}."
        )
    _require(config, "RPN_ANCHOR_RATIOS", lambda v: len(v) > 0 and all(r > 0 for r in v), "ratios above 0")
    _require(config, "LOSS_WEIGHTS", lambda v: not checks.split_weights(v, LOSS_NAMES)[0],
             f"weights for {', '.join(LOSS_NAMES)}")  # fmt: skip
    _require(config, "DETECTION_CLASS_CONFIDENCE", lambda v: checks.is_class_confidence(v, config.NUM_CLASSES),
             checks.CLASS_CONFIDENCE_WANTED)  # fmt: skip
    _require(config, "CLASS_WEIGHTS", lambda v: checks.is_class_weights(v, config.NUM_CLASSES),
             checks.CLASS_WEIGHTS_WANTED)  # fmt: skip
    _require(config, "RGB_CHANNELS", lambda v: checks.is_rgb_channels(v, config.IMAGE_CHANNEL_COUNT),
             checks.RGB_CHANNELS_WANTED)  # fmt: skip
    wrong = recipe.contradiction(config)
    if wrong is not None:
        raise ConfigError(wrong)
    _check_sizes(config)


def is_backbone_name(value: Any) -> bool:
    """Whether BACKBONE can be a name: one of `BACKBONES`, or "keras:" and one of `mrcnn.applications.APPLICATIONS`."""
    return isinstance(value, str) and (value in BACKBONES or application_of(value) in APPLICATIONS)


def _check_backbone(config: Any) -> None:
    value = config.BACKBONE
    near = suggestions(value, BACKBONES) if isinstance(value, str) else []
    _require(config, "BACKBONE", lambda v: callable(v) or is_backbone_name(v),
             f"one of {', '.join(BACKBONES)}; or 'keras:' and a name of keras.applications, such as "
             "'keras:EfficientNetV2B0'; or a callable",
             f" Did you mean {' or '.join(map(repr, near))}?" if near else "")  # fmt: skip


def _check_sizes(config: Any) -> None:
    _require(config, "IMAGE_RESIZE_MODE", lambda v: v in RESIZE_MODES, f"one of {', '.join(RESIZE_MODES)}")
    _require(config, "MASK_GRID", lambda v: v in MASK_GRIDS, f"one of {', '.join(MASK_GRIDS)}")
    _require(config, "IMAGE_MIN_SCALE", lambda v: v is None or v >= 0, "a number of at least 0")
    multiple = config.IMAGE_SIZE_MULTIPLE
    _require(config, "IMAGE_RECTANGLE", lambda v: checks.is_rectangle(v, multiple),
             f"None, or (height, width), each a multiple of {multiple}")  # fmt: skip
    if config.IMAGE_RECTANGLE is not None and config.IMAGE_RESIZE_MODE in ("square", "crop"):
        return
    # "none" takes images as they come: the sizes are checked when an image is molded.
    sides = {
        "square": ["IMAGE_MAX_DIM"],
        "crop": ["IMAGE_MIN_DIM"],
        "pad64": ["IMAGE_MIN_DIM"],
        "none": [],
        "shortest": [],
    }
    if config.IMAGE_RESIZE_MODE == "pad64":
        multiple = SIZE_MULTIPLE
    for name in sides[config.IMAGE_RESIZE_MODE]:
        value = getattr(config, name)
        if value is None and config.IMAGE_RESIZE_MODE == "pad64":
            continue
        if not checks.is_whole(value) or value < multiple or value % multiple:
            raise ConfigError(
                f"{name} must be a multiple of {multiple}. Received: {value}.{nearest_sizes(value, multiple)}"
            )
    if config.IMAGE_RESIZE_MODE == "shortest":
        for name in ("IMAGE_MIN_DIM", "IMAGE_MAX_DIM"):
            _require(config, name, lambda v: checks.is_whole(v) and v >= 1, "a whole number of pixels of at least 1")


def nearest_sizes(value: Any, multiple: int = SIZE_MULTIPLE) -> str:
    """ " Nearest: 960, 1024." for 1000: the sizes on both sides that the network can halve six times (or, of 32, five
    times evenly)."""
    if not isinstance(value, int | float | np.number) or not math.isfinite(value):
        return ""
    below = int(value // multiple) * multiple
    sizes = [size for size in (below, below + multiple) if size > 0]
    return f" Nearest: {', '.join(map(str, sizes))}."


def _require(config: Any, name: str, holds: Callable[[Any], bool], wanted: str, hint: str = "") -> None:
    value = getattr(config, name)
    try:
        fine = bool(holds(value))
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise ConfigError(f"{name} must be {wanted}. Received: {value!r}.{hint}{habits.about_field(config, name)}")
