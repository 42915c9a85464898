"""What a candidate finds in the photo, kept for another that has the same weights. Needs numpy alone.

Letters: N detections.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

# Boxes are of one object from this IoU on.
SAME = 0.9


def found_file(cache: Path, photo: np.ndarray) -> Path:
    """Where torchvision's detections are kept."""
    return cache / f"torchvision_r101_{photo.shape[0]}_found.npz"


def share_found(theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> float:
    """Of their detections, the share that ours has too: of the same class, and in the same place.

    Args:
        theirs: boxes [N, (x1, y1, x2, y2)] and labels [N].
        ours: boxes [N, (y1, x1, y2, x2)] and labels [N].
    """
    boxes = theirs["boxes"][:, [1, 0, 3, 2]]
    again = 0
    for box, label in zip(boxes, theirs["labels"], strict=True):
        others = ours["boxes"][ours["labels"] == label]
        again += bool(len(others)) and bool(_iou(box, others).max() >= SAME)
    return again / len(boxes) if len(boxes) else 1.0


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod((high - low).clip(0), axis=1)
    return shared / (np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared)
