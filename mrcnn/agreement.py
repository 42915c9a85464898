"""How far two runs of one network lie apart: what an exported model is checked by.

Letters: N detections of one image. Boxes (y1, x1, y2, x2), *normalized* in the molded image. All is numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mrcnn.ops.boxes import compute_overlaps

# Detections of one class whose boxes overlap by so much (IoU) may be the same.
_SAME_IOU = 0.5
# A box that ends so near the border of the image, as a share of its longer side, comes of proposals that end on it.
_BORDER = 0.1


@dataclass(frozen=True)
class Tolerance:
    """The largest difference that two float32 runs of one network may have: boxes in pixels, scores, masks."""

    box: float = 1e-2
    score: float = 1e-3
    mask: float = 1e-2


@dataclass(frozen=True)
class Agreement:
    """Two lists of detections of one image, compared.

    Attributes:
        expected, found: how many there are in each.
        matched: pairs of one class and of boxes that overlap by half, each detection in one pair at most.
        agreeing: pairs whose differences are within the tolerance.
        border: pairs beyond it that end at the border of the image. One rounding error decides there whether the
            outermost samples of ROIAlign count or are 0, see `mrcnn.ops.roi_align`.
        box, score, mask: the largest differences, boxes in pixels; of the agreeing pairs if `within` is asked for,
            else of all that match.
        worst_box: the largest difference in boxes of all that match, pixels.
        median_box: the median of the differences in boxes of all that match, as a share of the box's longer side.
    """

    expected: int
    found: int
    matched: int
    agreeing: int
    border: int
    box: float
    score: float
    mask: float
    worst_box: float
    median_box: float

    @property
    def count(self) -> int:
        """Detections in the longer list."""
        return max(self.expected, self.found)

    @property
    def strays(self) -> int:
        """Detections of the longer list that neither agree nor end at the border."""
        return self.count - self.agreeing - self.border

    def to_dict(self) -> dict[str, Any]:
        """As JSON: numbers of detections, and differences rounded to what can be told."""
        return {name: float(f"{v:.3g}") if isinstance(v, float) else v for name, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Differences:
    """What lies between the pairs of two lists of detections of one image: [P] each.

    Attributes:
        boxes: the largest difference of a coordinate, in pixels.
        scores, masks: of the scores; the largest of a mask.
        sides: the longer side of the expected box, in pixels.
        border: whether the expected box ends at the border of the image, see `Agreement.border`.
        expected, found: how many detections there are in each list.
    """

    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    sides: np.ndarray
    border: np.ndarray
    expected: int
    found: int


def compare(
    expected: tuple[np.ndarray, np.ndarray],
    found: tuple[np.ndarray, np.ndarray],
    shape: Sequence[int],
    within: Tolerance | None = None,
) -> Agreement:
    """Compare detections, whatever their order: of scores that are nearly equal any may come first. Those without area
    are left out: a network may find objects in the empty boxes that fill up its proposals, which others do without.

    Args:
        expected, found: detections [N, 6] and masks [N, mh, mw], see `mrcnn.engines.base.Raw`.
        shape: (height, width) of the molded image, in pixels.
        within: what agrees. None: all that match.
    """
    pairs = differences(expected, found, shape)
    agree = np.ones(len(pairs.boxes), bool)
    if within is not None:
        agree = (pairs.boxes <= within.box) & (pairs.scores <= within.score) & (pairs.masks <= within.mask)

    def largest(values: np.ndarray) -> float:
        return float(values.max(initial=0))

    return Agreement(
        expected=pairs.expected,
        found=pairs.found,
        matched=len(pairs.boxes),
        agreeing=int(agree.sum()),
        border=int((~agree & pairs.border).sum()),
        box=largest(pairs.boxes[agree]),
        score=largest(pairs.scores[agree]),
        mask=largest(pairs.masks[agree]),
        worst_box=largest(pairs.boxes),
        median_box=float(np.median(pairs.boxes / pairs.sides)) if len(pairs.boxes) else 0.0,
    )


def differences(
    expected: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray], shape: Sequence[int]
) -> Differences:
    """Of the pairs of detections that match; arguments as of `compare`."""
    (old, old_masks), (new, new_masks) = _with_area(expected), _with_area(found)
    old_boxes, new_boxes = (_pixels(d[:, :4], shape) for d in (old, new))
    pairs = _pairs(old, new, old_boxes, new_boxes)
    i, j = pairs[:, 0], pairs[:, 1]
    sides = np.maximum((old_boxes[i, 2:] - old_boxes[i, :2]).max(axis=1, initial=0), 1)
    height, width = shape[:2]
    from_border = np.abs(old_boxes[i] - [0, 0, height, width]).min(axis=1, initial=np.inf)
    return Differences(
        boxes=np.abs(old_boxes[i] - new_boxes[j]).max(axis=1, initial=0),
        scores=np.abs(old[i, 5] - new[j, 5]),
        masks=np.abs(old_masks[i] - new_masks[j]).max(axis=(1, 2), initial=0),
        sides=sides,
        border=from_border <= _BORDER * sides,
        expected=len(old),
        found=len(new),
    )


def _with_area(raw: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    detections, masks = raw
    real = (detections[:, 2:4] > detections[:, :2]).all(axis=1)
    return detections[real], masks[real]


def _pixels(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Normalized boxes in pixels, not rounded: [N, 4] float64."""
    height, width = shape[:2]
    scale = np.array([height, width, height, width], np.float64) - 1
    return boxes.astype(np.float64) * scale + [0, 0, 1, 1]


def _pairs(old: np.ndarray, new: np.ndarray, old_boxes: np.ndarray, new_boxes: np.ndarray) -> np.ndarray:
    """Places (in old, in new) [P, 2] of detections that match, the nearest first come first served."""
    if not len(old) or not len(new):
        return np.zeros((0, 2), np.int64)
    distance = np.abs(old_boxes[:, None] - new_boxes[None]).max(axis=-1)
    alike = old[:, None, 4] == new[None, :, 4]
    alike &= (compute_overlaps(old_boxes, new_boxes) >= _SAME_IOU) | (distance <= 1e-3)
    pairs = []
    while alike.any():
        place = np.unravel_index(np.argmin(np.where(alike, distance, np.inf)), alike.shape)
        pairs.append(place)
        alike[place[0]], alike[:, place[1]] = False, False
    return np.array(pairs, np.int64).reshape(-1, 2)
