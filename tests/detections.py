"""Detections for tests of what is written of them: odd masks, in each form that `detect` gives."""

from __future__ import annotations

import cv2
import numpy as np

from mrcnn.data.masks import extract_bboxes, polygons_of_crop
from mrcnn.data.rle import encode_masks

NAMES = ("BG", "cell", 'naïve: 細胞 "x" # y', "dog")


def odd_masks(height: int = 60, width: int = 80) -> np.ndarray:
    """[H, W, 7]: a disk with two holes, parts, one in the hole of another; one pixel; a line; what touches all borders;
    a whole image; and a disk below another."""
    masks = np.zeros((height, width, 7), np.uint8)
    ring, parts = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    cv2.circle(ring, (30, 30), 20, 1, -1)
    cv2.circle(ring, (24, 28), 5, 0, -1)
    ring[38, 38] = 0
    cv2.circle(parts, (60, 40), 14, 1, 4)
    cv2.circle(parts, (60, 40), 5, 1, -1)
    parts[2:9, 70:79] = 1
    masks[..., 0], masks[..., 1] = ring, parts
    masks[7, 11, 2] = 1
    masks[50, 3:60, 3] = 1
    masks[0, :, 4] = masks[-1, :, 4] = masks[:, 0, 4] = masks[:, -1, 4] = 1
    masks[..., 5] = 1
    masks[25:35, 20:40, 6] = 1
    return masks.astype(bool)


def result_of(masks: np.ndarray, form: str = "rle", scores=None, class_ids=None) -> dict:
    """A result of `detect` with these masks [H, W, N] bool in a form."""
    count = masks.shape[2]
    result = {
        "rois": extract_bboxes(masks),
        "class_ids": np.array(np.arange(count) % 3 + 1 if class_ids is None else class_ids, np.int32),
        "scores": np.array(np.linspace(0.99, 0.5, count) if scores is None else scores, np.float32),
        "masks": masks,
    }
    if form == "rle":
        result["masks"] = encode_masks(masks)
    elif form == "polygons":
        result["masks"] = [polygons_of_crop(masks[..., n], 0, 0) for n in range(count)]
        result["image"] = np.zeros((*masks.shape[:2], 3), np.uint8)
    return result
