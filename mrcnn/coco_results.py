"""Ground truth and detections as COCO writes them: image and category ids, boxes (x, y, width, height), RLE
masks.

Letters: N instances; H, W height and width. Boxes of this package are (y1, x1, y2, x2) in pixels, y2 and x2
one outside; masks are [H, W, N] bool. The format: https://cocodataset.org/#format-data and #format-results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.data.masks import extract_bboxes
from mrcnn.data.rle import encode_masks
from mrcnn.files import atomic_path


@dataclass(frozen=True)
class CocoIds:
    """The ids that images and classes of a data set bear in COCO files: `images[image_id]`,
    `categories[class_id]`.

    They are the ids of the source where all of them are distinct integers, as in a COCO data set, so that
    results can be scored against the original annotation file; otherwise they are the data set's own.
    """

    images: Mapping[int, int]
    categories: Mapping[int, int]

    @classmethod
    def of(cls, dataset: Any) -> CocoIds:
        """The ids of a prepared `mrcnn.data.dataset.Dataset`."""
        images = [info["id"] for info in dataset.image_info]
        classes = range(1, len(dataset.class_info))  # 0 is background
        categories = [dataset.get_source_class_id(c, dataset.class_info[c]["source"]) for c in classes]
        return cls(
            dict(enumerate(_integers(images) or range(len(images)))),
            dict(zip(classes, _integers(categories) or classes, strict=True)),
        )


def _integers(values: list) -> list[int] | None:
    if all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values):
        integers = [int(v) for v in values]
        if len(set(integers)) == len(integers):
            return integers
    return None


def coco_boxes(boxes: np.ndarray) -> list[list[float]]:
    """Boxes [N, 4] (y1, x1, y2, x2) as lists (x, y, width, height) of float."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], 1).tolist()


def image_annotations(
    dataset: Any, image_id: int, masks: np.ndarray, class_ids: np.ndarray, ids: CocoIds, first_id: int = 1
) -> list[dict]:
    """COCO annotations of one image's ground truth, numbered from `first_id` (not 0, which pycocotools takes
    for "no match"). A negative class id is a crowd. Instances whose mask is empty can match nothing and are
    left out.

    Raises:
        ValueError: masks and class ids differ in number, or a class id is not one of the data set's.
    """
    masks, class_ids = np.asarray(masks), np.asarray(class_ids).reshape(-1)
    name = describe_image(dataset, image_id)
    if masks.ndim != 3 or masks.shape[-1] != len(class_ids):
        raise ValueError(
            f"load_mask must return masks [H, W, N] and N class ids. Received for {name}: "
            f"masks {masks.shape}, {len(class_ids)} class ids."
        )
    if len(class_ids) == 0:
        return []
    masks = masks.astype(bool, copy=False)
    annotations = []
    areas = np.count_nonzero(masks, axis=(0, 1))
    boxes = extract_bboxes(masks)
    for class_id, area, box, rle in zip(
        class_ids.tolist(), areas.tolist(), coco_boxes(boxes), encode_masks(masks, boxes), strict=True
    ):
        if area == 0:
            continue
        annotations.append(
            {
                "id": first_id + len(annotations),
                "image_id": ids.images[image_id],
                "category_id": _category(ids, abs(class_id), f"load_mask of {name}"),
                "segmentation": rle,
                "area": float(area),
                "bbox": box,
                "iscrowd": int(class_id < 0),
            }
        )
    return annotations


def coco_ground_truth(dataset: Any, image_ids: Iterable[int] | None = None) -> dict:
    """The annotations of a prepared data set as one COCO dictionary, ready for JSON or `pycocotools`.

    Boxes and areas are those of the masks that `dataset.load_mask` returns. Instances with an empty mask are
    left out. A negative class id is a crowd.

    Args:
        dataset: a prepared `mrcnn.data.dataset.Dataset`.
        image_ids: the images, by the data set's own ids; all of them where None.

    Returns:
        dict of `images`, `categories` and `annotations`. Ids are those of `CocoIds`.

    Raises:
        ValueError: masks and class ids of an image do not fit each other or the data set.
    """
    ids = CocoIds.of(dataset)
    images, annotations = [], []
    for image_id in map(int, dataset.image_ids if image_ids is None else image_ids):
        masks, class_ids = dataset.load_mask(image_id)
        info = dataset.image_info[image_id]
        shape = (info.get("height"), info.get("width"))
        if None in shape:  # a data set may return masks of shape [0, 0, 0] where there are none
            shape = masks.shape[:2] if np.size(masks) else dataset.load_image(image_id).shape[:2]
        images.append(image_record(dataset, image_id, shape, ids))
        annotations += image_annotations(dataset, image_id, masks, class_ids, ids, 1 + len(annotations))
    return ground_truth_record(dataset, images, annotations, ids)


def image_record(dataset: Any, image_id: int, shape: tuple[int, int], ids: CocoIds) -> dict:
    """The entry of one image of (height, width) `shape` under a COCO file's `images`."""
    path = dataset.image_info[image_id].get("path")
    return {
        "id": ids.images[image_id],
        "file_name": os.path.basename(str(path)) if path else "",
        "height": int(shape[0]),
        "width": int(shape[1]),
    }


def ground_truth_record(dataset: Any, images: list[dict], annotations: list[dict], ids: CocoIds) -> dict:
    """A COCO file's dictionary, with the data set's classes as categories."""
    categories = [
        {
            "id": category,
            "name": dataset.class_info[class_id]["name"],
            "supercategory": dataset.class_info[class_id]["source"],
        }
        for class_id, category in ids.categories.items()
    ]
    return {"images": images, "categories": categories, "annotations": annotations}


def to_coco_results(
    dataset: Any,
    image_id: int,
    result: Mapping[str, Any],
    *,
    ids: CocoIds | None = None,
    with_masks: bool = True,
) -> list[dict]:
    """What `detect` found in one image, as COCO result entries.

    Args:
        dataset: the prepared data set that the image is of.
        image_id: the data set's own id of the image.
        result: dict of `rois` [N, 4] pixels, `class_ids` [N], `scores` [N] and `masks`: [H, W, N], or N masks in
            run-length encoding, as `detect(..., masks="rle")` gives them.
        ids: `CocoIds.of(dataset)`, to save working it out for each image of many.
        with_masks: whether entries hold a `segmentation`; without, `result` needs no `masks`.

    Returns:
        A list of N dicts of `image_id`, `category_id`, `bbox` (x, y, width, height), `score` and
        `segmentation` (RLE).

    Raises:
        ValueError: a part of the result is missing, the parts differ in number, or a class is not the data
            set's.
    """
    ids = CocoIds.of(dataset) if ids is None else ids
    wanted = ("rois", "class_ids", "scores", "masks") if with_masks else ("rois", "class_ids", "scores")
    name = describe_image(dataset, image_id)
    missing = [key for key in wanted if result.get(key) is None]
    if missing:
        raise ValueError(f"The result for {name} lacks {', '.join(missing)}. It has: {', '.join(result)}.")
    masks = result.get("masks")
    encoded = isinstance(masks, list) and all(isinstance(mask, Mapping) for mask in masks)
    counts = {key: np.shape(result[key])[-1 if key == "masks" and not encoded else 0] for key in wanted}
    if len(set(counts.values())) > 1:
        raise ValueError(f"The parts of the result for {name} differ in number: {counts}.")
    class_ids = np.asarray(result["class_ids"]).tolist()
    entries = [
        {
            "image_id": ids.images[int(image_id)],
            "category_id": _category(ids, class_id, f"the result for {name}"),
            "bbox": box,
            "score": float(score),
        }
        for class_id, box, score in zip(class_ids, coco_boxes(result["rois"]), result["scores"], strict=True)
    ]
    if with_masks:
        for entry, rle in zip(entries, masks if encoded else encode_masks(masks), strict=True):
            entry["segmentation"] = rle
    return entries


def write_results(path: str | os.PathLike, results: list[dict] | dict) -> None:
    """Write COCO results (or ground truth) as JSON: to a temporary file first, so that `path` is never half a
    file.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(results, file, allow_nan=False, separators=(",", ":"))


def describe_image(dataset: Any, image_id: int) -> str:
    """How messages name an image: its id and, where known, its path."""
    path = dataset.image_info[image_id].get("path")
    return f"image {image_id} ({path})" if path else f"image {image_id}"


def _category(ids: CocoIds, class_id: float, where: str) -> int:
    if class_id not in ids.categories:
        raise ValueError(
            f"Class id {class_id} in {where} is not one of the data set's: {_span(ids.categories)}. "
            "The model and the data set must have the same classes, in one order."
        )
    return ids.categories[int(class_id)]


def _span(categories: Mapping[int, int]) -> str:
    return f"1 to {len(categories)}" if categories else "it has no classes but background"
