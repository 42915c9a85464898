"""Presets: what the fields of `mrcnn.recipe.Recipe` are in networks that others have trained.

Sources, read field by field: torchvision 0.29 (`torchvision/models/detection`) and detectron2 (`detectron2/config`,
`configs/Base-RCNN-FPN.yaml`, `configs/new_baselines`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# ImageNet's mean and standard deviation, as torchvision has them, in 0..255.
_IMAGENET = {
    "MEAN_PIXEL": np.array([0.485, 0.456, 0.406]) * 255,
    "STD_PIXEL": np.array([0.229, 0.224, 0.225]) * 255,
}

# What torchvision and detectron2 agree on.
_COMMON: dict[str, Any] = {
    "BACKBONE": "resnet50",
    "SYMMETRIC_PADDING": True,
    "CONV_BIAS": False,
    "NORM_EPSILON": 1e-5,
    "RPN_CONV_SIZE": 256,
    "RPN_OBJECTNESS": "sigmoid",
    "RPN_ANCHOR_RATIOS": [2, 1, 0.5],  # height / width 0.5, 1, 2
    "RPN_BBOX_STD_DEV": np.array([1.0, 1.0, 1.0, 1.0]),
    "RPN_PER_LEVEL": True,
    "PRE_NMS_LIMIT": 1000,
    "PRE_NMS_LIMIT_TRAINING": 2000,
    "RPN_CLIP_TO_IMAGE": True,
    "BBOX_LOG_LIMIT": math.log(1000 / 16),
    "BOX_GRID": "image",
    "ROI_LEVELS": "floor",
    "DETECTION_ALL_CLASSES": True,
    "DETECTION_MIN_CONFIDENCE": 0.05,
    "DETECTION_NMS_THRESHOLD": 0.5,
    "IMAGE_RESIZE_MODE": "shortest",
    "IMAGE_MIN_DIM": 800,
    "IMAGE_MAX_DIM": 1333,
    "IMAGE_SIZE_MULTIPLE": 32,
    "IMAGE_PAD_CORNER": True,
    "MASK_GRID": "image",
    "TRAIN_ROIS_PER_IMAGE": 512,
    "ROI_POSITIVE_RATIO": 0.25,
    "ROI_FILL_NEGATIVES": True,
    "ROI_ADD_GT_BOXES": True,
    "STOP_PROPOSAL_GRADIENT": True,
    "BBOX_LOSS_OVER_SAMPLES": True,
    "CLASS_LOSS_ALL_CLASSES": True,
    "MASK_HEAD_POSITIVES_ONLY": True,
    "USE_MINI_MASK": False,
}

# Four convolutions and one layer in the box head, two in the RPN, normalization everywhere.
_LARGE_HEADS: dict[str, Any] = {
    "NORM": "batch",
    "NORM_PARTS": ("backbone", "pyramid", "box_convs", "mask_convs"),
    "TRAIN_BN": None,
    "RPN_CONV_DEPTH": 2,
    "BOX_HEAD_CONVS": 4,
    "BOX_HEAD_FCS": 1,
}

_TORCHVISION: dict[str, Any] = {
    **_COMMON,
    **_IMAGENET,
    "RESNET_STRIDE_IN_3X3": True,
    "RPN_ANCHORS_ROUNDED": True,
    "RPN_MIN_SIZE": 1e-3,
    "ROI_ALIGN": "unaligned",
    "ROI_SAMPLING_RATIO": 2,
    "DETECTION_MIN_SIZE": 1e-2,
    "MASK_PASTE": "torchvision",
    "IMAGE_INTERPOLATION": "bilinear",
    "IMAGE_ROUND_DOWN": True,
    "MASK_TARGETS": "soft",
    "RPN_BBOX_LOSS_BETA": 1 / 9,
    "BBOX_LOSS_BETA": 1 / 9,
}

_DETECTRON2: dict[str, Any] = {
    **_COMMON,
    "IMAGE_CHANNEL_ORDER": "bgr",
    "MEAN_PIXEL": np.array([123.675, 116.28, 103.53]),
    "NORM": "frozen",
    "NORM_PARTS": ("backbone",),
    "RPN_MIN_SIZE": 0.0,
    "POST_NMS_ROIS_TRAINING": 1000,
    "ROI_ALIGN": "aligned",
    "ROI_SAMPLING_RATIO": 0,
    "DETECTION_MIN_SIZE": 0.0,
    "MASK_PASTE": "aligned",
    "IMAGE_INTERPOLATION": "antialias",
    "MASK_TARGETS": "aligned",
    "RPN_BBOX_LOSS_BETA": 0.0,
    "BBOX_LOSS_BETA": 0.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    "legacy": {},
    "torchvision_v1": {
        **_TORCHVISION,
        "NORM": "frozen",
        "NORM_PARTS": ("backbone",),
        "NORM_EPSILON": 0.0,  # which torchvision sets for the released weights alone
    },
    "torchvision_v2": {**_TORCHVISION, **_LARGE_HEADS},
    "detectron2": _DETECTRON2,
    "detectron2_lsj": {**_DETECTRON2, **_LARGE_HEADS},
    "modern": {
        **_COMMON,
        **_IMAGENET,
        **_LARGE_HEADS,
        "TRAIN_BN": False,  # batches are small
        "RESNET_STRIDE_IN_3X3": True,
        "RPN_MIN_SIZE": 0.0,
        "ROI_ALIGN": "aligned",
        "ROI_SAMPLING_RATIO": 2,
        "DETECTION_MIN_SIZE": 0.0,
        "MASK_PASTE": "aligned",
        "IMAGE_INTERPOLATION": "bilinear",
        "MASK_TARGETS": "aligned",
        "USE_MINI_MASK": True,
        "MINI_MASK_SHAPE": (112, 112),
        "RPN_BBOX_LOSS_BETA": 1 / 9,
        "BBOX_LOSS_BETA": 1 / 9,
    },
}


def is_of_a_preset(field: str, value: Any) -> bool:
    """Whether a value of a field, which is an array, is a preset's own, and not one that somebody else has set."""
    return any(value is values.get(field) for values in PRESETS.values())


def subclass(base: type, name: str) -> type:
    """A subclass of a configuration with a preset's values."""
    title = "".join(part.capitalize() for part in name.split("_"))
    return type(f"{title}{base.__name__}", (base,), dict(PRESETS[name]))
