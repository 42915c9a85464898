"""COCO's run-length encoding of masks, from the part of an image that they lie in, and back.

Letters: H, W image size; N instances; h, w size of a crop. Runs go down the columns, of 0s and 1s in turn, the 0s
first. As text: 5 bits a character, low ones first, bit 6 says that more follow; from the fourth run on, what is
written is the difference to the run before the last. Nothing here is as large as the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mrcnn.data.masks import extract_bboxes


def encode_masks(masks: np.ndarray, boxes: np.ndarray | None = None) -> list[dict[str, Any]]:
    """COCO's compressed run-length encoding of masks, the same that pycocotools makes.

    Args:
        masks: [H, W, N] bool.
        boxes: [N, 4] in pixels, with all of the mask inside, such as those of `extract_bboxes`, where they are known.

    Returns:
        N dicts of `size` [H, W] and `counts` (str, so that JSON takes it).

    Raises:
        ValueError: `masks` is not [H, W, N].
    """
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise ValueError(f"Masks must have the shape [H, W, N]. Received: {masks.shape}.")
    if masks.shape[2] == 0:
        return []
    boxes = (extract_bboxes(masks) if boxes is None else np.asarray(boxes)).tolist()
    crops = ((masks[y1:y2, x1:x2, n], y1, x1) for n, (y1, x1, y2, x2) in enumerate(boxes))
    return encode_crops(crops, masks.shape)


def encode_crops(crops: Iterable[tuple[np.ndarray, int, int]], image_shape: Sequence[int]) -> list[dict[str, Any]]:
    """The encoding of masks of which parts of the image are known, with nothing but 0s outside them.

    Args:
        crops: N times: the part [h, w], which lies within the image, and its first row and column there. What is not
            0 belongs to the mask.
        image_shape: (H, W, ...).

    Returns:
        N dicts of `size` [H, W] and `counts` (str).
    """
    height, width = int(image_shape[0]), int(image_shape[1])
    counts = []
    for crop, top, left in crops:
        edges = _edges(crop, top, left, height)
        runs = np.diff(edges, prepend=0, append=height * width)
        counts.append(runs[:-1] if len(edges) and edges[-1] == height * width else runs)
    return [{"size": [height, width], "counts": text} for text in compress(counts)]


def encode_labels(labels: np.ndarray, without: Sequence[int] = (0,)) -> tuple[list[int], list[dict[str, Any]]]:
    """The encoding of each instance of a label image.

    Args:
        labels: [H, W] integers, the number of the instance that a pixel belongs to.
        without: numbers that mean no instance.

    Returns:
        The N numbers, ascending, and N dicts of `size` [H, W] and `counts` (str), which share their `size`.
    """
    size = [int(side) for side in labels.shape]
    flat = labels.T.ravel()
    if not flat.size:
        return [], []
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    kept = np.flatnonzero(~np.isin(values, without))
    kept = kept[np.argsort(values[kept], kind="stable")]
    numbers, firsts = np.unique(values[kept], return_index=True)
    counts = []
    for runs in np.split(kept, firsts[1:]) if len(kept) else ():
        edges = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        lengths = np.diff(edges, prepend=0, append=flat.size)
        counts.append(lengths[:-1] if lengths[-1] == 0 else lengths)
    return numbers.tolist(), [{"size": size, "counts": text} for text in compress(counts)]


def decode_crop(rle: Mapping[str, Any]) -> tuple[np.ndarray, int, int]:
    """The part of the image that a mask lies in: the way back from `encode_crops`.

    Args:
        rle: `size` [H, W] and `counts`: text or bytes, compressed, or a list of run lengths.

    Returns:
        The mask [h, w] bool within its tightest box, the box's first row and its first column. Without rows and columns
        where the mask is empty.

    Raises:
        ValueError: it is no such encoding, or does not cover its image.
    """
    height, runs = run_lengths(rle)
    ends = np.cumsum(runs)
    starts, stops = ends[:-1:2], ends[1::2]
    starts, stops = starts[starts < stops], stops[starts < stops]
    if len(starts) == 0:
        return np.zeros((0, 0), bool), 0, 0
    left, columns = int(starts[0]) // height, (int(stops[-1]) - 1) // height - int(starts[0]) // height + 1
    first, last = starts % height, (stops - 1) % height
    if np.array_equal(starts // height, (stops - 1) // height):  # no run goes on in the next column
        top, rows = int(first.min()), int(last.max()) - int(first.min()) + 1
    else:
        top, rows = 0, height
    # As positions down the columns of the crop. A column's last run may touch the next one's first.
    starts = (starts // height - left) * rows + first - top
    stops = ((stops - 1) // height - left) * rows + last - top + 1
    borders = np.stack([starts, stops], axis=1).ravel()
    lengths = np.diff(borders, prepend=0, append=columns * rows)
    inside = np.arange(len(lengths)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, lengths).reshape(columns, rows).T), top, left


def run_lengths(rle: Mapping[str, Any]) -> tuple[int, np.ndarray]:
    """The height of a mask's image and the lengths of its runs [R] int64.

    Raises:
        ValueError: as `decode_crop`.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, str | bytes):
            runs = decompress(counts)
        else:
            runs = np.array(counts, np.int64).reshape(len(counts))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"A mask's run lengths need `size` [height, width] and `counts`. Received: {str(rle)[:60]}. {error}"
        ) from error
    if height < 1 or width < 1 or runs.min(initial=0) < 0 or runs.sum() != height * width:
        raise ValueError(
            f"A mask's run lengths must be 0 or more and sum to its image's {height} x {width} = {height * width} "
            f"pixels. Received: {len(runs)} of them, from {runs.min(initial=0)} on, sum {runs.sum()}."
        )
    return height, runs


def _edges(crop: np.ndarray, top: int, left: int, height: int) -> np.ndarray:
    """Where runs of 1s start and end (one beyond), by turns, as positions down the columns of the image."""
    rows, columns = crop.shape
    if crop.size == 0:
        return np.zeros(0, np.int64)
    # Column after column, a 0 before and after each, so that a run never reaches from one into the next.
    pixels = np.zeros(columns * (rows + 1) + 1, np.uint8)
    pixels[:-1].reshape(columns, rows + 1)[:, 1:] = cv2.transpose(np.ascontiguousarray(crop, bool).view(np.uint8))
    edges = np.flatnonzero(pixels[1:] != pixels[:-1])
    edges += edges // (rows + 1) * (height - rows - 1) + (left * height + top)
    if rows < height:
        return edges
    # Runs that end at the image's last row may go on at the first row of the next column.
    goes_on = 2 * np.flatnonzero(edges[1:-1:2] == edges[2::2])
    return np.delete(edges, np.concatenate([goes_on + 1, goes_on + 2]))


def compress(counts: Sequence[np.ndarray]) -> list[str]:
    """The texts of the run lengths of N masks, [R] each of its own R, whole numbers from 0 on."""
    if not counts:
        return []
    values = []
    for runs in counts:
        runs = np.asarray(runs, np.int64)
        values.append(np.concatenate([runs[:3], runs[3:] - runs[1:-2]]) if len(runs) > 3 else runs)
    rest = np.concatenate(values)
    digits, is_written = [], []
    goes_on = np.ones(len(rest), bool)
    while goes_on.any():
        is_written.append(goes_on)
        low = rest & 31
        rest = rest >> 5
        # Where what is left only repeats the highest bit of these five, which tells the sign, no more is needed.
        goes_on = goes_on & (rest != np.where(low & 16, -1, 0))
        digits.append((low + np.where(goes_on, 32 + 48, 48)).astype(np.uint8))
    is_written = np.stack(is_written, axis=1)
    text = np.stack(digits, axis=1)[is_written].tobytes().decode("ascii")
    ends = np.cumsum(is_written.sum(axis=1))[np.cumsum([len(runs) for runs in values]) - 1].tolist()
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def decompress(text: str | bytes) -> np.ndarray:
    """The run lengths [R] int64 of a text that `compress` or pycocotools made.

    Raises:
        ValueError: the text is none of these.
    """
    data = text.encode("ascii", "replace") if isinstance(text, str) else bytes(text)
    digits = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not len(digits):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(digits & 32 == 0) + 1  # one beyond the last character of each number
    if digits.min() < 0 or digits.max() > 63 or len(ends) == 0 or ends[-1] != len(digits):
        raise ValueError(f"These are no compressed run lengths, or they break off: {str(text)[:40]!r}.")
    begins = np.concatenate([[0], ends[:-1]])
    place = np.arange(len(digits)) - np.repeat(begins, ends - begins)
    if place.max() > 11:
        raise ValueError(f"Compressed run lengths of more than 60 bits: {str(text)[:40]!r}.")
    values = np.add.reduceat((digits & 31) << (5 * place), begins)
    values -= np.where(digits[ends - 1] & 16, 1 << (5 * (ends - begins)), 0)  # the highest bit is the sign
    # From the fourth on, what is written is the difference to the run before the last.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
