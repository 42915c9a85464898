"""The annotated objects of one image, looked at without their masks in full size: where they lie, and what is odd.

Letters: H, W sides of the image; n objects. Boxes are (y1, x1, y2, x2) in *pixels*; boxes of annotation files are
COCO's [x, y, width, height].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcnn.data.content import Kind, short

# Outlines on the border are often a pixel too long.
_BEYOND = 1.0
# A box may be off by so many pixels, and by this share of its longer side: tools round differently.
_BOX_OFF, _BOX_OFF_SHARE = 2.0, 0.05
# Two masks that overlap by this IoU are of one object.
_SAME_IOU = 0.9
# Of an image with more objects than this, the others are not compared: each is, with all before it.
_MOST_COMPARED = 3000
_AT_A_TIME = 256
# Longer outlines than this, in pixels, are no object's, and take seconds and gigabytes to fill.
_LONGEST_OUTLINE = 1e7
# pycocotools counts pixels in 32 bits.
_MOST_PIXELS = 2**32 - 1


@dataclass
class ObjectsLook:
    """What was seen of an image's objects.

    Attributes:
        boxes: [n, 4] float64, inside the image, of the objects that have a pixel there.
        category_ids: [n] of these.
        crowds: [n] bool.
        findings: kind, entry and message of each.
    """

    boxes: np.ndarray
    category_ids: list[int]
    crowds: np.ndarray
    findings: list[tuple[str, str, str]] = field(default_factory=list)


def look_at_objects(
    annotations: Sequence[Mapping[str, Any]], height: int, width: int, class_names: Mapping[int, str]
) -> ObjectsLook:
    """Look at the annotations of one image, in a `Content`'s form.

    Args:
        annotations: of one image.
        height, width: that they are made for.
        class_names: by category id, for messages.
    """
    seen: list[tuple[Mapping[str, Any], tuple[float, ...], Any]] = []
    findings: list[tuple[str, str, str]] = []
    for annotation in annotations:
        entry = f"annotation {short(annotation.get('id'))}"
        raw, mask, pixels = _measure(annotation["segmentation"], height, width)
        if mask is None:
            message = f"its outline is {pixels:.0f} pixels long, in an image of {height} x {width} (height x width)."
            findings.append((Kind.COORDINATES, entry, message))
            continue
        box = _clip(raw, height, width)
        if pixels == 0:
            findings.append(_nothing_there(raw, box, height, width, entry))
            continue
        findings += [(kind, entry, message) for kind, message in _odd_places(annotation, raw, box, height, width)]
        seen.append((annotation, box, mask))
    findings += _same_objects([one for one in seen if not one[0].get("iscrowd")], class_names)
    return ObjectsLook(
        np.array([box for _, box, _ in seen], np.float64).reshape(-1, 4),
        [annotation["category_id"] for annotation, _, _ in seen],
        np.array([bool(annotation.get("iscrowd")) for annotation, _, _ in seen], bool),
        findings,
    )


def _measure(segmentation: Any, height: int, width: int) -> tuple[tuple[float, ...], Any, float]:
    """The box of a segmentation, wherever it reaches, its run lengths, and how many pixels it covers. Of outlines that
    are too long to fill, no run lengths and their length."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, dict):
        x, y, w, h = (float(value) for value in coco_mask.toBbox([segmentation])[0])
        return (y, x, y + h, x + w), segmentation, float(coco_mask.area([segmentation])[0])
    polygons = [np.asarray(polygon, np.float64) for polygon in segmentation]
    x, y = (np.concatenate([polygon[axis::2] for polygon in polygons]) for axis in (0, 1))
    raw = (float(y.min()), float(x.min()), float(y.max()), float(x.max()))
    outline = sum(float(np.abs(polygon[2:] - polygon[:-2]).sum()) for polygon in polygons)
    if outline > _LONGEST_OUTLINE or height * width > _MOST_PIXELS:
        return raw, None, outline
    rle = coco_mask.merge(coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width))
    return raw, rle, float(coco_mask.area([rle])[0])


def _clip(box: Sequence[float], height: int, width: int) -> tuple[float, ...]:
    y1, x1, y2, x2 = box
    return min(max(y1, 0), height), min(max(x1, 0), width), min(max(y2, 0), height), min(max(x2, 0), width)


def _nothing_there(
    raw: Sequence[float], box: Sequence[float], height: int, width: int, entry: str
) -> tuple[str, str, str]:
    is_outside = raw[0] >= height or raw[1] >= width or raw[2] <= 0 or raw[3] <= 0
    if is_outside and max(raw[2] - raw[0], raw[3] - raw[1]) > 0:
        message = f"lies in {_in_words(raw)}, the image has {_size_in_words(height, width)}."
        return "object-outside", entry, message
    return Kind.EMPTY, entry, f"covers no pixel ({_in_words(box)}): training leaves it out."


def _odd_places(
    annotation: Mapping[str, Any], raw: Sequence[float], box: Sequence[float], height: int, width: int
) -> Iterator[tuple[str, str]]:
    """What is odd about where an object and its box lie."""
    beyond = max(abs(a - b) for a, b in zip(raw, box, strict=True))
    if beyond > _BEYOND:
        yield (
            "reaches-outside",
            f"reaches {_pixels(beyond)} outside: it lies in {_in_words(raw)}, the image has "
            f"{_size_in_words(height, width)}.",
        )
    told = annotation.get("bbox")
    if told is None or told == []:
        return
    corners = _corners(told)
    if corners is None:
        yield "box-disagrees", f"its bbox must be [x, y, width, height], as numbers. Received: {short(told)}."
        return
    if _differs(corners, raw) and _differs(corners, box):
        message = f"its bbox is {_numbers(told)}, its mask's [x, y, width, height] is {_numbers(_coco_box(box))}."
        x1, y1, x2, y2 = told
        if not _differs((y1, x1, y2, x2), raw):
            message += " The bbox looks like [x1, y1, x2, y2]."
        yield "box-disagrees", message


def _corners(told: Any) -> tuple[float, ...] | None:
    """A COCO box as (y1, x1, y2, x2); None where it is none."""
    if not isinstance(told, list | tuple) or len(told) != 4:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e12 for v in told):
        return None
    x, y, w, h = (float(v) for v in told)
    return (y, x, y + h, x + w) if w >= 0 and h >= 0 else None


def _differs(a: Sequence[float], b: Sequence[float]) -> bool:
    allowed = max(_BOX_OFF, _BOX_OFF_SHARE * max(b[2] - b[0], b[3] - b[1]))
    return max(abs(p - q) for p, q in zip(a, b, strict=True)) > allowed


def _same_objects(
    seen: Sequence[tuple[Mapping[str, Any], tuple[float, ...], Any]], class_names: Mapping[int, str]
) -> Iterator[tuple[str, str, str]]:
    """Objects whose masks are the same, or nearly: each is told once, with the first that it repeats."""
    seen = seen[:_MOST_COMPARED]
    if len(seen) < 2:
        return
    from pycocotools import mask as coco_mask

    for place, near in _alike(np.array([box for _, box, _ in seen])):
        annotation, _, mask = seen[place]
        overlaps = coco_mask.iou([mask], [seen[other][2] for other in near], [0] * len(near))[0]
        best = int(overlaps.argmax())
        if overlaps[best] < _SAME_IOU:
            continue
        first = seen[near[best]][0]
        names = [class_names.get(one["category_id"], "?") for one in (first, annotation)]
        classes = names[0] if names[0] == names[1] else f"{names[0]} and {names[1]}"
        message = f"covers what annotation {short(first.get('id'))} does ({classes}, IoU {overlaps[best]:.2f})."
        yield "object-twice", f"annotation {short(annotation.get('id'))}", message


def _alike(boxes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Places of boxes [n, 4] with those before them that overlap them by half of the larger one's area: masks of a high
    IoU are among them, and few others."""
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9), axis=1)
    for first in range(0, len(boxes), _AT_A_TIME):
        some = boxes[first : first + _AT_A_TIME, None]
        shared = np.minimum(some[..., 2], boxes[:, 2]) - np.maximum(some[..., 0], boxes[:, 0])
        np.maximum(shared, 0, out=shared)
        shared *= np.maximum(np.minimum(some[..., 3], boxes[:, 3]) - np.maximum(some[..., 1], boxes[:, 1]), 0)
        alike = shared > 0.5 * np.maximum(areas[first : first + _AT_A_TIME, None], areas)
        alike &= np.arange(len(boxes)) < np.arange(first, first + len(some))[:, None]
        for row in np.flatnonzero(alike.any(axis=1)).tolist():
            yield first + row, np.flatnonzero(alike[row])


def _coco_box(box: Sequence[float]) -> tuple[float, ...]:
    return box[1], box[0], box[3] - box[1], box[2] - box[0]


def _in_words(box: Sequence[float]) -> str:
    y1, x1, y2, x2 = box
    return f"rows {y1:g} to {y2:g} and columns {x1:g} to {x2:g}"


def _size_in_words(height: int, width: int) -> str:
    return f"{height} rows and {width} columns"


def _pixels(count: float) -> str:
    count = math.ceil(count)
    return f"{count} pixel{'s' * (count != 1)}"


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
