"""What the measured training steps learn from: two images and the objects in them, for both sides the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_CLASSES = 81  # with the background
ROIS = 200  # of an image, for the heads
POSITIVES = 66  # of them, which are all that the mask head has to see
RPN_WIDTH = 256
PROPOSALS = 2000
_GRID = 5  # objects lie in so many rows and columns
_SIDES = (64, 96, 80)  # in pixels of a photo of 512, row by row


@dataclass(frozen=True)
class Scene:
    """An image and its objects: uint8 [H, W, 3], boxes [N, 4] (y1, x1, y2, x2), labels [N], masks bool [N, H, W]."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def scenes(photo: np.ndarray) -> list[Scene]:
    """The photo and its mirror image, with as many ellipses on each as give all the positive ROIs that are wanted."""
    side = photo.shape[0]
    rows, columns = np.mgrid[:side, :side]
    boxes, masks = [], []
    for row in range(_GRID):
        size = _SIDES[row % len(_SIDES)] * side / 512
        for column in range(_GRID):
            center = (np.array([row, column]) + 0.5) * side / _GRID
            masks.append(((rows - center[0]) ** 2 + (columns - center[1]) ** 2) < (size / 2) ** 2)
            boxes.append([*(center - size / 2), *(center + size / 2)])
    boxes, masks = np.round(boxes).astype(np.float32), np.stack(masks)
    labels = 1 + np.arange(len(boxes)) % (NUM_CLASSES - 1)
    mirrored = np.stack([boxes[:, 0], side - boxes[:, 3], boxes[:, 2], side - boxes[:, 1]], axis=1)
    return [
        Scene(photo, boxes, labels, masks),
        Scene(np.ascontiguousarray(photo[:, ::-1]), mirrored, labels, np.ascontiguousarray(masks[:, :, ::-1])),
    ]
