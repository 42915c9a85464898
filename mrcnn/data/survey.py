"""What a dataset holds, as far as it can be read in a few seconds: sizes of images, objects and their classes.

Letters: M images looked at, N objects in them (crowds left out), K classes (0 is background). Boxes are
(y1, x1, y2, x2) in *pixels* of the molded image.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.config import SIZE_MULTIPLE
from mrcnn.data.coco import CocoDataset
from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import extract_bboxes
from mrcnn.data.resize_rules import Rules
from mrcnn.data.resizing import scale_of
from mrcnn.data.segmentations import decode_segmentation

if TYPE_CHECKING:
    from mrcnn.config import Config

# Seconds that a look takes at most, where nothing else is said; so many images are looked at however long they take.
SECONDS = 5.0
_AT_LEAST = 3
_FAILURES_KEPT = 5


@dataclass(frozen=True)
class Survey:
    """What was seen.

    Attributes:
        total: images of the dataset.
        image_ids: [M] of those that were looked at.
        shapes: [M, 2] their heights and widths, in their own pixels.
        molded: [M, 2] heights and widths that they are molded to.
        boxes: [N, 4] float64 around the objects.
        class_ids: [N], above 0.
        owners: [N] place of each object's image in `image_ids`.
        crowds: how many crowds there were beside the objects.
        class_names: [K].
        failures: what went wrong with images that could not be read, the first few.
        failed: how many these were.
        seconds: that it took.
    """

    total: int
    image_ids: np.ndarray
    shapes: np.ndarray
    molded: np.ndarray
    boxes: np.ndarray
    class_ids: np.ndarray
    owners: np.ndarray
    crowds: int
    class_names: tuple[str, ...]
    failures: tuple[str, ...]
    failed: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether all images were looked at."""
        return len(self.image_ids) + self.failed == self.total

    @property
    def per_image(self) -> np.ndarray:
        """[M] objects of each image."""
        return np.bincount(self.owners, minlength=len(self.image_ids))

    @property
    def per_class(self) -> np.ndarray:
        """[K] objects of each class; 0 for the background."""
        return np.bincount(self.class_ids, minlength=len(self.class_names))

    @property
    def images_per_class(self) -> np.ndarray:
        """[K] images that have objects of each class."""
        pairs = np.unique(np.stack([self.owners, self.class_ids]), axis=1)
        return np.bincount(pairs[1], minlength=len(self.class_names))

    @property
    def sides(self) -> np.ndarray:
        """[N] root of each box's area."""
        return np.sqrt((self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1]))

    @property
    def looked_at(self) -> str:
        """How much was looked at, in words."""
        count = len(self.image_ids) + self.failed
        took = f"in {self.seconds:.1f} s"
        return f"all {self.total} images, {took}" if self.complete else f"{count} of {self.total} images, {took}"


def survey(dataset: Dataset, config: Config, seconds: float = SECONDS, seed: int = 0) -> Survey:
    """Look at as many images of a dataset as can be in so many seconds, in an order that a seed decides.

    Images are not decoded, their masks are; those of a `CocoDataset` are not either. An image that cannot be read is
    counted and left out.

    Args:
        dataset: prepared.
        config: its sizes are used.
        seconds: the limit; a few images are looked at whatever they take.
        seed: of the order.
    """
    start = time.monotonic()
    image_ids, shapes, molded, boxes, class_ids, owners, failures = [], [], [], [], [], [], []
    crowds = failed = 0
    order = np.random.default_rng(seed).permutation(np.asarray(dataset.image_ids))
    for number, image_id in enumerate(order.tolist()):
        if number >= _AT_LEAST and time.monotonic() - start >= seconds:
            break
        try:
            shape, found, ids = look_at(dataset, image_id)
            placed, size = mold_boxes(found, shape, config)
        except Exception as error:  # whatever a dataset raises: training will name it, this only looks
            failed += 1
            if len(failures) < _FAILURES_KEPT:
                failures.append(f"{dataset.image_reference(image_id)}: {type(error).__name__}: {error}")
            continue
        real = ids > 0
        crowds += int((ids < 0).sum())
        owners.append(np.full(int(real.sum()), len(image_ids)))
        boxes.append(placed[real])
        class_ids.append(ids[real])
        image_ids.append(image_id)
        shapes.append(shape)
        molded.append(size)
    return Survey(
        total=len(order),
        image_ids=np.array(image_ids, np.int64),
        shapes=np.array(shapes, np.int64).reshape(-1, 2),
        molded=np.array(molded, np.int64).reshape(-1, 2),
        boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
        class_ids=np.concatenate([np.zeros(0, np.int64), *class_ids]),
        owners=np.concatenate([np.zeros(0, np.int64), *owners]),
        crowds=crowds,
        class_names=tuple(dataset.class_names),
        failures=tuple(failures),
        failed=failed,
        seconds=time.monotonic() - start,
    )


def look_at(dataset: Dataset, image_id: int) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """Size (height, width), boxes [n, 4] in the image's own pixels and class ids [n], negative for crowds, of one
    image; its instances without a pixel are left out."""
    info = dataset.image_info[image_id]
    if type(dataset).load_mask is CocoDataset.load_mask and "annotations" in info:
        return _look_at_annotations(dataset, info)
    masks, class_ids = dataset.load_mask(image_id)
    masks, class_ids = np.asarray(masks), np.asarray(class_ids)
    if class_ids.size == 0:
        return dataset.load_image(image_id).shape[:2], np.zeros((0, 4)), np.zeros(0, np.int64)
    boxes = extract_bboxes(masks)
    seen = boxes.any(axis=1)
    return masks.shape[:2], boxes[seen].astype(np.float64), class_ids[seen].astype(np.int64)


def _look_at_annotations(dataset: Dataset, info: dict[str, Any]) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    height, width = info["height"], info["width"]
    boxes, class_ids = [], []
    for annotation in info["annotations"]:
        class_id = dataset.map_source_class_id(f"{info['source']}.{annotation['category_id']}")
        box = _box_of(annotation["segmentation"], height, width)
        if box is not None:
            boxes.append(box)
            class_ids.append(-class_id if annotation.get("iscrowd") else class_id)
    return (height, width), np.array(boxes, np.float64).reshape(-1, 4), np.array(class_ids, np.int64)


def _box_of(segmentation: Any, height: int, width: int) -> tuple[float, float, float, float] | None:
    """The box of a segmentation inside its image: of polygons that of their points, of run lengths that of the mask."""
    if isinstance(segmentation, dict):
        box = extract_bboxes(decode_segmentation(segmentation, height, width)[:, :, None])[0]
        return tuple(box.tolist()) if box.any() else None
    x = np.clip(np.concatenate([polygon[::2] for polygon in segmentation]), 0, width)
    y = np.clip(np.concatenate([polygon[1::2] for polygon in segmentation]), 0, height)
    box = float(y.min()), float(x.min()), float(y.max()), float(x.max())
    return box if box[2] > box[0] and box[3] > box[1] else None


def mold_boxes(boxes: np.ndarray, shape: tuple[int, int], config: Config) -> tuple[np.ndarray, tuple[int, int]]:
    """Boxes [n, 4] of an image of `shape` (height, width) as they lie in the molded image, and its size.

    Crops fall anywhere, so in mode "crop" a box is cut to the crop's size and put inside it.
    """
    mode, rectangle = config.IMAGE_RESIZE_MODE, config.IMAGE_RECTANGLE
    scale = scale_of(shape, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, mode, rectangle)
    boxes, rules = boxes * scale, Rules.of(config, canvas=config.IMAGE_SHAPE[:2])
    height, width = (rules.scaled(side, scale) for side in shape)
    if mode == "crop":
        size = tuple(rectangle or (config.IMAGE_MIN_DIM, config.IMAGE_MIN_DIM))
        sides = np.minimum(boxes[:, 2:] - boxes[:, :2], size)
        corners = boxes[:, :2] % np.maximum(np.array(size) - sides, 1)
        return np.concatenate([corners, corners + sides], axis=1), size
    if mode == "square":
        size = tuple(rectangle or (config.IMAGE_MAX_DIM, config.IMAGE_MAX_DIM))
    elif mode == "pad64":
        size = tuple(-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in (height, width))
    elif mode == "shortest":
        size = (int(rules.canvas[0]), int(rules.canvas[1]))
    else:
        size = (height, width)
    corner = (0, 0) if rules.corner else ((size[0] - height) // 2, (size[1] - width) // 2)
    return boxes + np.tile(corner, 2), size


def sample_images(dataset: Dataset, image_ids: np.ndarray, seconds: float) -> Iterator[np.ndarray]:
    """Images of the dataset, one after the other, until so many seconds are over; at least one, of those that can be
    read."""
    start = time.monotonic()
    given = 0
    for image_id in np.asarray(image_ids).tolist():
        if given and time.monotonic() - start >= seconds:
            return
        try:
            image = dataset.load_image(image_id)
        except Exception:  # noqa: S112 - what cannot be read is told by `survey`'s and by training
            continue
        given += 1
        yield image
