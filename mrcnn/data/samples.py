"""Samples: one image of a dataset with its ground truth and RPN targets, as the training network takes them.

Letters: H, W original size; h, w molded size; C channels; N instances; K classes (0 is background); A
anchors; boxes (y1, x1, y2, x2) in *pixels* of the molded image. All is numpy.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.data.augmentation import Another, Augmentation, Labeled, as_augmentation, augment_labeled
from mrcnn.data.dataset import Dataset, DatasetError
from mrcnn.data.mask_boxes import instances_first, take_masks
from mrcnn.data.molding import (
    ImageMeta,
    as_channels,
    check_molded_size,
    extract_bboxes,
    minimize_mask,
    mold_image,
    resize_image,
    resize_mask,
)
from mrcnn.data.random_rois import generate_random_rois
from mrcnn.data.resize_rules import Rules
from mrcnn.data.rpn_targets import build_rpn_targets
from mrcnn.ops.anchors import pyramid_anchors

if TYPE_CHECKING:
    from mrcnn.config import Config

Sample = dict[str, np.ndarray]

# Draws at random for another image of the same source, before all of them are listed.
_GUESSES = 20


def load_image_gt(
    dataset: Dataset,
    config: Config,
    image_id: int,
    augmentation: Any = None,
    rng: np.random.Generator | None = None,
    use_mini_mask: bool | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load an image with its ground truth, augment it, and resize both as the network needs.

    Instances of which no pixel is left are dropped, crowds (negative class ids) stay.

    Args:
        dataset: prepared.
        config: its sizes and classes are used.
        image_id: number of the image in the dataset.
        augmentation: None, or what `mrcnn.data.augmentation.as_augmentation` takes; it gets the image as it
            was loaded, before it is resized. legacy: an imgaug augmenter gets it resized and padded.
        rng: draws the augmentation, and the crop in resize mode "crop". None: a generator with seed 0.
        use_mini_mask: None: as USE_MINI_MASK says.

    Returns:
        image: [h, w, C], of the type that the dataset gave, or float32 (see IMAGE_INTERPOLATION).
        meta: [12 + K] float64, see `ImageMeta`.
        class_ids: [N] int32.
        boxes: [N, 4] int32, made from the resized masks.
        masks: [h, w, N] bool, or [*MINI_MASK_SHAPE, N] when mini-masks are used.

    Raises:
        DatasetError: the dataset's image, masks and class ids do not fit each other or the configuration.
        AugmentationError: the augmentation gave back what does not fit.
        Also whatever the dataset raises.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    augmentation = as_augmentation(augmentation)
    check_dataset(dataset, config)
    image, masks, class_ids = _load(dataset, config, image_id)
    another = other_images(dataset, config, image_id)
    late = getattr(augmentation, "after_resizing", False)
    if augmentation is not None and not late:
        image, masks, class_ids = augment_labeled(augmentation, image, masks, class_ids, rng, another)

    original_shape = image.shape
    mode = config.IMAGE_RESIZE_MODE
    rules = Rules.of(config, canvas=config.IMAGE_SHAPE[:2])
    image, window, scale, padding, crop = resize_image(
        image,
        min_dim=config.IMAGE_MIN_DIM,
        max_dim=config.IMAGE_MAX_DIM,
        min_scale=config.IMAGE_MIN_SCALE,
        mode=mode,
        generator=rng,
        size=config.IMAGE_RECTANGLE,
        rules=rules,
    )
    check_molded_size(image.shape, mode, config.IMAGE_SIZE_MULTIPLE)
    masks = resize_mask(masks, scale, padding, crop, config.MASK_GRID, rules)
    if late:
        image, masks, class_ids = augment_labeled(augmentation, image, masks, class_ids, rng, another, keep_size=True)

    boxes = extract_bboxes(masks)
    visible = np.flatnonzero(boxes.any(axis=1))
    if len(visible) < len(boxes):
        masks, class_ids, boxes = take_masks(masks, boxes, visible), class_ids[visible], boxes[visible]
    if config.USE_MINI_MASK if use_mini_mask is None else use_mini_mask:
        masks = minimize_mask(boxes, masks, config.MINI_MASK_SHAPE)

    active = np.zeros(config.NUM_CLASSES, np.int32)
    active[dataset.source_class_ids[dataset.image_info[image_id]["source"]]] = 1
    meta = ImageMeta(image_id, original_shape, image.shape, window, scale, active)
    return image, meta.to_array(), class_ids, boxes, masks


def _load(dataset: Dataset, config: Config, image_id: int) -> Labeled:
    """Image [H, W, C], masks [H, W, N] bool and class ids [N] int32, as the dataset has them."""
    image = as_channels(dataset.load_image(image_id), config.IMAGE_CHANNEL_COUNT)
    masks, class_ids = _check_masks(dataset, image_id, image.shape, dataset.load_mask(image_id))
    # All that follows goes instance by instance.
    return image, np.moveaxis(instances_first(masks), 0, -1), class_ids


def other_images(dataset: Dataset, config: Config, image_id: int) -> Another:
    """What loads random images of the source of image `image_id`, for augmentations that want another.

    Raises (when called):
        DatasetError: an image that cannot be loaded; it is named.
    """
    infos = dataset.image_info
    source = infos[image_id]["source"]

    def draw(rng: np.random.Generator) -> int:
        for _ in range(_GUESSES):
            number = int(rng.integers(len(infos)))
            if infos[number]["source"] == source:
                return number
        return int(rng.choice([number for number, info in enumerate(infos) if info["source"] == source]))

    def another(rng: np.random.Generator) -> Labeled:
        number = draw(rng)
        try:
            return _load(dataset, config, number)
        except Exception as error:
            raise DatasetError(
                f"Another image that augmentation asked for, {number} ({dataset.image_reference(number)}): "
                f"{type(error).__name__}: {error}"
            ) from error

    return another


def check_dataset(dataset: Dataset, config: Config) -> None:
    """Raise DatasetError unless the dataset has images, is prepared and has the classes that the
    configuration counts."""
    if not dataset.image_info:
        raise DatasetError("The dataset has no images: add some with add_image, then call prepare().")
    if len(dataset.image_ids) != len(dataset.image_info):
        raise DatasetError("The dataset is not prepared: call its prepare() after all images were added.")
    if dataset.num_classes != config.NUM_CLASSES:
        names = ", ".join(dataset.class_names[:10]) + (", ..." if dataset.num_classes > 10 else "")
        raise DatasetError(
            "NUM_CLASSES must be the number of the dataset's classes with the background, "
            f"{dataset.num_classes} "
            f"({names}). Received: {config.NUM_CLASSES}."
        )


def _check_masks(
    dataset: Dataset, image_id: int, image_shape: tuple[int, ...], loaded: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Masks [H, W, N] bool and class ids [N] int32 from what `load_mask` gave."""
    if not isinstance(loaded, tuple | list) or len(loaded) != 2:
        raise DatasetError(f"load_mask must return (masks, class_ids). Received: {type(loaded).__name__}.")
    masks, class_ids = np.asarray(loaded[0]), np.asarray(loaded[1])
    height, width = image_shape[:2]
    if class_ids.size == 0 and masks.size == 0:
        return np.zeros((height, width, 0), bool), np.zeros(0, np.int32)
    if masks.ndim != 3 or masks.shape[:2] != (height, width):
        turned = masks.ndim == 3 and masks.shape[:2] == (width, height)
        raise DatasetError(
            f"Masks must be [{height}, {width}, N] as the image is. Received: shape {masks.shape}."
            + (" Is the photo turned by its EXIF orientation, and its annotation not?" if turned else "")
        )
    if class_ids.dtype.kind == "f" and (class_ids % 1 == 0).all():
        class_ids = class_ids.astype(np.int32)  # np.ones(count), as many datasets have it
    if class_ids.shape != (masks.shape[2],) or not np.issubdtype(class_ids.dtype, np.integer):
        raise DatasetError(
            f"load_mask must return one whole number in class_ids for each of its {masks.shape[2]} masks. "
            f"Received: {class_ids.dtype}, shape {class_ids.shape}."
        )
    background = class_ids == 0
    if background.any():  # datasets say "no object" with one mask that is empty, of the background
        kept = ~background | masks.any(axis=(0, 1))
        masks, class_ids = masks[:, :, kept], class_ids[kept]
    source = dataset.image_info[image_id]["source"]
    allowed = dataset.source_class_ids[source]
    strange = sorted(set(np.abs(class_ids).tolist()) - (set(allowed) - {0}))
    if strange:
        raise DatasetError(
            f"Class ids must be those of source {source!r}: {[i for i in allowed if i]}, negative for "
            "crowds. "
            f"Received: {strange}."
        )
    return masks.astype(bool, copy=False), class_ids.astype(np.int32)


class SampleMaker:
    """Makes samples of a dataset. Holds nothing that changes but a cache, so that threads may share one.

    Args:
        dataset, config, augmentation: as for `load_image_gt`.
        no_augmentation_sources: sources whose images are not augmented.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        augmentation: Any = None,
        no_augmentation_sources: Collection[str] | None = None,
    ) -> None:
        check_dataset(dataset, config)
        if isinstance(no_augmentation_sources, str):
            no_augmentation_sources = [no_augmentation_sources]
        self.dataset = dataset
        self.config = config
        self.augmentation: Augmentation | None = as_augmentation(augmentation)
        self.no_augmentation_sources = frozenset(no_augmentation_sources or ())
        unknown = sorted(self.no_augmentation_sources - set(dataset.sources))
        if unknown:
            raise DatasetError(
                f"no_augmentation_sources must name sources of the dataset ({', '.join(dataset.sources)}). "
                f"Received: {', '.join(unknown)}."
            )
        # 1024 x 1024 pixels have 8 MB of anchors; images of many sizes must not pile them up.
        self.anchors = functools.lru_cache(maxsize=8)(functools.partial(pyramid_anchors, config))

    def make(self, image_id: int, rng: np.random.Generator) -> Sample | None:
        """One sample: the network's inputs by name, without the batch axis.

        None for an image without objects when SKIP_EMPTY_IMAGES is set (a crowd alone is no object).
        Otherwise such an image is a negative example: its RPN targets are all background, its ground truth
        all padding.

        legacy: the RPN's targets are made of all instances, the heads get MAX_GT_INSTANCES of them at most,
            drawn
        at random.
        """
        config = self.config
        source = self.dataset.image_info[image_id]["source"]
        augmentation = None if source in self.no_augmentation_sources else self.augmentation
        image, meta, class_ids, boxes, masks = load_image_gt(self.dataset, config, image_id, augmentation, rng)
        if config.SKIP_EMPTY_IMAGES and not (class_ids > 0).any():
            return None

        anchors = self.anchors(image.shape[:2])
        rpn_match, rpn_bbox = build_rpn_targets(image.shape, anchors, class_ids, boxes, config, rng)
        sample = {
            "input_image": mold_image(image, config),
            "input_image_meta": meta.astype(np.float32),
            "input_rpn_match": rpn_match[:, None],
            "input_rpn_bbox": rpn_bbox.astype(np.float32),
        }
        if not config.USE_RPN_ROIS:
            sample["input_roi"] = generate_random_rois(
                image.shape, config.POST_NMS_ROIS_TRAINING, class_ids, boxes, rng
            )
        if len(class_ids) > config.MAX_GT_INSTANCES:
            chosen = np.sort(rng.choice(len(class_ids), config.MAX_GT_INSTANCES, replace=False))
            class_ids, boxes, masks = class_ids[chosen], boxes[chosen], masks[:, :, chosen]
        missing = config.MAX_GT_INSTANCES - len(class_ids)
        sample["input_gt_class_ids"] = np.pad(class_ids, (0, missing))
        sample["input_gt_boxes"] = np.pad(boxes.astype(np.float32), ((0, missing), (0, 0)))
        sample["input_gt_masks"] = np.pad(masks, ((0, 0), (0, 0), (0, missing)))
        return sample
