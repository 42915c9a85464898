"""The helpers that scripts and notebooks call as `utils`: boxes, masks, anchors, resizing, matching, `Dataset`.

Letters: H, W height and width; N, M instances; A anchors. Boxes are (y1, x1, y2, x2), in pixels unless it says
*normalized*; masks are [H, W, N]. All is numpy but for `box_refinement_graph` and `batch_slice`, which take the tensors
of the Keras backend.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np

import mrcnn.ops.boxes as _boxes
from mrcnn.data import resizing
from mrcnn.data.dataset import Dataset
from mrcnn.data.masks import expand_mask, extract_bboxes, minimize_mask, unmold_mask
from mrcnn.data.resizing import Padding, Window, resize_mask
from mrcnn.downloads import RELEASES, fetch_weights
from mrcnn.files import atomic_path
from mrcnn.legacy.draws import PythonDraws
from mrcnn.matching import (
    compute_ap,
    compute_ap_range,
    compute_matches,
    compute_overlaps_masks,
    compute_recall,
    trim_zeros,
)
from mrcnn.ops.anchors import generate_anchors, generate_pyramid_anchors

__all__ = [
    "COCO_MODEL_URL",
    "Dataset",
    "apply_box_deltas",
    "batch_slice",
    "box_refinement",
    "box_refinement_graph",
    "compute_ap",
    "compute_ap_range",
    "compute_iou",
    "compute_matches",
    "compute_overlaps",
    "compute_overlaps_masks",
    "compute_recall",
    "denorm_boxes",
    "download_trained_weights",
    "expand_mask",
    "extract_bboxes",
    "generate_anchors",
    "generate_pyramid_anchors",
    "minimize_mask",
    "mold_mask",
    "non_max_suppression",
    "norm_boxes",
    "resize",
    "resize_image",
    "resize_mask",
    "trim_zeros",
    "unmold_mask",
]

COCO_MODEL_URL = RELEASES["coco"].url


# Boxes


def compute_iou(box: Any, boxes: Any, box_area: float, boxes_area: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with others.

    Args:
        box: [4].
        boxes: [N, 4].
        box_area: of `box`; the areas are given, so that they are computed once for many calls.
        boxes_area: [N].

    Returns:
        [N]; 0 where both boxes are empty.
    """
    box, boxes = np.asarray(box), np.asarray(boxes)
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=1)
    union = box_area + np.asarray(boxes_area) - intersection
    return np.where(union > 0, intersection / np.where(union > 0, union, 1), 0)


def compute_overlaps(boxes1: Any, boxes2: Any) -> np.ndarray:
    """Intersection over union of all pairs of boxes1 [N, 4] and boxes2 [M, 4]: float64 [N, M]."""
    return _boxes.compute_overlaps(np.asarray(boxes1), np.asarray(boxes2)).astype(np.float64)


def non_max_suppression(boxes: Any, scores: Any, threshold: float) -> np.ndarray:
    """Rows of `boxes` [N, 4] to keep, best score first: int32. A box goes when its IoU with a better one is above
    `threshold`. `legacy:` of equal scores the later row comes first.

    Raises:
        ValueError: no boxes, or not a score for each.
    """
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    if boxes.ndim != 2 or boxes.shape[1:] != (4,) or len(boxes) == 0 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"non_max_suppression takes boxes [N, 4], N at least 1, and N scores. Received shapes: {boxes.shape} and "
            f"{scores.shape}."
        )
    if boxes.dtype.kind != "f":
        boxes = boxes.astype(np.float32)
    areas = _boxes.box_area(boxes)
    left, kept = scores.argsort()[::-1], []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[~(compute_iou(boxes[best], boxes[left], areas[best], areas[left]) > threshold)]
    return np.array(kept, np.int32)


def apply_box_deltas(boxes: Any, deltas: Any) -> np.ndarray:
    """Boxes [N, 4], float32, moved by `deltas` [N, (dy, dx, log dh, log dw)]."""
    return _boxes.decode_deltas(np.asarray(boxes).astype(np.float32), np.asarray(deltas)).astype(np.float32)


def box_refinement(box: Any, gt_box: Any) -> np.ndarray:
    """Deltas [N, (dy, dx, log dh, log dw)], float32, that take `box` [N, 4] to `gt_box` [N, 4]."""
    return _boxes.encode_deltas(np.asarray(box).astype(np.float32), np.asarray(gt_box).astype(np.float32))


def box_refinement_graph(box: Any, gt_box: Any) -> Any:
    """As `box_refinement`, of tensors."""
    from keras import ops

    return _boxes.encode_deltas(ops.cast(box, "float32"), ops.cast(gt_box, "float32"))


def norm_boxes(boxes: Any, shape: Sequence[int]) -> np.ndarray:
    """Pixel boxes [N, 4] to *normalized* float32 ones, in an image of `shape` (height, width)."""
    return _boxes.normalize_boxes(np.asarray(boxes), shape)


def denorm_boxes(boxes: Any, shape: Sequence[int]) -> np.ndarray:
    """*Normalized* boxes [N, 4] to pixel ones, int32, rounded half to even; `shape` as for `norm_boxes`."""
    return _boxes.denormalize_boxes(np.asarray(boxes), shape)


# Images and masks


def resize(
    image: Any,
    output_shape: Sequence[int],
    order: int = 1,
    mode: str = "constant",
    cval: float = 0,
    clip: bool = True,
    preserve_range: bool = False,
    anti_aliasing: bool = False,
    anti_aliasing_sigma: Any = None,
) -> np.ndarray:
    """An image [H, W] or [H, W, C] resized as scikit-image's `resize` does it.

    Bilinear and nearest-neighbor resizing (`order` 1 and 0), with the defaults for the rest, need nothing; anything
    else is handed to scikit-image, if that is installed.

    Args:
        image: of any type.
        output_shape: (height, width, ...).
        order: of the interpolation.
        mode, cval, clip: what lies outside, and whether values stay in the image's range.
        preserve_range: False brings whole numbers to 0..1 (signed ones to -1..1).
        anti_aliasing, anti_aliasing_sigma: smoothing before shrinking.

    Returns:
        [height, width] or [height, width, C]. For `order` 0 of the image's type, and values as they were; for 1
        float32 of a float32 image, else float64.

    Raises:
        ImportError: what is asked for needs scikit-image, and it is not installed.
        ValueError: an image or a shape that cannot be resized.
    """
    plain = order in (0, 1) and mode == "constant" and cval == 0 and clip and not anti_aliasing
    if not plain:
        return _scikit_resize(
            image, output_shape, order=order, mode=mode, cval=cval, clip=clip, preserve_range=preserve_range,
            anti_aliasing=anti_aliasing, anti_aliasing_sigma=anti_aliasing_sigma,
        )  # fmt: skip
    image = np.asarray(image)
    if order == 0:
        rows, columns = (
            (2 * np.arange(side) + 1) * length // (2 * side)
            for side, length in zip(output_shape[:2], image.shape[:2], strict=True)
        )
        return image[rows][:, columns]
    if not preserve_range and image.dtype.kind in "iu":
        image = np.maximum(image / np.iinfo(image.dtype).max, -1.0)
    return resizing.resize(image, output_shape)


def _scikit_resize(image: Any, output_shape: Sequence[int], **options: Any) -> np.ndarray:
    try:
        from skimage.transform import resize as scikit_resize
    except ImportError as error:
        raise ImportError(
            "utils.resize does without scikit-image for order 0 or 1, mode 'constant', cval 0, clip True and no "
            f"anti_aliasing. Received: {options}. For these, install it: pip install scikit-image."
        ) from error
    return scikit_resize(image, output_shape, **options)


def resize_image(
    image: Any,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
) -> tuple[np.ndarray, Window, float, Padding, Window | None]:
    """As `mrcnn.data.resizing.resize_image`: image, window, scale, padding, crop. In mode "crop", Python's global
    `random` places the crop."""
    return resizing.resize_image(image, min_dim, max_dim, min_scale, mode, PythonDraws())


def mold_mask(mask: Any, config: Any) -> None:
    """Does nothing, as it always did: masks are minimized (`minimize_mask`) instead."""


# Graph


def batch_slice(inputs: Any, graph_fn: Callable[..., Any], batch_size: int, names: Sequence[str] | None = None) -> Any:
    """Apply a function of one image to each image of a batch.

    Args:
        inputs: a tensor [batch_size, ...], or a list of them.
        graph_fn: takes a slice of each input, without the batch axis, and gives a tensor or a list of them.
        batch_size: how many images.
        names: kept for the signature's sake; tensors of Keras 3 are not named.

    Returns:
        The results stacked [batch_size, ...]: one tensor, or a list where `graph_fn` gives several.
    """
    from keras import ops

    inputs = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    rows = []
    for i in range(batch_size):
        row = graph_fn(*(tensor[i] for tensor in inputs))
        rows.append(row if isinstance(row, list | tuple) else [row])
    stacked = [ops.stack(column, axis=0) for column in zip(*rows, strict=True)]
    return stacked[0] if len(stacked) == 1 else stacked


# Weights


def download_trained_weights(coco_model_path: str | PathLike[str], verbose: int = 1) -> None:
    """Download the released COCO weights (258 MB) to `coco_model_path`.

    They are kept in the cache too: a second call only copies.

    Raises:
        DownloadError: they could not be fetched.
        FileNotFoundError: the folder of `coco_model_path` does not exist.
    """
    if verbose > 0:
        print(f"Downloading pretrained model to {fspath(coco_model_path)} ...")
    with atomic_path(coco_model_path) as temporary:
        shutil.copyfile(fetch_weights("coco", progress=verbose > 0), temporary)
    if verbose > 0:
        print("... done downloading pretrained model!")
