"""What is kept of what a network found: least scores by class, and suppression across classes.

Letters: N detections, K classes (0 is background). Boxes (y1, x1, y2, x2) in any one unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.engines.base import Raw
from mrcnn.ops.boxes import compute_overlaps

# What a detection must score: a number for all, one for each class [K], or None: nothing.
Least = float | np.ndarray | None


def least_scores(
    min_confidence: float | Mapping[Any, float] | None, config: Config, class_names: Sequence[str] | None
) -> Least:
    """What detections must score beyond what the network asks of them.

    Args:
        min_confidence: a number for all classes; or numbers by class, which is given by its name or its number. Classes
            that are not among them keep what is configured.
        config: of the network.
        class_names: [K], the background's first; None: not known.

    Raises:
        ValueError: a class that is not there, a number that is no score, or one below what the network asks of that
            class: it tells no more.
    """
    if min_confidence is None or not isinstance(min_confidence, Mapping):
        return min_confidence
    asked = asked_scores(config)
    least = asked.copy()
    for name, value in min_confidence.items():
        class_id = class_of(name, config.NUM_CLASSES, class_names)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
            raise ValueError(f"min_confidence of class {name!r} must be a number from 0 to 1. Received: {value!r}.")
        if np.float32(value) < asked[class_id]:
            field = "DETECTION_MIN_CONFIDENCE" if config.DETECTION_CLASS_CONFIDENCE is None else (
                "DETECTION_CLASS_CONFIDENCE")  # fmt: skip
            raise ValueError(
                f"min_confidence of class {name!r} is {value:g}, and the network finds nothing of it below "
                f"{float(asked[class_id]):g} ({field} of its configuration). Lower that first; an exported model has "
                "to be exported again."
            )
        least[class_id] = value
    return least


def asked_scores(config: Config) -> np.ndarray:
    """What a network leaves out of each class for its score: [K] float32, the least that it lets through."""
    configured = config.least_scores()
    return np.full(config.NUM_CLASSES, 0 if configured is None else configured, np.float32)


def class_of(name: Any, num_classes: int, class_names: Sequence[str] | None) -> int:
    """The number of a class, given by its name or its number.

    Raises:
        ValueError: there is none; says which there are.
    """
    names = list(class_names or ())
    if isinstance(name, str):
        if name in names[1:]:
            return names.index(name, 1)
        known = f"It knows: {', '.join(names[1:11])}{' ...' if len(names) > 11 else ''}." if names else (
            f"The names of its classes are not known: give numbers, from 1 to {num_classes - 1}.")  # fmt: skip
        raise ValueError(f"The network has no class {name!r}. {known}")
    if isinstance(name, bool) or not isinstance(name, int | np.integer) or not 1 <= name < num_classes:
        raise ValueError(f"The network has classes 1 to {num_classes - 1}. Received: {name!r}.")
    return int(name)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float, classes: np.ndarray | None = None) -> np.ndarray:
    """Greedy non-maximum suppression, by the rules of `mrcnn.ops.nms`.

    Args:
        boxes: [N, 4].
        scores: [N].
        threshold: IoU above which a box gives way to a better one.
        classes: [N]; boxes of different classes do not touch each other. None: all are of one class.

    Returns:
        Indices of those that stay, best first.
    """
    overlaps = compute_overlaps(boxes, boxes) > threshold
    if classes is not None:
        overlaps &= classes[:, None] == classes
    left, kept = np.ones(len(boxes), bool), []
    for index in np.argsort(-scores, kind="stable").tolist():
        if left[index]:
            kept.append(index)
            left &= ~overlaps[index]
    return np.array(kept, int)


def select(raw: Raw, least: Least, agnostic_threshold: float | None) -> Raw:
    """Leave out of an image's detections what scores too little and, where `agnostic_threshold` is a number, what
    overlaps a better one of any class by an IoU above it."""
    detections, masks = raw
    if least is not None:
        if np.ndim(least):
            least = least[detections[:, 4].astype(int)]
        sure = detections[:, 5] >= least
        detections, masks = detections[sure], masks[sure]
    if agnostic_threshold is not None and len(detections):
        kept = suppress(detections[:, :4], detections[:, 5], agnostic_threshold)
        detections, masks = detections[kept], masks[kept]
    return detections, masks
