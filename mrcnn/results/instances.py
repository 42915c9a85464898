"""What was found in an image, read from any form that `detect` gives it.

Letters: H, W image size; N instances; h, w size of a crop. Boxes are (y1, x1, y2, x2) in *pixels*, y2 and x2 one
outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcnn.data.masks import extract_bboxes
from mrcnn.data.outlines import crop_of_outlines
from mrcnn.data.rle import decode_crop, encode_crops, encode_masks

ClassNames = Sequence[str] | Mapping[int, str] | None

_PARTS = ("rois", "class_ids", "scores", "masks")


@dataclass(frozen=True)
class ResultImage:
    """An image that a result is of.

    Attributes:
        path: as files tell it.
        name: of the files that are written for it, without a suffix; no other image of the run has it.
        id: its number.
        more: what else COCO's entries tell, such as a frame of a video.
    """

    path: str
    name: str
    id: int
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Instances:
    """What was found in one image.

    Attributes:
        rois: [N, 4] int or float.
        class_ids: [N] int.
        scores: [N] float.
        masks: [H, W, N] bool; or N dicts, run-length encodings; or N lists of outlines.
        height, width: of the image.
    """

    rois: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    masks: Any
    height: int
    width: int

    @classmethod
    def of(cls, result: Mapping[str, Any], name: str, shape: Sequence[int] | None = None) -> Instances:
        """Read a result of `detect`.

        Args:
            result: with rois, class_ids, scores and masks in any form.
            name: of its image, for messages.
            shape: (H, W, ...) of the image; None: that of the masks, or of the result's `image`.

        Raises:
            ValueError: a part is missing, the parts differ in number, or the masks are not of the image's size.
        """
        missing = [part for part in _PARTS if result.get(part) is None]
        if missing:
            raise ValueError(f"The result for {name} lacks {', '.join(missing)}. It has: {', '.join(result)}.")
        masks = result["masks"]
        if not isinstance(masks, list | tuple):
            masks = np.asarray(masks)
            if masks.ndim != 3:
                raise ValueError(f"The result for {name} has masks of shape {masks.shape}: they must be [H, W, N].")
        counts = {part: len(result[part]) for part in _PARTS[:3]}
        counts["masks"] = masks.shape[2] if isinstance(masks, np.ndarray) else len(masks)
        if len(set(counts.values())) > 1:
            raise ValueError(f"The parts of the result for {name} differ in number: {counts}.")
        rois = np.asarray(result["rois"]).reshape(-1, 4)
        height, width = _size(masks, name, shape if shape is not None else getattr(result.get("image"), "shape", None))
        return cls(rois, np.asarray(result["class_ids"]), np.asarray(result["scores"]), masks, height, width)

    def __len__(self) -> int:
        return len(self.rois)

    def crops(self) -> Iterator[tuple[np.ndarray, int, int]]:
        """Of each mask the part [h, w] bool that is not empty, its first row and its first column in the image; one
        after the other, so that they need not all be in memory."""
        if isinstance(self.masks, np.ndarray):
            for n, (y1, x1, y2, x2) in enumerate(extract_bboxes(self.masks).tolist()):
                yield self.masks[y1:y2, x1:x2, n].astype(bool), y1, x1
            return
        for mask in self.masks:
            if isinstance(mask, Mapping):
                yield decode_crop(mask)
            else:
                yield crop_of_outlines(mask, (self.height, self.width))

    def encoded(self) -> list[Mapping[str, Any]]:
        """The masks in COCO's compressed run-length encoding."""
        if isinstance(self.masks, np.ndarray):
            return encode_masks(self.masks)
        if all(isinstance(mask, Mapping) and isinstance(mask["counts"], str) for mask in self.masks):
            return list(self.masks)
        return encode_crops(self.crops(), (self.height, self.width))


def class_name(class_names: ClassNames, class_id: int) -> str:
    """The name of a class, "class 3" where none are known.

    Raises:
        ValueError: there are names, and none for this one.
    """
    if class_names is None:
        return f"class {class_id}"
    known = class_id in class_names if isinstance(class_names, Mapping) else 0 <= class_id < len(class_names)
    if not known:
        raise ValueError(
            f"class_names has {len(class_names)} names, the background's among them, and none for class id {class_id}."
        )
    return str(class_names[class_id])


def _size(masks: Any, name: str, shape: Sequence[int] | None) -> tuple[int, int]:
    sizes = {masks.shape[:2]} if isinstance(masks, np.ndarray) else set()
    if not sizes:
        sizes = {tuple(mask["size"]) for mask in masks if isinstance(mask, Mapping) and "size" in mask}
    if shape is not None:
        sizes.add(tuple(shape[:2]))
    if len(sizes) != 1:
        told = f"{len(sizes)} sizes: {', '.join(map(str, sorted(sizes)[:3]))}" if sizes else "none"
        raise ValueError(f"The masks of the result for {name} and its image must have one size. Received: {told}.")
    height, width = sizes.pop()
    return int(height), int(width)
