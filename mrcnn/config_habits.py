"""What projects of the original put into their `Config`: attributes of their own, fields misspelled or called as they
were once, and what the original did not look at."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.config_checks import is_slip, split_weights
from mrcnn.habits import tell_once

# The fields that the original has. Projects know these, and use any other name for attributes of their own.
ORIGINAL = frozenset({
    "NAME", "GPU_COUNT", "IMAGES_PER_GPU", "STEPS_PER_EPOCH", "VALIDATION_STEPS", "BACKBONE", "COMPUTE_BACKBONE_SHAPE",
    "BACKBONE_STRIDES", "FPN_CLASSIF_FC_LAYERS_SIZE", "TOP_DOWN_PYRAMID_SIZE", "NUM_CLASSES", "RPN_ANCHOR_SCALES",
    "RPN_ANCHOR_RATIOS", "RPN_ANCHOR_STRIDE", "RPN_NMS_THRESHOLD", "RPN_TRAIN_ANCHORS_PER_IMAGE", "PRE_NMS_LIMIT",
    "POST_NMS_ROIS_TRAINING", "POST_NMS_ROIS_INFERENCE", "USE_MINI_MASK", "MINI_MASK_SHAPE", "IMAGE_RESIZE_MODE",
    "IMAGE_MIN_DIM", "IMAGE_MAX_DIM", "IMAGE_MIN_SCALE", "IMAGE_CHANNEL_COUNT", "MEAN_PIXEL", "TRAIN_ROIS_PER_IMAGE",
    "ROI_POSITIVE_RATIO", "POOL_SIZE", "MASK_POOL_SIZE", "MASK_SHAPE", "MAX_GT_INSTANCES", "RPN_BBOX_STD_DEV",
    "BBOX_STD_DEV", "DETECTION_MAX_INSTANCES", "DETECTION_MIN_CONFIDENCE", "DETECTION_NMS_THRESHOLD", "LEARNING_RATE",
    "LEARNING_MOMENTUM", "WEIGHT_DECAY", "LOSS_WEIGHTS", "USE_RPN_ROIS", "TRAIN_BN", "GRADIENT_CLIP_NORM",
})  # fmt: skip

# What the original called fields in its first year.
_EARLIER = {"VALIDATION_STPES": "VALIDATION_STEPS"}

# Of values that can stand for each other in a field.
_KINDS = (str, Mapping, numbers.Number, (list, tuple, np.ndarray))


def earlier_fields(config: Any, base: type) -> dict[str, Any]:
    """Values of fields that a configuration gives under an earlier name alone, by today's; told once.

    Args:
        config: an instance.
        base: `Config`.
    """
    found = {}
    for earlier, name in _EARLIER.items():
        if hasattr(config, earlier) and name not in vars(config) and not _sets(type(config), base, name):
            tell_once(f"Config.{earlier}", f"is {name}, as this field came to be called.", UserWarning)
            found[name] = getattr(config, earlier)
    return found


def misspelled(cls: type, base: type, fields: Collection[str]) -> str | None:
    """What is wrong with the names in a subclass of `Config`; None: nothing. Those that are a project's own, and only
    look like fields, are told once.

    A field of the original is misspelled where a name nearly is one, the value could be the field's, and the class does
    not set the field itself.

    Args:
        cls: the subclass.
        base: `Config`.
        fields: of it, the derived ones among them.
    """
    for name in dir(cls):
        if name in fields or name.startswith("_") or hasattr(base, name) or name in _EARLIER:
            continue
        value = getattr(cls, name)
        if name.islower() and name.upper() in fields and "_" in name:
            if not callable(value) and not isinstance(value, property):
                _tell_of_own(cls, name, name.upper())
            continue
        near = [field for field in fields if name.isupper() and is_slip(name, field)]
        for field in near:
            if field in ORIGINAL and not _sets(cls, base, field) and _alike(value, getattr(base, field)):
                return (
                    f"{cls.__name__}.{name} is no field of Config. Did you mean {field}? "
                    "(An attribute of your own needs a name less like a field's.)"
                )
        if near:
            _tell_of_own(cls, name, near[0])
    return None


def tell_of_values(config: Any, levels: Sequence[str], losses: Sequence[str]) -> None:
    """Tell once of what works, and may not have been meant.

    Args:
        config: an instance.
        levels: of the pyramid.
        losses: names that LOSS_WEIGHTS can have.
    """
    count = len(config.RPN_ANCHOR_SCALES)
    if count < len(levels):
        told = f"anchors lie on {', '.join(levels[:count])} alone, and the RPN looks at no other level."
        tell_once(f"RPN_ANCHOR_SCALES of {count} levels", told, UserWarning)
    for name in split_weights(config.LOSS_WEIGHTS, losses)[1]:
        tell_once(f"LOSS_WEIGHTS[{name!r}]", f"has no effect: the losses are {', '.join(losses)}.", UserWarning)


def about_field(config: Any, name: str) -> str:
    """For an error about a field that the original does not have, and a project may have meant for its own."""
    owner = next(cls for cls in (type(config), *type(config).__mro__) if name in vars(cls) or name in vars(config))
    if name in ORIGINAL or owner.__module__.partition(".")[0] == "mrcnn":
        return ""
    return f" ({name} is a field of this package: an attribute of your own needs another name.)"


def _sets(cls: type, base: type, field: str) -> bool:
    """Whether a subclass of `Config`, or a class between, gives a field a value."""
    return any(field in vars(one) for one in cls.__mro__[: cls.__mro__.index(base)])


def _tell_of_own(cls: type, name: str, field: str) -> None:
    tell_once(f"{cls.__name__}.{name}", f"is taken for an attribute of your own; the field is {field}.", UserWarning)


def _alike(value: Any, other: Any) -> bool:
    """Whether two values are of one kind, as far as the second tells."""
    kinds = [next((kind for kind in _KINDS if isinstance(one, kind)), None) for one in (value, other)]
    return kinds[1] is None or kinds[0] == kinds[1]
