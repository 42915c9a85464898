"""COCO's average precision of results against ground truth, both in COCO's dictionaries, by pycocotools.

Letters: K categories, T IoU thresholds (0.5 to 0.95 in steps of 0.05), R recall levels (101). Boxes are (x,
y, width, height) in pixels. The measure: https://cocodataset.org/#detection-eval
"""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

IOU_TYPES = ("bbox", "segm")
_SIZES = ("all", "small", "medium", "large")  # pycocotools' order of area ranges


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures for boxes or for masks, 0 to 1; NaN where there is no ground truth to measure against.

    `ap` is the mean over IoU thresholds 0.5 to 0.95 and over the classes that have ground truth; `ap_small`
    (below 32 x 32 pixels), `ap_medium` and `ap_large` (from 96 x 96) are the same for objects of that area;
    `recall` is the highest recall, averaged in the same way. `per_class` and `per_class50` go by class name.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    recall: float
    per_class: Mapping[str, float]
    per_class50: Mapping[str, float]

    def to_dict(self) -> dict:
        """Plain values for JSON, with None for NaN."""
        return {
            name: {key: _or_none(v) for key, v in value.items()} if isinstance(value, Mapping) else _or_none(value)
            for name, value in vars(self).items()
        }


def coco_average_precision(
    ground_truth: Mapping[str, list], results: list[dict], iou_type: str = "segm", max_detections: int = 100
) -> AveragePrecision:
    """Score COCO results against COCO ground truth, both as dictionaries; neither is changed.

    Args:
        ground_truth: dict of `images`, `categories` and `annotations`, see `coco_ground_truth`.
        results: entries as of `to_coco_results`; may be empty.
        iou_type: "bbox" or "segm".
        max_detections: how many detections of one class in one image count, the best first.

    Raises:
        ValueError: a result names an image or category that the ground truth lacks, has no mask where one is
            needed, or a mask of another size than the image.
    """
    (iou_type,) = checked_iou_types(iou_type)
    truth = _index({**ground_truth, "annotations": [dict(a) for a in ground_truth["annotations"]]})
    found = _index({**ground_truth, "annotations": _detections(ground_truth, results, iou_type)})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its steps to the console
        engine = COCOeval(truth, found, iou_type)
        engine.params.maxDets = [max_detections]
        engine.evaluate()
        engine.accumulate()
    # Not summarize(): its first figure looks for maxDets=100 whatever was asked.
    precision = engine.eval["precision"][..., 0]  # [T, R, K, area ranges]; -1 without ground truth
    recall = engine.eval["recall"][:, :, 0, 0]  # [T, K]
    overall = precision[:, :, :, 0]
    sizes = {name: _mean(precision[..., i]) for i, name in enumerate(_SIZES)}
    # In the engine's own order of categories, which is sorted.
    names = [category_names(ground_truth)[category] for category in engine.params.catIds]
    return AveragePrecision(
        ap=sizes["all"],
        ap50=_mean(overall[0]),
        ap75=_mean(overall[5]),
        ap_small=sizes["small"],
        ap_medium=sizes["medium"],
        ap_large=sizes["large"],
        recall=_mean(recall),
        per_class={name: _mean(overall[:, :, k]) for k, name in enumerate(names)},
        per_class50={name: _mean(overall[0, :, k]) for k, name in enumerate(names)},
    )


def _index(dictionary: dict) -> COCO:
    # Not COCO.loadRes: it fails on an empty list, and takes a mask's area from its box.
    coco = COCO()
    coco.dataset = dictionary
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _detections(ground_truth: Mapping[str, list], results: list[dict], iou_type: str) -> list[dict]:
    """Results with what pycocotools needs besides: an id from 1, an area, no crowd."""
    sizes = {image["id"]: [image["height"], image["width"]] for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    detections = []
    for number, result in enumerate(results, start=1):
        if result["image_id"] not in sizes:
            raise ValueError(f"A result is for image id {result['image_id']}, which the ground truth lacks.")
        if result["category_id"] not in categories:
            raise ValueError(f"A result is for category id {result['category_id']}, which the ground truth lacks.")
        if iou_type == "bbox":
            area = result["bbox"][2] * result["bbox"][3]
        elif "segmentation" not in result:
            raise ValueError(f"A result for image id {result['image_id']} has no mask to score.")
        else:
            mask, size = result["segmentation"], sizes[result["image_id"]]
            if list(mask["size"]) != size:  # pycocotools would count such masks as misses, without a word
                raise ValueError(
                    f"A detected mask of image id {result['image_id']} measures {list(mask['size'])}, "
                    f"the image {size} (height, width): they must be one size."
                )
            area = float(rle_codec.area(mask))
        detections.append({**result, "id": number, "area": area, "iscrowd": 0})
    return detections


def category_names(ground_truth: Mapping[str, list]) -> dict[int, str]:
    """Category id to a name that is one class's alone."""
    uses = Counter(category["name"] for category in ground_truth["categories"])
    return {
        c["id"]: c["name"] if uses[c["name"]] == 1 else f"{c['name']} ({c['id']})" for c in ground_truth["categories"]
    }


def checked_iou_types(iou_types: Iterable[str]) -> tuple[str, ...]:
    """`iou_types` as a tuple of "bbox" and "segm", one or both; a single name will do.

    Raises:
        ValueError: anything else.
    """
    iou_types = (iou_types,) if isinstance(iou_types, str) else tuple(iou_types)
    if not iou_types or not set(iou_types) <= set(IOU_TYPES):
        raise ValueError(f'iou_types must be one or both of "bbox" and "segm". Received: {iou_types}.')
    return iou_types


def _mean(values: np.ndarray) -> float:
    """The mean of what could be measured (pycocotools writes -1 for the rest); NaN if that was nothing."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
