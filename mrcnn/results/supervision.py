"""Detections for the package supervision, which draws, tracks, counts and filters them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.requirements import require
from mrcnn.results.instances import ClassNames, Instances, class_name

if TYPE_CHECKING:
    import supervision


def to_supervision(
    result: Mapping[str, Any], class_names: ClassNames = None, image_shape: Sequence[int] | None = None
) -> supervision.Detections:
    """What `detect` found in one image as `supervision.Detections`.

    Args:
        result: with rois [N, 4] (y1, x1, y2, x2) in pixels, class_ids [N], scores [N] and, as far as wanted, masks in
            any form.
        class_names: by class id, the background's first; None: "class 3" and so on.
        image_shape: (H, W, ...) of the image; needed for masks as polygons, and where there are none.

    Returns:
        Detections of xyxy [N, 4] float32, confidence [N], class_id [N] (the network's, the background being 0),
        data["class_name"] [N], and mask: [N, H, W] bool, for bool masks without a copy; for run lengths and polygons a
        `supervision.CompactMask`, which holds nothing of the image's size; None without masks, or where nothing was
        found and the image's size is not known.

    Raises:
        ImportError: supervision is not installed.
        ValueError: a part of the result is missing, the parts differ in number, or a class has no name.
    """
    sv = require("supervision", "supervision", "to_supervision")
    with_masks = result.get("masks") is not None
    masks = result["masks"] if with_masks else np.zeros((1, 1, len(result["rois"])), bool)
    if not isinstance(masks, np.ndarray) and len(masks) == 0 and image_shape is None:
        with_masks, masks = False, np.zeros((1, 1, 0), bool)
    shape = image_shape if with_masks else None
    found = Instances.of({**result, "masks": masks, "image": None}, "to_supervision", shape)
    names = [class_name(class_names, class_id) for class_id in found.class_ids.tolist()]
    return sv.Detections(
        xyxy=found.rois[:, [1, 0, 3, 2]].astype(np.float32),
        mask=_masks(sv, found) if with_masks else None,
        confidence=found.scores.astype(np.float32),
        class_id=found.class_ids.astype(int),
        data={"class_name": np.array(names, dtype=str)},
    )


def _masks(sv: Any, found: Instances) -> Any:
    if isinstance(found.masks, np.ndarray):
        return np.moveaxis(found.masks, -1, 0).astype(bool, copy=False)
    # Boxes of the masks themselves, last pixel included, for the network's need not hold all of a mask.
    boxes = np.zeros((len(found), 4))
    for box, (crop, top, left) in zip(boxes, found.crops(), strict=True):
        rows, columns = crop.shape
        box[:] = left, top, left + max(columns, 1) - 1, top + max(rows, 1) - 1
    return sv.CompactMask.from_coco_rle(found.encoded(), boxes, (found.height, found.width))
