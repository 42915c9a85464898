"""What fields of `Config` may hold, where it takes more than a line to say, and how they are written down.

Letters: K classes (0 is background).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

GPUS_WANTED = "None or numbers of GPUs, each once, such as (0, 1)"
MEMORY_WANTED = "None, 'growth', or a number above 0, at most 1"
CLASS_CONFIDENCE_WANTED = "None, or a number from 0 to 1 for each of the NUM_CLASSES classes, the background's first"
CLASS_WEIGHTS_WANTED = "None, or a number of at least 0 for each of the NUM_CLASSES classes, not all of them 0"
RGB_CHANNELS_WANTED = "None, or three different numbers of channels, from 0 to IMAGE_CHANNEL_COUNT - 1"


OPTIMIZERS = ("SGD", "AdamW")
SCHEDULES = ("constant", "step", "cosine")
TRAINING_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

# Fields whose values are right or wrong by themselves: what they must be, as a test and in words.
BY_THEMSELVES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "NAME": (lambda v: v is None or isinstance(v, str), "a string"),
    "TRAIN_BN": (lambda v: v in (None, True, False), "None, True or False"),
    "ROI_POSITIVE_RATIO": (lambda v: 0 < v <= 1, "a number above 0, at most 1"),
    "RPN_NMS_THRESHOLD": (lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    "DETECTION_NMS_THRESHOLD": (lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    "DETECTION_NMS_CLASS_AGNOSTIC": (lambda v: v in (True, False), "True or False"),
    "DETECTION_MIN_CONFIDENCE": (lambda v: v is None or 0 <= v <= 1, "a number from 0 to 1, or None"),
    "LEARNING_RATE": (lambda v: 0 < v < math.inf, "a number above 0"),
    "LEARNING_MOMENTUM": (lambda v: 0 <= v < 1, "a number from 0 up to, not including, 1"),
    "GRADIENT_CLIP_NORM": (lambda v: 0 < v < math.inf, "a number above 0"),
    "WEIGHT_DECAY": (lambda v: v >= 0, "a number of at least 0"),
    "FOCAL_GAMMA": (lambda v: is_focal_gamma(v), "a number of at least 0"),
    "OPTIMIZER": (lambda v: v in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
    "LEARNING_RATE_SCHEDULE": (lambda v: v in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "LEARNING_RATE_STEPS": (lambda v: are_shares(v), "numbers between 0 and 1 that grow, such as (0.67, 0.89)"),
    "LEARNING_RATE_DECAY": (lambda v: 0 < v < 1, "a number between 0 and 1"),
    "WARMUP_STEPS": (lambda v: is_whole(v) and v >= 0, "a whole number of at least 0"),
    "WARMUP_FACTOR": (lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    "GRADIENT_ACCUMULATION": (lambda v: is_whole(v) and v >= 1, "a whole number of at least 1"),
    "EMA_DECAY": (lambda v: 0 <= v < 1, "a number from 0 up to, not including, 1, such as 0.999"),
    "PRECISION": (lambda v: v in TRAINING_PRECISIONS, f"one of {', '.join(TRAINING_PRECISIONS)}"),
    "SAVE_EVERY": (lambda v: is_whole(v) and v >= 0, "a whole number of at least 0"),
}


def is_class_confidence(value: Any, num_classes: int) -> bool:
    """Whether a value can be DETECTION_CLASS_CONFIDENCE: [K] numbers."""
    if value is None:
        return True
    least = np.asarray(value, float)
    return least.shape == (num_classes,) and bool(((least >= 0) & (least <= 1)).all())


def is_class_weights(value: Any, num_classes: int) -> bool:
    """Whether a value can be CLASS_WEIGHTS: [K] numbers."""
    if value is None:
        return True
    weights = np.asarray(value, float)
    return weights.shape == (num_classes,) and bool(np.isfinite(weights).all() and (weights >= 0).all()) and any(value)


def is_focal_gamma(value: Any) -> bool:
    """Whether a value can be FOCAL_GAMMA."""
    return 0 <= value < math.inf and not isinstance(value, bool)


def is_rgb_channels(value: Any, channel_count: int) -> bool:
    """Whether a value can be RGB_CHANNELS."""
    if value is None:
        return True
    fine = len(value) == 3 and all(is_whole(number) and 0 <= number < channel_count for number in value)
    return fine and len(set(value)) == 3


def is_rectangle(value: Any, multiple: int) -> bool:
    """Whether a value can be IMAGE_RECTANGLE: None, or (height, width), multiples of `multiple`."""
    if value is None:
        return True
    return len(value) == 2 and all(is_whole(side) and side >= multiple and side % multiple == 0 for side in value)


def rectangle_of(image_shape: Any, channel_count: int) -> tuple[int, int] | None:
    """(height, width) of an IMAGE_SHAPE that a subclass sets, if it says what the other fields cannot: sides that
    differ. None of a square's, which follows from the other fields, and of what is no shape of an image.

    Args:
        image_shape: (height, width) or (height, width, channels).
        channel_count: IMAGE_CHANNEL_COUNT.
    """
    shape = image_shape.tolist() if isinstance(image_shape, np.ndarray) else image_shape
    if not isinstance(shape, Sequence) or len(shape) not in (2, 3) or not all(map(is_whole, shape)):
        return None
    if shape[0] == shape[1] or tuple(shape[2:]) not in ((), (channel_count,)):
        return None
    return int(shape[0]), int(shape[1])


def whole(value: Any) -> Any:
    """A finite float, such as images / batch size, as the whole number from which on it is reached; else the value."""
    if isinstance(value, float | np.floating) and math.isfinite(value):
        return math.ceil(value)
    return value


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, and not True or False."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_gpu_list(value: Any) -> bool:
    """Whether a value can be GPUS."""
    if value is None:
        return True
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(is_whole(number) and number >= 0 for number in value) and len(set(value)) == len(value)


def is_gpu_memory(value: Any) -> bool:
    """Whether a value can be GPU_MEMORY."""
    if value is None or isinstance(value, str):
        return value in (None, "growth")
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def are_shares(value: Any) -> bool:
    """Whether a value can be LEARNING_RATE_STEPS: numbers between 0 and 1 that grow."""
    shares = [0.0, *value, 1.0]
    return not isinstance(value, str) and all(a < b for a, b in itertools.pairwise(shares))


def is_slip(name: str, field: str) -> bool:
    """Whether `name` is `field` mistyped: a letter wrong, missing or too many, or two in a long name. Names told apart
    on purpose are not: by a number at the end, by their first letter, by MIN for MAX, or short ones (NAMES beside
    NAME)."""
    if len(field) <= 5 or name[:1] != field[0] or name[-1].isdigit():
        return False
    words, others = set(name.split("_")), set(field.split("_"))
    if ("MIN" in words and "MAX" in others) or ("MAX" in words and "MIN" in others):
        return False
    allowed = 2 if len(field) > 10 else 1
    row = list(range(len(field) + 1))  # Levenshtein's distance, row by row
    for i, letter in enumerate(name, start=1):
        previous, row = row, [i]
        for j, other in enumerate(field, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (letter != other)))
    return row[-1] <= allowed


def split_weights(weights: Any, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Keys of LOSS_WEIGHTS that are no names of losses: those that nearly are, and a project's own."""
    strange = [str(key) for key in weights if key not in names]
    slips = [key for key in strange if any(is_slip(key, name) or name.endswith(f"_{key}") for name in names)]
    return slips, [key for key in strange if key not in slips]


def plain(value: Any) -> Any:
    """A field's value as JSON can hold it; a callable is given by its name."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if callable(value):
        return getattr(value, "__qualname__", repr(value))
    return value
