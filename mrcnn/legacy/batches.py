"""The data functions of the original, on the global random generators; training itself uses `mrcnn.data.batches`.

Letters: B images, h, w sides of the molded image, C channels, N instances, K classes (0 is background), A anchors, R
random ROIs, T rois for the heads. Boxes are (y1, x1, y2, x2) in *pixels* of the molded image. All is numpy.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from mrcnn.config import Config
from mrcnn.data import rpn_targets
from mrcnn.data.augmentation import as_augmentation, augment_labeled
from mrcnn.data.dataset import Dataset, DatasetError
from mrcnn.data.image_meta import ImageMeta
from mrcnn.data.masks import extract_bboxes, minimize_mask
from mrcnn.data.resizing import resize_image, resize_mask
from mrcnn.data.samples import other_images
from mrcnn.legacy.draws import NumpyDraws, PythonDraws, new_generator
from mrcnn.legacy.functions import mold_image
from mrcnn.legacy.rois import build_detection_targets, generate_random_rois
from mrcnn.ops.anchors import pyramid_anchors

Loaded = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Errors that a `data_generator` bears; it raises the next one.
_TOLERATED_ERRORS = 5


def load_image_gt(
    dataset: Dataset,
    config: Config,
    image_id: int,
    augment: bool = False,
    augmentation: Any = None,
    use_mini_mask: bool = False,
) -> Loaded:
    """Load an image with its ground truth, resize both, and augment them.

    Instances of which no pixel is left are dropped.

    Args:
        dataset: prepared.
        config: its sizes are used.
        image_id: number of the image in the dataset.
        augment: deprecated: mirror half of the images left-right, as Python's global `random` says.
        augmentation: see `mrcnn.data.augmentation.as_augmentation`. An imgaug augmenter gets the resized image with its
            padding, and must keep the size; others get the image as it was loaded.
        use_mini_mask: whether masks come as MINI_MASK_SHAPE crops of their boxes.

    Returns:
        image [h, w, C]; meta [12 + K] float64, see `ImageMeta`; class_ids int [N]; boxes int32 [N, 4]; masks bool
        [h, w, N] or [*MINI_MASK_SHAPE, N].

    Raises:
        AugmentationError: the augmentation gave back what does not fit.
    """
    augmentation = as_augmentation(augmentation)
    image = dataset.load_image(image_id)
    masks, class_ids = (np.asarray(part) for part in dataset.load_mask(image_id))
    if masks.size == class_ids.size == 0:  # a dataset without masks gives them no size
        masks, class_ids = np.zeros((*image.shape[:2], 0), bool), np.zeros(0, np.int32)
    late = getattr(augmentation, "after_resizing", False)
    another = other_images(dataset, config, image_id)
    if augmentation is not None and not late:
        masks = masks.astype(bool, copy=False)
        image, masks, class_ids = augment_labeled(augmentation, image, masks, class_ids, new_generator(), another)
    original_shape = image.shape
    image, window, scale, padding, crop = resize_image(
        image, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, config.IMAGE_RESIZE_MODE,
        PythonDraws(), config.IMAGE_RECTANGLE,
    )  # fmt: skip
    masks = resize_mask(masks, scale, padding, crop, config.MASK_GRID)
    if augment:
        logging.warning("'augment' is deprecated. Use 'augmentation' instead.")
        if random.randint(0, 1):  # noqa: S311
            image, masks = np.fliplr(image), np.fliplr(masks)
    if late:
        masks = masks.astype(bool, copy=False)
        image, masks, class_ids = augment_labeled(
            augmentation, image, masks, class_ids, new_generator(), another, keep_size=True
        )

    visible = np.any(masks, axis=(0, 1))
    masks, class_ids = masks[:, :, visible].astype(bool, copy=False), class_ids[visible]
    boxes = extract_bboxes(masks)
    if use_mini_mask:
        masks = minimize_mask(boxes, masks, config.MINI_MASK_SHAPE)
    active = np.zeros(dataset.num_classes, np.int32)
    active[dataset.source_class_ids[dataset.image_info[image_id]["source"]]] = 1
    meta = ImageMeta(image_id, original_shape, image.shape, window, scale, active)
    return image, meta.to_array(), class_ids, boxes, masks


def build_rpn_targets(
    image_shape: Sequence[int], anchors: np.ndarray, gt_class_ids: np.ndarray, gt_boxes: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """As `mrcnn.data.rpn_targets.build_rpn_targets`, sampled with numpy's global generator: rpn_match int32 [A],
    rpn_bbox float64 [RPN_TRAIN_ANCHORS_PER_IMAGE, 4]."""
    return rpn_targets.build_rpn_targets(image_shape, anchors, gt_class_ids, gt_boxes, config, NumpyDraws())


def data_generator(
    dataset: Dataset,
    config: Config,
    shuffle: bool = True,
    augment: bool = False,
    augmentation: Any = None,
    random_rois: int = 0,
    batch_size: int = 1,
    detection_targets: bool = False,
    no_augmentation_sources: Collection[str] | None = None,
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Batches without end.

    Images without an object are left out. An image that cannot be loaded is logged and left out; the sixth such
    raises its error.

    Args:
        dataset: prepared.
        config: the configuration.
        shuffle: whether each pass goes in a new order.
        augment, augmentation: see `load_image_gt`.
        random_rois: R, how many random ROIs to make, for training the heads apart from the RPN.
        batch_size: B.
        detection_targets: with `random_rois`: whether to make the targets of the heads as well.
        no_augmentation_sources: sources whose images get no `augmentation`.

    Yields:
        inputs: images float32 [B, h, w, C], metas [B, 12 + K], rpn_match int32 [B, A, 1], rpn_bbox float64
            [B, RPN_TRAIN_ANCHORS_PER_IMAGE, 4], class ids int32 [B, MAX_GT_INSTANCES], boxes int32
            [B, MAX_GT_INSTANCES, 4], masks bool [B, h, w or MINI_MASK_SHAPE, MAX_GT_INSTANCES]; with random ROIs these,
            int32 [B, R, 4]; with targets the rois int32 [B, T, 4].
        outputs: with targets, class ids int32 [B, T, 1], deltas [B, T, K, 4] and masks [B, T, mask height, mask width,
            K]; otherwise nothing.
    """
    no_augmentation_sources = no_augmentation_sources or ()
    image_ids = np.copy(dataset.image_ids)
    anchors = pyramid_anchors(config, config.IMAGE_SHAPE)
    errors, empty, index, rows = 0, 0, -1, []
    while True:
        if empty == len(image_ids):
            raise DatasetError(f"None of the {empty} images has an object. Check the dataset's load_mask and prepare.")
        index = (index + 1) % len(image_ids)
        if shuffle and index == 0:
            np.random.shuffle(image_ids)  # noqa: NPY002
        image_id = image_ids[index]
        try:
            plain = dataset.image_info[image_id]["source"] in no_augmentation_sources
            loaded = load_image_gt(
                dataset, config, image_id, augment, None if plain else augmentation, config.USE_MINI_MASK
            )
            if not np.any(loaded[2] > 0):
                empty += 1
                continue
            empty = 0
            row = _row(loaded, anchors, config, random_rois, detection_targets)
        except Exception:
            logging.exception("Error processing image %s", dataset.image_info[image_id])
            errors += 1
            if errors > _TOLERATED_ERRORS:
                raise
            continue
        rows.append(row)
        if len(rows) == batch_size:
            yield tuple([np.stack(column) for column in zip(*side, strict=True)] for side in zip(*rows, strict=True))
            rows = []


def _row(
    loaded: Loaded, anchors: np.ndarray, config: Config, random_rois: int, detection_targets: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One image's part of the inputs and of the outputs."""
    image, meta, class_ids, boxes, masks = loaded
    rpn_match, rpn_bbox = build_rpn_targets(image.shape, anchors, class_ids, boxes, config)
    more, outputs = [], []
    if random_rois:
        more = [generate_random_rois(image.shape, random_rois, class_ids, boxes)]
        if detection_targets:
            rois, *outputs = build_detection_targets(more[0], class_ids, boxes, masks, config)
            more.append(rois)
            outputs[0] = outputs[0][:, None]  # as many axes as the output that it is for
    most = config.MAX_GT_INSTANCES
    if len(class_ids) > most:
        chosen = np.random.choice(len(class_ids), most, replace=False)  # noqa: NPY002
        class_ids, boxes, masks = class_ids[chosen], boxes[chosen], masks[:, :, chosen]
    missing = most - len(class_ids)
    truth = [
        np.pad(class_ids.astype(np.int32), (0, missing)),
        np.pad(boxes, ((0, missing), (0, 0))),
        np.pad(masks, ((0, 0), (0, 0), (0, missing))),
    ]
    molded = mold_image(image, config).astype(np.float32)
    return [molded, meta, rpn_match[:, None], rpn_bbox, *truth, *more], outputs
