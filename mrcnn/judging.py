"""Where a model is right and where it is wrong: a confusion matrix, a mark for every image, pictures of truth beside
prediction. `mrcnn.evaluation` has the figures that are compared between models.

Letters: G annotated instances, P predictions; H, W height and width; K classes (0 is background). Boxes are (y1, x1,
y2, x2) in pixels, masks [H, W, N] bool.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from mrcnn.colors import as_rgb
from mrcnn.data.masks import extract_bboxes
from mrcnn.drawing import draw_instances
from mrcnn.matching import compute_overlaps_masks

# Found, and not as it should be: blue and vermilion, which color-blind eyes tell apart too.
RIGHT, WRONG = (0.22, 0.62, 0.95), (1.0, 0.42, 0.10)

_PICTURE_SIDE = (224, 448)  # the longer side of one half, at least and at most
_GAP = 6
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Judgment:
    """What became of the instances of one image.

    `truth_match` [G]: the row of the prediction of the same class and place, or -1. `prediction_match` [P]: that of
    the instance, or -1. `pairs`: (class that is there, class that was predicted), 0 for nothing: all instances and
    predictions, each once. `quality`: panoptic quality, the sum of the IoUs of matches / (matches + half of the missed
    + half of the wrong); None for an image where nothing is and nothing was predicted.
    """

    truth_match: np.ndarray
    prediction_match: np.ndarray
    pairs: list[tuple[int, int]]
    quality: float | None


def judge(
    masks: np.ndarray,
    class_ids: np.ndarray,
    found_masks: np.ndarray,
    found_class_ids: np.ndarray,
    scores: np.ndarray,
    least_iou: float = 0.5,
) -> Judgment:
    """Match predictions to the annotated instances of one image.

    Best score first, each prediction takes the free instance of its class that its mask overlaps most. What is left
    over on both sides is then matched whatever its class: those are confusions. A prediction half of which, or more,
    lies in a crowd region and that matches nothing is not judged.

    Args:
        masks, class_ids: [H, W, G], [G], of the annotation; a negative class id is a crowd.
        found_masks, found_class_ids, scores: [H, W, P], [P], [P], predicted.
        least_iou: of the masks, for a match.
    """
    class_ids, found_class_ids = np.asarray(class_ids, int), np.asarray(found_class_ids, int)
    crowd = class_ids < 0
    overlaps = np.zeros((len(found_class_ids), len(class_ids)))
    if overlaps.size:
        overlaps = compute_overlaps_masks(found_masks, masks)
    overlaps[:, crowd] = 0
    truth_match, prediction_match = np.full(len(class_ids), -1), np.full(len(found_class_ids), -1)
    confused: dict[int, int] = {}
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    taken = crowd.copy()
    matched = []
    for same_class in (True, False):
        for p in order:
            if prediction_match[p] >= 0:
                continue
            allowed = ~taken & ((class_ids == found_class_ids[p]) if same_class else True)
            row = np.where(allowed, overlaps[p], 0)
            if not row.size or row.max() < least_iou:
                continue
            g = int(row.argmax())
            taken[g] = True
            if same_class:
                truth_match[g], prediction_match[p] = p, g
                matched.append(row[g])
            else:
                confused[int(p)] = g
    pairs = [(int(class_ids[g]), int(class_ids[g])) for g in np.flatnonzero(truth_match >= 0)]
    pairs += [(int(class_ids[g]), int(found_class_ids[p])) for p, g in confused.items()]
    pairs += [(int(class_ids[g]), 0) for g in np.flatnonzero(~taken)]
    stray = [p for p in np.flatnonzero(prediction_match < 0) if p not in confused]
    stray = [p for p in stray if not _in_crowd(found_masks[..., p], masks[..., crowd] if crowd.any() else None)]
    pairs += [(0, int(found_class_ids[p])) for p in stray]
    missed, wrong = int(np.sum(~taken)) + len(confused), len(stray) + len(confused)
    judged = len(matched) + (missed + wrong) / 2
    return Judgment(truth_match, prediction_match, pairs, float(np.sum(matched)) / judged if judged else None)


def _in_crowd(mask: np.ndarray, crowds: np.ndarray | None) -> bool:
    area = np.count_nonzero(mask)
    return crowds is not None and area > 0 and np.count_nonzero(mask & crowds.any(axis=-1)) >= area / 2


def picture(
    image: np.ndarray,
    masks: np.ndarray,
    class_ids: np.ndarray,
    result: Mapping[str, Any],
    judgment: Judgment,
    class_names: Sequence[str],
) -> np.ndarray:
    """The annotation on the left, the predictions on the right, uint8 [h, w, 3]. Blue: found, and rightly; orange:
    missed, or wrong. Large images are made smaller, small ones larger."""
    height, width = image.shape[:2]
    least, most = _PICTURE_SIDE
    scale = min(most / max(height, width), max(1, round(least / max(height, width))))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4):  # of many channels the first ones
        image = image[..., : 3 if image.shape[2] > 3 else 1]
    canvas = cv2.resize(as_rgb(image), size[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    rows = np.minimum(((np.arange(size[0]) + 0.5) / scale).astype(int), height - 1)
    columns = np.minimum(((np.arange(size[1]) + 0.5) / scale).astype(int), width - 1)
    halves = []
    for which, ids, scores, match in (
        (masks, class_ids, None, judgment.truth_match),
        (result["masks"], result["class_ids"], result["scores"], judgment.prediction_match),
    ):
        small = np.asarray(which, bool)[rows][:, columns] if len(ids) else np.zeros((*size, 0), bool)
        colors = np.where((match >= 0)[:, None], RIGHT, WRONG)
        shown = {"rois": extract_bboxes(small), "class_ids": ids, "scores": scores, "masks": small}
        halves.append(draw_instances(canvas, shown, class_names, colors=colors, alpha=0.35))
    gap = np.full((size[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], axis=1)


def jpeg_text(pixels: np.ndarray) -> str:
    """uint8 [h, w, 3] as a JPEG in base64."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    if not done:
        raise ValueError(f"This picture cannot be written as a JPEG: shape {pixels.shape}.")
    return base64.b64encode(data.tobytes()).decode()


@dataclass
class Judge:
    """Looks at the images of an evaluation one after the other; pass it as `evaluate(..., on_image=)`.

    Args:
        dataset: that the images are of.
        class_names: [K].
        min_score: predictions that score less do not count here.
        keep: how many of the best and how many of the worst images are kept as pictures.
        always: image ids that are kept as pictures too, for following them over the epochs.

    Attributes:
        confusion: [K, K] counts, by the class that is there and the class that was predicted; row 0: nothing is there,
            column 0: missed.
        marks: of each image judged: its id, name and quality, how many of its instances were found and missed, how
            many predictions were wrong.
        always_pictures: image id -> uint8 [h, w, 3].
    """

    dataset: Any
    class_names: Sequence[str]
    min_score: float
    keep: int = 4
    always: Iterable[int] = ()
    marks: list[dict[str, Any]] = field(default_factory=list)
    always_pictures: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.class_names)
        self.confusion = np.zeros((count, count), int)
        self.always = set(self.always)
        # Heaps of (how extreme, image id, its mark with a picture): first comes what has to give way next.
        self._best: list[tuple[float, int, dict]] = []
        self._worst: list[tuple[float, int, dict]] = []

    def __call__(
        self, image_id: int, image: np.ndarray, masks: np.ndarray, class_ids: np.ndarray, result: Mapping[str, Any]
    ) -> None:
        """Judge what was found in one image."""
        sure = np.asarray(result["scores"]) >= self.min_score
        result = {
            "masks": np.asarray(result["masks"])[..., sure],
            "class_ids": np.asarray(result["class_ids"])[sure],
            "scores": np.asarray(result["scores"])[sure],
        }
        there = np.any(masks, axis=(0, 1)) if np.size(masks) else np.zeros(len(class_ids), bool)
        masks, class_ids = np.asarray(masks)[..., there], np.asarray(class_ids)[there]
        judgment = judge(masks, class_ids, result["masks"], result["class_ids"], result["scores"])
        for truth, predicted in judgment.pairs:
            self.confusion[truth, predicted] += 1
        drawn = None
        if image_id in self.always:
            drawn = self.always_pictures[image_id] = picture(
                image, masks, class_ids, result, judgment, self.class_names
            )
        if judgment.quality is None:
            return
        mark = {
            "image_id": int(image_id),
            "name": self._name(image_id),
            "quality": judgment.quality,
            "found": sum(t == p for t, p in judgment.pairs),
            "missed": sum(t > 0 and p != t for t, p in judgment.pairs),
            "wrong": sum(p > 0 and p != t for t, p in judgment.pairs),
        }
        self.marks.append(mark)
        for heap, rank in ((self._best, judgment.quality), (self._worst, -judgment.quality)):
            if len(heap) == self.keep and (rank, -image_id) <= heap[0][:2]:
                continue
            if drawn is None:
                drawn = picture(image, masks, class_ids, result, judgment, self.class_names)
            entry = (rank, -image_id, {**mark, "pixels": drawn})
            if len(heap) < self.keep:
                heapq.heappush(heap, entry)
            else:
                heapq.heapreplace(heap, entry)

    def extremes(self) -> dict[str, list[dict[str, Any]]]:
        """The "best" and the "worst" images, each kind's first one first, none in both: marks with a JPEG in base64
        under "picture"."""
        each = min(self.keep, len(self.marks) // 2) if len(self.marks) > 1 else 1
        told = {}
        for kind, heap in (("best", self._best), ("worst", self._worst)):
            entries = [mark for *_, mark in sorted(heap, key=lambda entry: entry[:2], reverse=True)][:each]
            told[kind] = [
                {**{k: v for k, v in mark.items() if k != "pixels"}, "picture": jpeg_text(mark["pixels"])}
                for mark in entries
            ]
        if len(self.marks) < 2:
            told["worst"] = []
        return told

    def _name(self, image_id: int) -> str:
        info = self.dataset.image_info[image_id]
        return str(info["path"]).replace("\\", "/").rpartition("/")[2] if info.get("path") else f"image {image_id}"
