"""Molding: an image into what the network takes, and the network's detections back into the image.

Letters: B images; H, W original size; h, w molded size; C channels; D detections, N real ones among them;
K classes (0 is background). Boxes (y1, x1, y2, x2): *normalized* in the network, *pixels* outside it. All is
numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mrcnn.config import SIZE_MULTIPLE, nearest_sizes
from mrcnn.data.image_meta import ImageMeta
from mrcnn.data.masks import (
    cropped_masks,
    expand_mask,
    extract_bboxes,
    minimize_mask,
    paste_crops,
    paste_masks,
    polygons_of_crop,
    unmold_mask,
)
from mrcnn.data.resize_rules import Rules
from mrcnn.data.resizing import fit_image, resize, resize_image, resize_mask
from mrcnn.data.rle import encode_crops
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import box_area, denormalize_boxes, normalize_boxes

if TYPE_CHECKING:
    from mrcnn.config import Config

# Images of 8 bits and so many channels are molded by looking values up.
_TABLE_CHANNELS = (2, 3, 4)

# How much red, green and blue count in luminance, in thousandths.
LUMINANCE = (299, 587, 114)

# Pixels: what a box's far side is taken to lie further in, for one on the border of two pixels to be in the first.
_LEAST_SIDE = 1e-3

# What masks of detections can be given as; see `place_masks`.
MASK_FORMS = ("bool", "rle", "polygons", "none")

__all__ = [
    "MASK_FORMS",
    "ImageMeta",
    "as_channels",
    "check_molded_size",
    "expand_mask",
    "extract_bboxes",
    "minimize_mask",
    "mold_image",
    "mold_inputs",
    "mold_one",
    "network_inputs",
    "paste_masks",
    "place_boxes",
    "place_crops",
    "place_masks",
    "resize",
    "resize_image",
    "resize_mask",
    "unmold_detections",
    "unmold_image",
    "unmold_mask",
]


def as_channels(image: Any, channel_count: int) -> np.ndarray:
    """An image with the channels that the network expects.

    For three channels, grayscale is repeated and a fourth channel, taken for alpha, is dropped. For one, color becomes
    luminance (ITU-R BT.601), which leaves an image whose channels are equal as it is, and alpha is dropped. Otherwise
    the channels must be right already; [H, W] will do for one. Values and type stay as they are: an image of 16 bits
    needs a MEAN_PIXEL of its range.

    Args:
        image: [H, W] or [H, W, C], whole numbers or floats.
        channel_count: IMAGE_CHANNEL_COUNT.

    Returns:
        [H, W, channel_count], a view where it can be.

    Raises:
        TypeError: not an array of real numbers.
        ValueError: an empty image, another number of axes or channels, NaN or infinity.
    """
    image = np.asarray(image)
    if image.dtype.kind not in "uif":
        raise TypeError(
            "An image must be an array of whole numbers or floats (uint8, uint16, float32 ...). "
            f"Received: {image.dtype} of shape {image.shape}."
        )
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"An image must be [H, W] or [H, W, C], not empty. Received shape: {image.shape}.")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        count = image.size - int(np.isfinite(image).sum())
        raise ValueError(f"The image holds {count} value(s) that are NaN or infinite. Shape: {image.shape}.")
    if image.ndim == 2:
        image = image[:, :, None]
    channels = image.shape[2]
    if channels == channel_count:
        return image
    if channel_count == 3 and channels == 1:
        return np.repeat(image, 3, axis=2)
    if channel_count == 3 and channels == 4:
        return image[:, :, :3]
    if channel_count == 1 and channels in (3, 4):
        return _luminance(image[:, :, :3])
    accepted = "1 (grayscale), 3 or 4 (with alpha)" if channel_count in (1, 3) else str(channel_count)
    raise ValueError(
        f"IMAGE_CHANNEL_COUNT is {channel_count}, which takes images of {accepted} channels. "
        f"Received: {channels} channels (shape {image.shape})."
    )


def _luminance(image: np.ndarray) -> np.ndarray:
    """An RGB image [H, W, 3] -> [H, W, 1] of its type."""
    if image.dtype.kind == "f":
        values = image @ np.array(LUMINANCE, np.float64) / sum(LUMINANCE)
    else:  # in whole numbers, so that equal channels stay what they are to the last bit
        values = (image @ np.array(LUMINANCE, np.int64) + sum(LUMINANCE) // 2) // sum(LUMINANCE)
    return values.astype(image.dtype)[:, :, None]


def mold_image(image: np.ndarray, config: Config) -> np.ndarray:
    """Subtract MEAN_PIXEL from an image [H, W, C] or images [B, H, W, C] of any number type, divide by STD_PIXEL, and
    put the channels in IMAGE_CHANNEL_ORDER -> float32."""
    image = ordered(np.asarray(image), config)
    output = np.empty(image.shape, np.float32)
    lines = (-1, *image.shape[-2:])
    _standardize(image.reshape(lines), *statistics(config, image.shape[-1]), output.reshape(lines))
    return output


def _standardize(image: np.ndarray, mean: np.ndarray, std: np.ndarray, output: np.ndarray) -> None:
    """(image [H, W, C] - mean [C]) / std [C] -> output, in float64: the rounding to float32 is then the only one."""
    if image.dtype == np.uint8 and image.shape[2] in _TABLE_CHANNELS:
        tables = ((np.arange(256)[:, None] - mean) / std).astype(np.float32)[None]
        looked_up = cv2.LUT(image, tables, dst=output)
        if not np.may_share_memory(looked_up, output):
            output[...] = looked_up
        return
    # Channels lie flat along the columns, so that numpy's inner loop is long; of the output that is a view.
    flat = (len(image), -1)
    line = np.tile(mean, image.shape[1])
    if (std == 1).all():
        np.subtract(image.reshape(flat), line, out=output.reshape(flat), casting="same_kind")
        return
    values = np.subtract(image.reshape(flat), line)
    np.divide(values, np.tile(std, image.shape[1]), out=output.reshape(flat), casting="same_kind")


def unmold_image(image: np.ndarray, config: Config) -> np.ndarray:
    """The inverse of `mold_image`: [..., H, W, C] floats -> uint8, rounded and kept within 0..255.

    legacy: the original cuts the fraction off, which a float32 image does not survive unchanged.
    """
    image = np.asarray(image)
    mean, std = statistics(config, image.shape[-1])
    values = np.rint((image if (std == 1).all() else image * std) + mean)
    return ordered(np.clip(values, 0, 255).astype(np.uint8), config)


def ordered(image: np.ndarray, config: Config) -> np.ndarray:
    """An image [..., C] with its channels in the network's order; and back, for it is its own inverse."""
    if getattr(config, "IMAGE_CHANNEL_ORDER", "rgb") == "rgb":
        return image
    return np.ascontiguousarray(image[..., ::-1])


def statistics(config: Config, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """MEAN_PIXEL and STD_PIXEL of each channel, in the network's order."""
    found = []
    # What is like a configuration and knows no STD_PIXEL, as scripts have it, divides by 1.
    for name, default in (("MEAN_PIXEL", 0.0), ("STD_PIXEL", 1.0)):
        numbers = np.asarray(getattr(config, name, default), np.float64).ravel()
        if len(numbers) not in (1, channels):
            raise ValueError(
                f"{name} must have one number, or one for each channel. "
                f"Received: {len(numbers)} numbers, {channels} channels."
            )
        found.append(ordered(np.broadcast_to(numbers, (channels,)), config))
    return found[0], found[1]


def check_molded_size(shape: Sequence[int], mode: str, multiple: int = SIZE_MULTIPLE) -> None:
    """Refuse a molded image that the network cannot halve six times.

    Args:
        shape: (h, w, ...) of the molded image.
        mode: the resize mode that led to it, for the message.
        multiple: IMAGE_SIZE_MULTIPLE.

    Raises:
        ValueError: names the side and the sizes near it that work.
    """
    for name, size in zip(("Height", "Width"), shape[:2], strict=True):
        if size % multiple:
            hint = " Or resize with IMAGE_RESIZE_MODE 'pad64' or 'square'." if mode == "none" else ""
            raise ValueError(
                f"{name} of a molded image must be a multiple of {multiple}. Received: {size} ("
                f"image {shape[0]} x {shape[1]}, IMAGE_RESIZE_MODE {mode!r}).{nearest_sizes(size, multiple)}{hint}"
            )


def mold_one(image: Any, config: Config) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """Mold one image for inference: channels, size, padding, mean.

    legacy: the padding is there before the mean is subtracted, so it holds -MEAN_PIXEL; with IMAGE_PAD_CORNER 0.

    Args:
        image: [H, W] or [H, W, C] of any real type; see `as_channels`.
        config: its fields about images and NUM_CLASSES are used.

    Returns:
        molded: [h, w, C] float32.
        meta: [12 + K] float64, see `ImageMeta`; id 0, no class active.
        window: (y1, x1, y2, x2) in pixels of the molded image: the part that is not padding.

    Raises:
        TypeError, ValueError: an image that cannot be taken; what was received and what would do.
    """
    image = as_channels(image, config.IMAGE_CHANNEL_COUNT)
    mode = config.IMAGE_RESIZE_MODE
    if mode == "crop":
        raise ValueError(
            "IMAGE_RESIZE_MODE 'crop' is for training: what is found in a crop cannot be placed in the whole "
            "image. For inference use 'pad64', 'square' or 'none'."
        )
    fitted = fit_image(
        image,
        min_dim=config.IMAGE_MIN_DIM,
        max_dim=config.IMAGE_MAX_DIM,
        min_scale=config.IMAGE_MIN_SCALE,
        mode=mode,
        size=config.IMAGE_RECTANGLE,
        rules=Rules.of(config),
    )
    check_molded_size(fitted.shape, mode, config.IMAGE_SIZE_MULTIPLE)
    molded = np.empty((*fitted.shape, image.shape[2]), np.float32)
    (mean, std), (top, left, bottom, right) = statistics(config, image.shape[2]), fitted.window
    _standardize(ordered(fitted.image, config), mean, std, molded[top:bottom, left:right])
    padding = np.zeros(len(mean)) if config.IMAGE_PAD_CORNER else -mean / std
    lines, line = molded.reshape(len(molded), -1), np.tile(padding, fitted.shape[1])
    start, stop = left * len(mean), right * len(mean)
    lines[:top], lines[bottom:], lines[top:bottom, :start], lines[top:bottom, stop:] = (
        line, line, line[:start], line[stop:],
    )  # fmt: skip
    meta = ImageMeta(
        image_id=0,
        original_image_shape=image.shape,
        image_shape=molded.shape,
        window=fitted.window,
        scale=fitted.scale,
        active_class_ids=[0] * config.NUM_CLASSES,
    )
    return molded, meta.to_array(), fitted.window


def mold_inputs(images: Sequence[Any], config: Config) -> tuple[np.ndarray | list[np.ndarray], np.ndarray, np.ndarray]:
    """Mold several images for inference.

    Args:
        images: B images, each as for `mold_one`, of any sizes.
        config: as for `mold_one`.

    Returns:
        molded: [B, h, w, C] float32; a list of B arrays where their sizes differ (modes "none" and "pad64").
        metas: [B, 12 + K] float64.
        windows: [B, 4] int, pixels of the molded images.

    Raises:
        ValueError: no image, or one that cannot be taken.
    """
    if len(images) == 0:
        raise ValueError("At least one image is needed. Received: none.")
    molded, metas, windows = zip(*(mold_one(image, config) for image in images), strict=True)
    alike = len({image.shape for image in molded}) == 1
    return (np.stack(molded) if alike else list(molded)), np.stack(metas), np.array(windows)


def network_inputs(image: Any, config: Config) -> list[np.ndarray]:
    """All that the inference network takes for one image: molded [1, h, w, C], meta [1, 12 + K] and normalized anchors
    [1, A, 4], float32. The anchors are made anew; a `Detector` keeps them."""
    molded, meta, _ = mold_one(image, config)
    shape = molded.shape[:2]
    anchors = normalize_boxes(pyramid_anchors(config, shape), shape, config.BOX_GRID)
    return [np.asarray(array, np.float32)[None] for array in (molded, meta, anchors)]


def unmold_detections(
    detections: np.ndarray,
    mrcnn_mask: np.ndarray,
    original_image_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[int],
    grid: str = "legacy",
    paste: str = "legacy",
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One image's detections in its own pixels.

    Args:
        detections: [D, (y1, x1, y2, x2, class id, score)], normalized in the molded image; rows from the
            first class id 0 on are padding.
        mrcnn_mask: [D, mh, mw, K] probabilities.
        original_image_shape: (H, W, ...).
        image_shape: (h, w, ...) of the molded image.
        window: (y1, x1, y2, x2) in its pixels: where the image lies in it.
        grid: BOX_GRID.
        paste: MASK_PASTE.

    Returns:
        boxes: [N, 4] int32, pixels. Boxes that have no area are dropped, with all that belongs to them.
        class_ids: [N] int32.
        scores: [N] float.
        masks: [H, W, N] bool; a view of memory laid out [N, H, W], of which only the boxes are ever written.
    """
    detections = np.asarray(detections)
    padding = np.flatnonzero(detections[:, 4] == 0)
    detections = detections[: padding[0] if len(padding) else len(detections)]
    boxes, class_ids, scores, kept = place_boxes(detections, original_image_shape, image_shape, window, grid)
    masks = paste_masks(np.asarray(mrcnn_mask)[kept, :, :, class_ids], boxes, original_image_shape, paste)
    return whole_pixels(boxes), class_ids, scores, np.moveaxis(masks, 0, -1)


def place_boxes(
    detections: np.ndarray,
    original_image_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[int],
    grid: str = "legacy",
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One image's detections in its own pixels, without their masks.

    Args:
        detections: [D, (y1, x1, y2, x2, class id, score)], normalized in the molded image, no padding among them.
        original_image_shape, image_shape, window, grid: as for `unmold_detections`.

    Returns:
        boxes [N, 4] in pixels, int32 on the legacy grid, float32 on the other; class_ids [N] int32, scores [N] float,
        and of the detections the indices [N] of these: boxes that have no area are dropped.
    """
    boxes, class_ids, scores = detections[:, :4], detections[:, 4].astype(np.int32), detections[:, 5]
    if grid == "image":
        sides = np.array([*image_shape[:2], *image_shape[:2]], np.float64)
        origin, extent = np.tile(window[:2], 2), np.tile(np.subtract(window[2:], window[:2]), 2)
        to_image = np.tile(original_image_shape[:2], 2) / extent
        boxes = ((boxes * sides - origin) * to_image).astype(np.float32)
    else:
        window = normalize_boxes(np.asarray(window), image_shape[:2])
        origin, extent = np.tile(window[:2], 2), np.tile(window[2:] - window[:2], 2)
        boxes = denormalize_boxes((boxes - origin) / extent, original_image_shape[:2])
    kept = np.flatnonzero(box_area(boxes) > 0)
    return boxes[kept], class_ids[kept], scores[kept], kept


def whole_pixels(boxes: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] in pixels, rounded to int32 and at least one pixel large; those of int32 as they are."""
    if boxes.dtype == np.int32:
        return boxes
    corners = np.rint(boxes).astype(np.int32)
    starts = np.minimum(corners[:, :2], np.floor(boxes[:, 2:] - _LEAST_SIDE).astype(np.int32))
    return np.concatenate([starts, np.maximum(corners[:, 2:], starts + 1)], axis=1)


def place_masks(
    masks: np.ndarray, boxes: np.ndarray, image_shape: Sequence[int], form: str = "bool", paste: str = "legacy"
) -> Any:
    """One image's predicted masks in its own pixels.

    Args:
        masks: [N, mh, mw] probabilities.
        boxes: [N, 4], pixels of the image; int for `paste` "legacy".
        image_shape: (H, W, ...).
        form: "bool"; or "rle" or "polygons", for which nothing of the image's size is made.
        paste: MASK_PASTE.

    Returns:
        "bool": [H, W, N] bool; a view of memory laid out [N, H, W], of which only the boxes are ever written.
        "rle": N dicts of `size` [H, W] and `counts` (str), COCO's compressed run-length encoding.
        "polygons": N lists of outlines [M, (x, y)] int32, see `mrcnn.data.masks.polygons_of_crop`.
    """
    return place_crops(cropped_masks(masks, boxes, image_shape, paste), len(masks), image_shape, form)


def place_crops(
    crops: Iterable[tuple[np.ndarray, int, int]], count: int, image_shape: Sequence[int], form: str = "bool"
) -> Any:
    """`place_masks` of masks that are cropped already: see `mrcnn.data.masks.paste_crops`."""
    if form == "bool":
        return np.moveaxis(paste_crops(crops, count, image_shape), 0, -1)
    if form == "rle":
        return encode_crops(crops, image_shape)
    return [polygons_of_crop(crop, top, left) for crop, top, left in crops]
