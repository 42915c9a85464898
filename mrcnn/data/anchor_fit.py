"""Anchors proposed from the data: the scale of each pyramid level, and the ratios, that overlap the objects best.

Letters: N objects, L levels (P2..P6, or the first of them), R ratios. Boxes are (y1, x1, y2, x2) in *pixels* of the
molded image.

K-means with IoU for a distance (as YOLO9000 has it for boxes of any place), under two constraints of a pyramid: an
anchor's size is the product of its level's scale and a ratio that all levels share, and its place is on its level's
grid. A level's scale is at least twice its stride: with smaller ones a few objects would be met by luck, and their
neighbors, some pixels further, not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mrcnn.config import Config

# An anchor that overlaps so much is a positive example; one that overlaps more is no better.
GOOD_IOU = 0.7
FAIR_IOU = 0.5

# Objects that scales and ratios are fitted to; of more, so many are drawn.
_MOST_OBJECTS = 4000
_ROUNDS = 30
# Factors that a single scale or ratio is tried with at the end, as long as one helps.
_STEPS = (0.8, 0.9, 0.96, 1.04, 1.1, 1.25)
# Of the scales of levels without objects to their neighbors', and the least of neighboring ratios.
_FACTOR_OF_LEVELS = 2
_FACTOR_OF_RATIOS = 1.15
# The least scale of each level but the finest, in strides.
_LEAST_SCALE = 2


@dataclass(frozen=True)
class Coverage:
    """How well anchors overlap objects: shares of those whose best anchor has an IoU of 0.5 or more, and of 0.7 or
    more, and the mean of the best IoUs, those above 0.7 counted as that: what a fit maximizes."""

    fair: float
    good: float
    mean_iou: float

    @classmethod
    def of(cls, best: np.ndarray) -> Coverage:
        """Of the best IoUs [N]; zeros where there are none."""
        if not len(best):
            return cls(0.0, 0.0, 0.0)
        return cls(float((best >= FAIR_IOU).mean()), float((best >= GOOD_IOU).mean()), _mean_iou(best))


@dataclass(frozen=True)
class AnchorFit:
    """A proposal, and what it changes. `unused` are the levels, from 0 for P2, that are no object's best."""

    scales: tuple[int, ...]
    ratios: tuple[float, ...]
    before: Coverage
    after: Coverage
    unused: tuple[int, ...]

    @property
    def better(self) -> bool:
        """Whether it is worth a change: the mean IoU gains a hundredth or more."""
        return self.after.mean_iou >= self.before.mean_iou + 0.01


def overlaps_of_kinds(
    boxes: np.ndarray,
    molded: np.ndarray,
    scales: Sequence[float],
    ratios: Sequence[float],
    strides: Sequence[float],
) -> np.ndarray:
    """IoU of each box with the best placed anchor of each kind, without making the anchors.

    Of anchors of one shape it is the one whose center is the nearest, in each direction by itself.

    Args:
        boxes: [N, 4].
        molded: [N, 2] height and width of each box's image.
        scales: L sides of the anchors, in pixels.
        ratios: R ratios, width / height.
        strides: L distances of neighboring anchors, in pixels: BACKBONE_STRIDES x RPN_ANCHOR_STRIDE.

    Returns:
        [N, L, R].
    """
    strides = np.asarray(strides, np.float64)
    root = np.sqrt(np.asarray(ratios, np.float64))
    sizes = np.stack(np.broadcast_arrays(1 / root, root), axis=-1) * np.asarray(scales, np.float64)[:, None, None]
    box_sizes, centers = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    last = np.ceil(molded[:, None] / strides[:, None]) - 1  # [N, L, 2] number of the last anchor
    nearest = np.clip(np.rint(centers[:, None] / strides[:, None]), 0, last) * strides[:, None]
    away = np.abs(centers[:, None] - nearest)[:, :, None]  # [N, L, 1, 2]
    own = box_sizes[:, None, None]
    shared = np.clip((own + sizes) / 2 - away, 0, np.minimum(own, sizes))
    intersection = shared.prod(axis=-1)
    union = own.prod(axis=-1) + sizes.prod(axis=-1) - intersection
    return intersection / np.maximum(union, 1e-9)


def coverage(boxes: np.ndarray, molded: np.ndarray, config: Config) -> Coverage:
    """How well a configuration's anchors overlap boxes [N, 4] of images of sizes `molded` [N, 2]."""
    return Coverage.of(best_overlaps(boxes, molded, config))


def best_overlaps(boxes: np.ndarray, molded: np.ndarray, config: Config) -> np.ndarray:
    """IoU [N] of each box with the best of a configuration's anchors."""
    kinds = overlaps_of_kinds(boxes, molded, config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, _strides(config))
    return kinds.max(axis=(1, 2), initial=0.0)


def fit_anchors(
    boxes: np.ndarray, molded: np.ndarray, config: Config, ratio_count: int | None = None, seed: int = 0
) -> AnchorFit:
    """Scales, and where asked ratios, that overlap objects as well as can be found.

    Args:
        boxes: [N, 4], at least one.
        molded: [N, 2] height and width of each box's image.
        config: RPN_ANCHOR_SCALES, RPN_ANCHOR_RATIOS, BACKBONE_STRIDES and RPN_ANCHOR_STRIDE are where it begins.
        ratio_count: R of the proposal; None: the ratios stay.
        seed: draws the objects, where there are many.

    Raises:
        ValueError: no boxes.
    """
    if not len(boxes):
        raise ValueError("Anchors are fitted to objects, and there are none.")
    chosen = slice(None)
    if len(boxes) > _MOST_OBJECTS:
        chosen = np.random.default_rng(seed).choice(len(boxes), _MOST_OBJECTS, replace=False)
    fit = _Fit(boxes[chosen], molded[chosen], _strides(config), ratio_count is not None)
    starts = fit.starts(
        np.asarray(config.RPN_ANCHOR_SCALES, float), np.asarray(config.RPN_ANCHOR_RATIOS, float), ratio_count
    )
    scales, ratios = fit.refine(*max((fit.cluster(*start) for start in starts), key=lambda found: fit.score(*found)))
    scales, ratios, unused = fit.tidy(scales, ratios)
    best = overlaps_of_kinds(boxes, molded, scales, ratios, fit.strides).reshape(len(boxes), -1).max(axis=1)
    return AnchorFit(scales, ratios, coverage(boxes, molded, config), Coverage.of(best), unused)


def _strides(config: Config) -> np.ndarray:
    """Of the levels that have anchors."""
    return np.asarray(config.BACKBONE_STRIDES, float)[: len(config.RPN_ANCHOR_SCALES)] * config.RPN_ANCHOR_STRIDE


class _Fit:
    """Scales [L] and ratios [R] fitted to some objects."""

    def __init__(self, boxes: np.ndarray, molded: np.ndarray, strides: np.ndarray, fit_ratios: bool) -> None:
        self.boxes, self.molded, self.strides, self.fit_ratios = boxes, molded, strides, fit_ratios
        self.least = np.concatenate([[1.0], _LEAST_SCALE * strides[1:]])
        sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
        self.log_side = np.log(sizes).mean(axis=1)
        self.log_ratio = np.log(sizes[:, 1] / sizes[:, 0])

    def score(self, scales: np.ndarray, ratios: np.ndarray) -> float:
        """What is maximized: `Coverage.mean_iou`."""
        return _mean_iou(self._overlaps(scales, ratios).max(axis=1))

    def _overlaps(self, scales: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        kinds = overlaps_of_kinds(self.boxes, self.molded, scales, ratios, self.strides)
        return kinds.reshape(len(self.boxes), -1)

    def starts(
        self, scales: np.ndarray, ratios: np.ndarray, ratio_count: int | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Where clustering begins: what is configured, the objects' own sizes, and multiples of the strides."""
        of_objects = np.exp(np.quantile(self.log_side, (np.arange(len(scales)) + 0.5) / len(scales)))
        some = [scales, of_objects, *(factor * self.strides for factor in (2, 4, 8))]
        some = [np.maximum(one, self.least) for one in some]
        if ratio_count is None:
            return [(one, ratios) for one in some]
        shares = (np.arange(ratio_count) + 0.5) / ratio_count
        own = np.exp(np.quantile(self.log_ratio, shares))
        wide = np.exp(np.log(ratios.min()) + shares * np.log(ratios.max() / ratios.min()))
        pairs = [(one, other) for one in some for other in (own, wide)]
        return pairs + [(one, ratios) for one in some if len(ratios) == ratio_count]

    def cluster(self, scales: np.ndarray, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """K-means: each object goes to the kind of anchor that overlaps it best, each scale and ratio to the mean of
        its objects (of logarithms). The best of all rounds, for a mean need not maximize IoU."""
        best, best_score = (scales, ratios), -1.0
        before = None
        for _ in range(_ROUNDS):
            overlaps = self._overlaps(scales, ratios)
            score = _mean_iou(overlaps.max(axis=1))
            if score > best_score:
                best, best_score = (scales, ratios), score
            kind = overlaps.argmax(axis=1)
            if before is not None and (kind == before).all():
                break
            before = kind
            level, ratio = np.divmod(kind, len(ratios))
            scales = np.maximum(np.sort(np.exp(_means(self.log_side, level, np.log(scales)))), self.least)
            if self.fit_ratios:
                ratios = np.sort(np.exp(_means(self.log_ratio, ratio, np.log(ratios))))
        return best

    def refine(self, scales: np.ndarray, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Change one scale or ratio at a time as long as that helps."""
        score = self.score(scales, ratios)
        places = [(0, i) for i in range(len(scales))] + (
            [(1, i) for i in range(len(ratios))] if self.fit_ratios else []
        )
        for _ in range(_ROUNDS):
            start = score
            for which, i in places:
                for step in _STEPS:
                    trial = [scales.copy(), ratios.copy()]
                    trial[which][i] *= step
                    trial[0] = np.maximum(trial[0], self.least)
                    found = self.score(*trial)
                    if found > score:
                        (scales, ratios), score = trial, found
            if score - start < 1e-4:
                break
        return np.maximum(np.sort(scales), self.least), np.sort(ratios)

    def tidy(
        self, scales: np.ndarray, ratios: np.ndarray
    ) -> tuple[tuple[int, ...], tuple[float, ...], tuple[int, ...]]:
        """Numbers for people; for levels that are no object's best, scales that go on from their neighbors'; and ratios
        that differ."""
        level = self._overlaps(scales, ratios).argmax(axis=1) // len(ratios)
        used = np.unique(level)
        scales, ratios = np.rint(scales), ratios.copy()
        for i in range(used[0] - 1, -1, -1):
            scales[i] = max(scales[i + 1] / _FACTOR_OF_LEVELS, 1)
        for i in range(used[-1] + 1, len(scales)):
            scales[i] = scales[i - 1] * _FACTOR_OF_LEVELS
        unused = tuple(i for i in range(len(scales)) if i not in used)
        rounded = tuple(max(1, round(float(scale))) for scale in scales)
        if self.fit_ratios:
            middle = len(ratios) // 2
            for i in range(middle + 1, len(ratios)):
                ratios[i] = max(ratios[i], ratios[i - 1] * _FACTOR_OF_RATIOS)
            for i in range(middle - 1, -1, -1):
                ratios[i] = min(ratios[i], ratios[i + 1] / _FACTOR_OF_RATIOS)
        return rounded, tuple(round(float(ratio), 2) for ratio in ratios), unused


def _mean_iou(best: np.ndarray) -> float:
    return float(np.minimum(best, GOOD_IOU).mean())


def _means(values: np.ndarray, groups: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Mean of the values of each group; `otherwise` where a group has none."""
    counts = np.bincount(groups, minlength=len(otherwise))
    sums = np.bincount(groups, values, minlength=len(otherwise))
    return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)
