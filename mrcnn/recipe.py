"""Recipe: the fields of `Config` in which the original differs from what torchvision and detectron2 compute, one choice
each; and presets that choose for all of them. What each does to accuracy and speed: docs/recipes.md.

Letters: K classes (0 is background).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mrcnn import presets
from mrcnn.config_checks import is_whole

NORMS = ("batch", "frozen", "group")
NORM_PARTS = ("backbone", "pyramid", "box_convs", "box_fcs", "mask_convs")
BOX_GRIDS = ("legacy", "image")
ROI_ALIGNS = ("legacy", "unaligned", "aligned")
ROI_LEVELS = ("round", "floor")
PASTES = ("legacy", "torchvision", "aligned")
CHANNEL_ORDERS = ("rgb", "bgr")
INTERPOLATIONS = ("legacy", "bilinear", "antialias")


class Recipe:
    """Fields whose defaults are the original's. `Config` has them all.

    `legacy()`, `torchvision_v1()`, `torchvision_v2()`, `detectron2()` and `modern()` give subclasses with other values,
    to be subclassed in turn:

        class CellConfig(Config.modern()):
            NUM_CLASSES = 1 + 1
    """

    # Backbone and pyramid

    # The stride of a bottleneck block sits in its 3x3 convolution (ResNet v1.5), or, legacy, in its first 1x1.
    RESNET_STRIDE_IN_3X3 = False
    # Windows with a stride have as many rows of padding before an image as behind it, as in PyTorch; or, legacy, as
    # TensorFlow's "same" has it, which for an even size is none before and one behind.
    SYMMETRIC_PADDING = False
    # Convolutions that a normalization follows have a bias, which does nothing that the normalization does not.
    CONV_BIAS = True
    # "batch": batch normalization, whose statistics TRAIN_BN chooses. "frozen": batch normalization that never trains,
    # gamma and beta included. "group": group normalization, of 32 groups, which no batch is too small for.
    NORM = "batch"
    # What is normalized: some of backbone, pyramid, box_convs, box_fcs and mask_convs (the last three of the heads).
    NORM_PARTS: Sequence[str] = ("backbone", "box_fcs", "mask_convs")
    NORM_EPSILON = 1e-3

    # Region proposals

    # Convolutions of the RPN before its two outputs.
    RPN_CONV_DEPTH = 1
    # "softmax" over background and foreground, or "sigmoid": one number for each anchor.
    RPN_OBJECTNESS = "softmax"
    # Anchors as torchvision lays them: sides rounded to whole pixels, and steps of the image's side divided by the
    # map's, rounded down (61 pixels in P6 of an image of 800, not 64).
    RPN_ANCHORS_ROUNDED = False
    # Limits before the suppression and the suppression itself are for each pyramid level on its own, and the best
    # POST_NMS_ROIS of all levels are taken. Or, legacy, for all levels together.
    RPN_PER_LEVEL = False
    # PRE_NMS_LIMIT of training; None: the same.
    PRE_NMS_LIMIT_TRAINING: int | None = None
    # Proposals end at the border of the image, or, legacy, of the molded image, padding included.
    RPN_CLIP_TO_IMAGE = False
    # Proposals with a side below this, in pixels, are dropped; 0: those without area; None, legacy: none.
    RPN_MIN_SIZE: float | None = None
    # The most that the logarithm of a box's growth by deltas can be.
    BBOX_LOG_LIMIT = 40.0

    # Coordinates

    # Boxes as shares of the image: "image": pixels / size, and results have `boxes` in fractions of pixels. "legacy":
    # (pixels - [0, 0, 1, 1]) / (size - 1), and results are rounded.
    BOX_GRID = "legacy"

    # Regions of interest

    # "legacy": one sample for each bin, the outermost on the border of the box. Else the mean of ROI_SAMPLING_RATIO
    # squared samples in each bin, 0: as many as the bin has cells; "aligned": cells have their centers at halves.
    # "unaligned": half a cell beside that, and boxes are at least a cell wide, as in torchvision.
    ROI_ALIGN = "legacy"
    ROI_SAMPLING_RATIO = 2
    # The pyramid level of a box: log2 of its size, rounded to the next whole number or down ("floor").
    ROI_LEVELS = "round"

    # Heads: 3x3 convolutions of the box head, their width, and its fully connected layers (of
    # FPN_CLASSIF_FC_LAYERS_SIZE, 1 or 2).
    BOX_HEAD_CONVS = 0
    BOX_HEAD_CONV_SIZE = 256
    BOX_HEAD_FCS = 2

    # Detections

    # A region gives a detection of every class that scores DETECTION_MIN_CONFIDENCE; or, legacy, of its best alone.
    DETECTION_ALL_CLASSES = False
    # Detections with a side below this, in pixels of the molded image, are dropped; None, legacy: none.
    DETECTION_MIN_SIZE: float | None = None
    # How a mask is laid into its box. "aligned": a cell of it covers its share of the box. "legacy": likewise, in a box
    # of whole pixels, and the mask's border fades. "torchvision": in the box enlarged by a cell, cut to whole pixels,
    # and a pixel larger.
    MASK_PASTE = "legacy"

    # Images. Mode "shortest" of IMAGE_RESIZE_MODE scales the shorter side to IMAGE_MIN_DIM, up or down, unless the
    # longer one would exceed IMAGE_MAX_DIM.

    # Sides of molded images are multiples of this: 64, or 32, with which P6 may have half a cell too many.
    IMAGE_SIZE_MULTIPLE = 64
    # "bilinear": two taps in each direction, no rounding. "antialias": as Pillow does it, shrinking averages. "legacy":
    # two taps, the border darkens, values are cut to whole numbers.
    IMAGE_INTERPOLATION = "legacy"
    # A scaled side is rounded down, as in torchvision, and not to the nearest.
    IMAGE_ROUND_DOWN = False
    # Padding is below and right of the image and 0 after the mean was subtracted; or, legacy, on all sides and black.
    IMAGE_PAD_CORNER = False
    # What channels are divided by after MEAN_PIXEL was subtracted, in image values.
    STD_PIXEL = np.array([1.0])
    # The order in which the network takes an image's three channels: "rgb", as images have them, or "bgr", as in Caffe
    # and most of detectron2's models. MEAN_PIXEL and STD_PIXEL are in the image's order in either case.
    IMAGE_CHANNEL_ORDER = "rgb"

    # Training

    # Ground truth boxes are among the proposals that the heads are trained on.
    ROI_ADD_GT_BOXES = False
    # Mask targets: "legacy": one bilinear sample for each cell, rounded. "soft": the share of each cell, as torchvision
    # has it. "aligned": whether that share, on the aligned grid, is a half, as detectron2 has it.
    MASK_TARGETS = "legacy"
    # Where the losses of boxes turn from squares to absolute values; 0: absolute values throughout.
    RPN_BBOX_LOSS_BETA = 1.0
    BBOX_LOSS_BETA = 1.0
    # Losses of boxes are sums over all that was sampled, divided by its number; or, legacy, means over what is
    # positive.
    BBOX_LOSS_OVER_SAMPLES = False
    # All sampled regions count for the class loss, rows of padding do not. Or, legacy, those whose predicted class the
    # image's source knows, padding included.
    CLASS_LOSS_ALL_CLASSES = False

    @classmethod
    def legacy(cls) -> type:
        """The original's numbers, which are the defaults: for weights of the original."""
        return presets.subclass(cls, "legacy")

    @classmethod
    def torchvision_v1(cls) -> type:
        """What torchvision's `maskrcnn_resnet50_fpn` with its released weights computes."""
        return presets.subclass(cls, "torchvision_v1")

    @classmethod
    def torchvision_v2(cls) -> type:
        """What torchvision's `maskrcnn_resnet50_fpn_v2` computes."""
        return presets.subclass(cls, "torchvision_v2")

    @classmethod
    def detectron2(cls, lsj: bool = False) -> type:
        """What detectron2's Mask R-CNN of the R50-FPN 3x schedule computes; `lsj`: of the new baselines."""
        return presets.subclass(cls, "detectron2_lsj" if lsj else "detectron2")

    @classmethod
    def modern(cls) -> type:
        """The recommended choice for training: see docs/recipes.md."""
        return presets.subclass(cls, "modern")


def _one_of(choices: Sequence[Any]) -> tuple[Callable[[Any], bool], str]:
    return lambda v: isinstance(v, str) and v in choices, f"one of {', '.join(choices)}"


def _size_or_none(value: Any) -> bool:
    return value is None or 0 <= value < math.inf


# What the fields must be, as a test and in words.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "NORM": _one_of(NORMS),
    "NORM_PARTS": (
        lambda v: not isinstance(v, str) and set(v) <= set(NORM_PARTS),
        f"some of {', '.join(NORM_PARTS)}, such as ('backbone',)",
    ),
    "NORM_EPSILON": (lambda v: 0 <= v < 1, "a number from 0 up to, not including, 1"),
    "RPN_CONV_DEPTH": (lambda v: is_whole(v) and v >= 1, "a whole number of at least 1"),
    "RPN_OBJECTNESS": _one_of(("softmax", "sigmoid")),
    "PRE_NMS_LIMIT_TRAINING": (lambda v: v is None or (is_whole(v) and v >= 1), "None, or a whole number from 1 on"),
    "RPN_MIN_SIZE": (_size_or_none, "None, or a number of pixels of at least 0"),
    "BBOX_LOG_LIMIT": (lambda v: 0 < v <= 40, "a number above 0, at most 40"),
    "BOX_GRID": _one_of(BOX_GRIDS),
    "ROI_ALIGN": _one_of(ROI_ALIGNS),
    "ROI_SAMPLING_RATIO": (lambda v: is_whole(v) and v >= 0, "a whole number of at least 0"),
    "ROI_LEVELS": _one_of(ROI_LEVELS),
    "BOX_HEAD_CONVS": (lambda v: is_whole(v) and v >= 0, "a whole number of at least 0"),
    "BOX_HEAD_CONV_SIZE": (lambda v: is_whole(v) and v >= 1, "a whole number of at least 1"),
    "BOX_HEAD_FCS": (lambda v: is_whole(v) and v in (1, 2), "1 or 2"),
    "DETECTION_MIN_SIZE": (_size_or_none, "None, or a number of pixels of at least 0"),
    "MASK_PASTE": _one_of(PASTES),
    "IMAGE_SIZE_MULTIPLE": (lambda v: is_whole(v) and v in (32, 64), "32 or 64"),
    "IMAGE_INTERPOLATION": _one_of(INTERPOLATIONS),
    "IMAGE_CHANNEL_ORDER": _one_of(CHANNEL_ORDERS),
    "MASK_TARGETS": _one_of(("legacy", "soft", "aligned")),
    "RPN_BBOX_LOSS_BETA": (lambda v: 0 <= v < math.inf, "a number of at least 0"),
    "BBOX_LOSS_BETA": (lambda v: 0 <= v < math.inf, "a number of at least 0"),
    **{
        name: (lambda v: v in (True, False), "True or False")
        for name in (
            "RESNET_STRIDE_IN_3X3", "SYMMETRIC_PADDING", "CONV_BIAS", "RPN_ANCHORS_ROUNDED", "RPN_PER_LEVEL",
            "RPN_CLIP_TO_IMAGE", "DETECTION_ALL_CLASSES", "IMAGE_ROUND_DOWN", "IMAGE_PAD_CORNER", "ROI_ADD_GT_BOXES",
            "BBOX_LOSS_OVER_SAMPLES", "CLASS_LOSS_ALL_CLASSES",
        )
    },
}  # fmt: skip


def contradiction(config: Any) -> str | None:
    """What in a configuration cannot go together, in words; None: nothing. Each field by itself is fine."""
    std = np.asarray(config.STD_PIXEL, float)
    if std.size not in (1, config.IMAGE_CHANNEL_COUNT) or not (std > 0).all():
        return (
            f"STD_PIXEL must be one number above 0, or one for each of the IMAGE_CHANNEL_COUNT = "
            f"{config.IMAGE_CHANNEL_COUNT} channels. Received: {config.STD_PIXEL!r}."
        )
    if config.IMAGE_CHANNEL_ORDER == "bgr" and config.IMAGE_CHANNEL_COUNT != 3:
        return (
            "IMAGE_CHANNEL_ORDER 'bgr' is for images of three channels. Received: IMAGE_CHANNEL_COUNT "
            f"{config.IMAGE_CHANNEL_COUNT}."
        )
    if (config.ROI_ALIGN == "legacy") != (config.BOX_GRID == "legacy"):
        return (
            "ROI_ALIGN 'legacy' goes with BOX_GRID 'legacy', and neither without the other: they are one convention of "
            f"coordinates. Received: ROI_ALIGN {config.ROI_ALIGN!r}, BOX_GRID {config.BOX_GRID!r}."
        )
    if config.MASK_TARGETS != "legacy" and config.BOX_GRID == "legacy":
        return f"MASK_TARGETS {config.MASK_TARGETS!r} needs BOX_GRID 'image'. Received: BOX_GRID 'legacy'."
    if (config.MASK_PASTE == "legacy") != (config.BOX_GRID == "legacy"):
        return (
            "MASK_PASTE 'legacy' goes with BOX_GRID 'legacy', and neither without the other: the others lay masks into "
            f"boxes of fractions of pixels. Received: MASK_PASTE {config.MASK_PASTE!r}, BOX_GRID {config.BOX_GRID!r}."
        )
    return None
