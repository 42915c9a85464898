"""How good a model is on a data set: COCO's average precision of its boxes and masks.

The scoring itself is in `mrcnn.average_precision`, COCO's dictionaries in `mrcnn.coco_results`, and the
helpers for one image that notebooks know (`compute_ap` and others) in `mrcnn.matching`; all of them can be
had here.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from mrcnn.average_precision import (
    IOU_TYPES,
    AveragePrecision,
    category_names,
    checked_iou_types,
    coco_average_precision,
)
from mrcnn.coco_results import (
    CocoIds,
    coco_ground_truth,
    describe_image,
    ground_truth_record,
    image_annotations,
    image_record,
    to_coco_results,
    write_results,
)
from mrcnn.files import require_folder
from mrcnn.matching import (
    compute_ap,
    compute_ap_range,
    compute_matches,
    compute_overlaps_masks,
    compute_recall,
    trim_zeros,
)

__all__ = [
    "AveragePrecision",
    "EvaluationResult",
    "coco_average_precision",
    "coco_ground_truth",
    "compute_ap",
    "compute_ap_range",
    "compute_matches",
    "compute_overlaps_masks",
    "compute_recall",
    "evaluate",
    "to_coco_results",
    "trim_zeros",
    "write_results",
]


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate` measured. `print` shows it as a table; `to_dict` gives it for JSON.

    `mask` and `box` hold the figures (None if not asked for); `mask_ap`, `mask_ap50`, `box_ap75` and so on
    are short for `mask.ap`, `mask.ap50`, `box.ap75`. Counts of instances are without crowds.
    """

    image_count: int
    annotation_count: int  # annotated instances, without crowds
    detection_count: int
    max_detections: int
    crowd_count: int = 0
    empty_annotation_count: int = 0  # annotated instances without a pixel: left out
    unscored_count: int = 0  # detections beyond max_detections of an image and class: left out
    unjudged_count: int = 0  # detections of classes that the image's source does not annotate: left out
    box: AveragePrecision | None = None
    mask: AveragePrecision | None = None
    annotations_per_class: Mapping[str, int] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        kind, _, figure = name.partition("_")
        if kind in ("box", "mask") and figure in AveragePrecision.__dataclass_fields__:
            figures = getattr(self, kind)
            if figures is None:
                wanted = {"box": "bbox", "mask": "segm"}[kind]
                raise AttributeError(f'{name} was not measured: pass iou_types=("{wanted}",) to evaluate.')
            return getattr(figures, figure)
        raise AttributeError(f"EvaluationResult has no attribute {name!r}.")

    def to_dict(self) -> dict:
        """Plain values for JSON, with None for what has no value."""
        values = dict(vars(self))
        values["annotations_per_class"] = dict(self.annotations_per_class)
        for kind in ("box", "mask"):
            values[kind] = values[kind].to_dict() if values[kind] is not None else None
        return values

    def __str__(self) -> str:
        measured = {kind: f for kind, f in (("mask", self.mask), ("box", self.box)) if f is not None}
        lines = [
            f"{self.image_count:,} images, {self.annotation_count:,} annotated instances, "
            f"{self.detection_count:,} detections"
        ]
        for count, what in (
            (self.crowd_count, "crowd regions, where detections are not judged"),
            (self.empty_annotation_count, "annotated instances without a pixel, left out"),
            (self.unscored_count, f"detections beyond {self.max_detections} of an image and class, left out"),
            (
                self.unjudged_count,
                "detections of classes that their image's source does not annotate, left out",
            ),
        ):
            if count:
                lines.append(f"  {count:,} {what}")
        titles = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large", "recall")
        names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "recall")
        rows = [[kind, *(_text(getattr(f, name)) for name in names)] for kind, f in measured.items()]
        lines += ["", *_table(["", *titles], rows)]
        if len(self.annotations_per_class) > 1:
            titles = [f"{kind} {figure}" for kind in measured for figure in ("AP", "AP50")]
            rows = [
                [name, f"{count:,}"]
                + [_text(values[name]) for f in measured.values() for values in (f.per_class, f.per_class50)]
                for name, count in self.annotations_per_class.items()
            ]
            lines += ["", *_table(["class", "instances", *titles], rows)]
        return "\n".join(lines)


def evaluate(
    model: Any,
    dataset: Any,
    image_ids: Iterable[int] | None = None,
    *,
    iou_types: Iterable[str] = IOU_TYPES,
    batch_size: int | None = None,
    progress: bool = True,
    max_detections: int = 100,
    results_path: str | os.PathLike | None = None,
    on_image: Callable[[int, np.ndarray, np.ndarray, np.ndarray, Mapping[str, Any]], None] | None = None,
) -> EvaluationResult:
    """Run `model` over the images of `dataset` and score what it finds by the rules of COCO.

    Args:
        model: anything with `detect(list of images) -> list of dicts` of `rois`, `class_ids`, `scores`,
            `masks`.
        dataset: a prepared `mrcnn.data.dataset.Dataset` with the model's classes.
        image_ids: the images, by the data set's own ids; all of them where None.
        iou_types: "bbox", "segm" or both.
        batch_size: images given to `detect` at a time; where None, the model's `config.BATCH_SIZE`, or else
            1.
        progress: whether to show a progress bar on the standard error stream.
        max_detections: how many detections of one class in one image count, the best first (COCO: 100).
        results_path: where to write all detections as a COCO results file (JSON); nowhere where None.
        on_image: is given each image's id, the image, its masks [H, W, N], its class ids [N] and what was found.

    Raises:
        ValueError: no images; an id that is not the data set's, or twice; masks, sizes or classes that do not
            fit.
        FileNotFoundError: the folder of `results_path` does not exist. Asked before anything runs.
    """
    iou_types = checked_iou_types(iou_types)
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1. Received: {max_detections}.")
    if batch_size is None:
        batch_size = getattr(getattr(model, "config", None), "BATCH_SIZE", None) or 1
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1. Received: {batch_size}.")
    chosen = _checked_image_ids(dataset, image_ids)
    if results_path is not None:
        require_folder(results_path)

    ids = CocoIds.of(dataset)
    images, annotations, results, empty = [], [], [], 0
    with tqdm(total=len(chosen), unit="image", desc="Evaluating", disable=not progress) as bar:
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            loaded = [dataset.load_image(image_id) for image_id in batch]
            found = model.detect(loaded)
            if len(found) != len(batch):
                raise ValueError(f"detect must return one result an image: {len(found)} came for {len(batch)}.")
            for image_id, image, result in zip(batch, loaded, found, strict=True):
                masks, class_ids = dataset.load_mask(image_id)
                if np.size(masks) and masks.shape[:2] != image.shape[:2]:
                    raise ValueError(
                        f"The masks of {describe_image(dataset, image_id)} measure {masks.shape[:2]}, "
                        f"the image {image.shape[:2]}: they must be one size."
                    )
                images.append(image_record(dataset, image_id, image.shape[:2], ids))
                new = image_annotations(dataset, image_id, masks, class_ids, ids, 1 + len(annotations))
                empty += len(class_ids) - len(new)
                annotations += new
                results += to_coco_results(dataset, image_id, result, ids=ids, with_masks="segm" in iou_types)
                if on_image is not None:
                    on_image(image_id, image, np.asarray(masks), np.asarray(class_ids), result)
            bar.update(len(batch))
    if results_path is not None:
        write_results(results_path, results)

    truth = ground_truth_record(dataset, images, annotations, ids)
    judged = _judged(dataset, ids, results)
    figures = {kind: coco_average_precision(truth, judged, kind, max_detections) for kind in iou_types}
    names = category_names(truth)
    instances = Counter(a["category_id"] for a in annotations if not a["iscrowd"])
    found_counts = Counter((r["image_id"], r["category_id"]) for r in judged)
    return EvaluationResult(
        image_count=len(chosen),
        annotation_count=sum(instances.values()),
        detection_count=len(results),
        max_detections=max_detections,
        crowd_count=sum(a["iscrowd"] for a in annotations),
        empty_annotation_count=empty,
        unscored_count=sum(max(0, count - max_detections) for count in found_counts.values()),
        unjudged_count=len(results) - len(judged),
        box=figures.get("bbox"),
        mask=figures.get("segm"),
        annotations_per_class={names[category["id"]]: instances[category["id"]] for category in truth["categories"]},
    )


def _judged(dataset: Any, ids: CocoIds, results: list[dict]) -> list[dict]:
    """Results without those of classes that their image's source does not annotate: in a data set of several
    sources nobody knows whether they are right."""
    if len({info["source"] for info in dataset.class_info[1:]}) < 2:
        return results
    # A source without classes is one of background only: there every detection is wrong, and all are judged.
    everything = set(ids.categories.values())
    annotated: dict[str, set[int]] = {}
    for class_id, category in ids.categories.items():
        annotated.setdefault(dataset.class_info[class_id]["source"], set()).add(category)
    sources = {ids.images[i]: info["source"] for i, info in enumerate(dataset.image_info)}
    return [r for r in results if r["category_id"] in annotated.get(sources[r["image_id"]], everything)]


def _checked_image_ids(dataset: Any, image_ids: Iterable[int] | None) -> list[int]:
    known = {int(i) for i in dataset.image_ids}
    chosen = [int(i) for i in (dataset.image_ids if image_ids is None else image_ids)]
    if not chosen:
        raise ValueError(
            f"Nothing to evaluate: {'no image ids were given' if known else 'the data set holds no images'}. "
            "Add images to the data set, call its prepare(), and pass image_ids=None for all of them."
        )
    unknown = [i for i in chosen if i not in known]
    if unknown:
        raise ValueError(f"The data set has image ids 0 to {len(known) - 1}. Received: {unknown[:5]}.")
    twice = [i for i, uses in Counter(chosen).items() if uses > 1]
    if twice:
        raise ValueError(f"Each image can be evaluated once. Received more than once: {twice[:5]}.")
    return chosen


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _table(titles: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    return [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in [titles, *rows]
    ]
