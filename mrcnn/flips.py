"""Test-time flips: an image and its mirror images go through the network, and what is found in them becomes one.

Letters: B images, h, w molded size, C channels, N detections of all views of an image. Boxes (y1, x1, y2, x2),
*normalized* in the molded image.

Detections of one class in several views are of one object where their boxes overlap, each view's at most once, the best
first. Of these the boxes are averaged, and the masks' probabilities, weighted by score; masks are brought to the
averaged box before. The score is the mean over all views; one that has not found the object counts as the least score
that the network lets through, which it cannot be above.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mrcnn.config import Config
from mrcnn.data.image_meta import ImageMeta
from mrcnn.engines.base import Engine, Raw
from mrcnn.ops.boxes import compute_overlaps
from mrcnn.selection import asked_scores, suppress

# Which axes (rows, columns) each mirror image turns round.
FLIPS = {"horizontal": (False, True), "vertical": (True, False), "both": (True, True)}

# From this IoU on, boxes in two views are of one object.
_SAME = 0.5


def flip_names(flips: bool | str | Sequence[str] | None) -> tuple[str, ...]:
    """The mirror images asked for: True stands for "horizontal".

    Raises:
        ValueError: one that is not there, or is named twice.
    """
    if flips is None or isinstance(flips, bool):
        return ("horizontal",) if flips else ()
    names = (flips,) if isinstance(flips, str) else tuple(flips)
    if len(set(names)) < len(names) or not set(names) <= set(FLIPS):
        raise ValueError(f"flips must be True, or of {', '.join(FLIPS)}, each once. Received: {flips!r}.")
    return names


class FlippingEngine:
    """An engine that also looks at mirror images, with another engine; see `mrcnn.engines.base.Engine`.

    Args:
        engine: runs the network, once for the image and once for each mirror image.
        flips: see `FLIPS`.
        config: of the network.
    """

    def __init__(self, engine: Engine, flips: Sequence[str], config: Config) -> None:
        self.name, self.precision, self.device = engine.name, engine.precision, engine.device
        self.threads = engine.threads
        self._engine = engine
        self._flips = [FLIPS[name] for name in flips]
        self._config = config

    def run(self, molded: np.ndarray, metas: np.ndarray, anchors: np.ndarray) -> list[Raw]:
        """See `Engine.run`."""
        views = [self._engine.run(molded, metas, anchors)]
        for rows, columns in self._flips:
            mirrored = np.ascontiguousarray(molded[:, :: _step(rows), :: _step(columns)])
            found = self._engine.run(mirrored, _mirrored_metas(metas, molded.shape, rows, columns), anchors)
            views.append([_mirrored_back(raw, rows, columns) for raw in found])
        return [self._as_one(of_image) for of_image in zip(*views, strict=True)]

    def _as_one(self, views: Sequence[Raw]) -> Raw:
        """What is found in the views of an image."""
        config = self._config
        rows, masks = (np.concatenate(parts) for parts in zip(*views, strict=True))
        view_of = np.repeat(np.arange(len(views)), [len(detections) for detections, _ in views])
        groups = _matched(rows, view_of, len(views))
        if not groups:
            return rows, masks
        least = asked_scores(config)
        fused = [
            _fused(rows[group], masks[group], len(views) - len(group), float(least[int(rows[group[0], 4])]))
            for group in groups
        ]
        rows, masks = (np.stack(parts).astype(np.float32) for parts in zip(*fused, strict=True))
        classes = None if config.DETECTION_NMS_CLASS_AGNOSTIC else rows[:, 4]
        kept = suppress(rows[:, :4], rows[:, 5], config.DETECTION_NMS_THRESHOLD, classes)
        kept = kept[: config.DETECTION_MAX_INSTANCES]
        return rows[kept], masks[kept]


def _step(is_flipped: bool) -> int:
    return -1 if is_flipped else 1


def _mirrored_metas(metas: np.ndarray, shape: Sequence[int], rows: bool, columns: bool) -> np.ndarray:
    """Metas [B, 12 + K] of mirror images of molded ones of a shape [B, h, w, C]: the window moves."""
    metas = metas.copy()
    window = metas[:, ImageMeta.columns("window")]  # a view
    for is_flipped, side, low, high in ((rows, shape[1], 0, 2), (columns, shape[2], 1, 3)):
        if is_flipped:
            window[:, [low, high]] = side - window[:, [high, low]]
    return metas


def _mirrored_back(raw: Raw, rows: bool, columns: bool) -> Raw:
    """Detections of a mirror image, in the image itself."""
    detections, masks = raw
    detections = detections.copy()
    for is_flipped, low, high in ((rows, 0, 2), (columns, 1, 3)):
        if is_flipped:
            detections[:, [low, high]] = 1 - detections[:, [high, low]]
    return detections, masks[:, :: _step(rows), :: _step(columns)]


def _matched(rows: np.ndarray, view_of: np.ndarray, views: int) -> list[list[int]]:
    """Detections [N, 6] in groups of one object, at most one of each view in a group, best first."""
    overlaps = compute_overlaps(rows[:, :4], rows[:, :4])
    overlaps[rows[:, None, 4] != rows[None, :, 4]] = 0
    left = np.ones(len(rows), bool)
    groups = []
    for index in np.argsort(-rows[:, 5], kind="stable").tolist():
        if not left[index]:
            continue
        group = [index]
        for view in set(range(views)) - {int(view_of[index])}:
            candidates = np.where(left & (view_of == view), overlaps[index], 0)
            if candidates.max() >= _SAME:
                group.append(int(candidates.argmax()))
        left[group] = False
        groups.append(group)
    return groups


def _fused(rows: np.ndarray, masks: np.ndarray, missing: int, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Detections [n, 6] of one object with their masks [n, mh, mw] -> [6] and [mh, mw]. In so many views it is missing,
    where it scores `least` at most."""
    scores = rows[:, 5]
    score = (scores.sum() + missing * least) / (len(rows) + missing)
    if len(rows) == 1:
        return np.concatenate([rows[0, :5], [score]]), masks[0]
    weights = scores / scores.sum() if scores.sum() > 0 else np.full(len(rows), 1 / len(rows))
    box = weights @ rows[:, :4]
    mask = np.tensordot(weights, _on_box(masks, rows[:, :4], box), axes=1)
    return np.concatenate([box, rows[0, 4:5], [score]]), mask


def _on_box(masks: np.ndarray, boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Masks [n, mh, mw] of boxes [n, 4] as masks of another box [4]: bilinear, 0 outside their own."""
    down = _weights(masks.shape[1], boxes[:, 0], boxes[:, 2], box[0], box[2])
    across = _weights(masks.shape[2], boxes[:, 1], boxes[:, 3], box[1], box[3])
    return down @ masks @ across.transpose(0, 2, 1)


def _weights(size: int, starts: np.ndarray, ends: np.ndarray, start: float, end: float) -> np.ndarray:
    """How much each of `size` cells between starts [n] and ends [n] counts in each of those between start and end:
    [n, size (of the latter), size]."""
    centers = start + (np.arange(size) + 0.5) / size * (end - start)
    extents = np.maximum(ends - starts, 1e-9)[:, None]
    positions = (centers - starts[:, None]) / extents * size - 0.5
    inside = (positions >= -0.5) & (positions <= size - 0.5)
    nearest = np.clip(positions, 0, size - 1)
    return np.maximum(0, 1 - np.abs(nearest[:, :, None] - np.arange(size))) * inside[:, :, None]
