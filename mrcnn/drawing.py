"""Drawing instances onto image arrays: fills, outlines, boxes and labels, with no window and no plotting
library.

Letters: N instances; H, W height and width. Boxes are (y1, x1, y2, x2) in pixels, y2 and x2 one outside;
masks are [H, W, N] bool. Colors are (red, green, blue) from 0 to 1.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mrcnn.colors import as_rgb, instance_colors
from mrcnn.data.outlines import crop_of_outlines
from mrcnn.data.rle import decode_crop
from mrcnn.files import atomic_path, require_folder
from mrcnn.lettering import blend, extent_of_text, font_of, letters, plate

try:
    from PIL import Image
except ImportError:  # where only detection is installed: OpenCV writes files then
    Image = None

# More instances than this, and labels hide the picture: none are drawn.
MAX_LABELED = 60

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_SUBPIXEL_BITS = 4  # OpenCV takes coordinates as integers with so many bits after the point


def apply_mask(image: np.ndarray, mask: np.ndarray, color: Sequence[float], alpha: float = 0.5) -> np.ndarray:
    """Blend `color` into the first three channels of `image` [H, W, C] where `mask` [H, W] is set. The image is
    changed, and returned.

    Raises:
        ValueError: the mask is not of the image's size, or the image has fewer channels.
    """
    mask = np.asarray(mask)
    if image.ndim != 3 or image.shape[2] < 3 or mask.shape != image.shape[:2]:
        raise ValueError(f"The mask must be [H, W] of the image [H, W, 3]. Received: {mask.shape}, {image.shape}.")
    box = _extent(mask)
    _fill(image[box][..., :3], mask[box] > 0, np.asarray(color) * 255, alpha)
    return image


def draw_box(image: np.ndarray, box: Sequence[int], color: Any) -> np.ndarray:
    """Draw the outline of `box`, two pixels wide and inside it, in `color` (a value or one for each channel,
    in the image's own units). The image is changed, and returned."""
    _frame(image, box, color, width=2)
    return image


def draw_instances(
    image: np.ndarray,
    result: Mapping[str, Any],
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    *,
    show_boxes: bool = True,
    show_masks: bool = True,
    show_labels: bool = True,
    alpha: float = 0.45,
    colors: Any = None,
    line_width: int | None = None,
) -> np.ndarray:
    """Draw detections (or ground truth) onto a copy of an image.

    Lines and letters are sized by the image. Labels give way: none where there are more than `MAX_LABELED`
    instances, none for an instance too small for its label, and of two that would cover each other the better
    score's stays.

    Args:
        image: see `as_rgb`; left as it is.
        result: dict of `rois` int [N, 4], and as far as known `class_ids` [N], `scores` [N] and `masks` in any
            form, as `detect` returns it. Each mask is drawn within its ROI only.
        class_names: names by class id; numbers stand in for them where None.
        show_boxes, show_masks, show_labels: what to draw.
        alpha: how opaque masks are filled, 0 to 1. Their outlines always are.
        colors: one (red, green, blue) for all, or [N, 3], from 0 to 1; distinct ones of our choice where
            None.
        line_width: of outlines and boxes in pixels.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: parts of the result differ in number or in size from the image, or a class has no name.
    """
    canvas = as_rgb(image)
    height, width = canvas.shape[:2]
    rois, class_ids, scores, masks = _checked(result, height, width, show_masks)
    count = len(rois)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie from 0 to 1. Received: {alpha}.")
    paint = _checked_colors(colors, count) * 255
    side = math.sqrt(height * width)
    if line_width is None:
        line_width = max(1, round(side / 800))
    elif line_width < 1:
        raise ValueError(f"line_width must be at least 1 pixel. Received: {line_width}.")

    boxes = np.clip(rois, 0, [height, width, height, width])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    order = [i for i in np.argsort(-areas, kind="stable") if areas[i] > 0]  # small ones last, on top
    if masks is not None:
        crops = {i: _crop(masks, boxes[i], i, (height, width)) for i in order}
        for i in order:
            y1, x1, y2, x2 = boxes[i]
            _fill(canvas[y1:y2, x1:x2], crops[i], paint[i], alpha)
        for i in order:
            _draw_outlines(canvas, crops[i], boxes[i], paint[i], line_width)
    if show_boxes:
        for i in order:
            # Beside an outline the box is the lesser sign, and in a crowd it is in the way.
            opacity = 0.9 if masks is None else 0.5 if count <= MAX_LABELED else 0.3
            _frame(canvas, boxes[i], paint[i], line_width, opacity)
    if show_labels and class_ids is not None and count <= MAX_LABELED:
        texts = [label(class_ids[i], None if scores is None else scores[i], class_names) for i in range(count)]
        best_first = range(count) if scores is None else np.argsort(-scores, kind="stable")
        size = max(11, round(side * 0.02))
        _draw_labels(canvas, [i for i in best_first if areas[i] > 0], boxes, texts, paint, size, line_width)
    return canvas


def save_instances(
    path: str | os.PathLike,
    image: np.ndarray,
    result: Mapping[str, Any],
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    **options: Any,
) -> Path:
    """`draw_instances` into a PNG or JPEG file, by the suffix of `path`. The file appears whole or not at
    all.

    Args: as for `draw_instances`.

    Returns:
        The path written.

    Raises:
        ValueError: a suffix other than .png, .jpg, .jpeg; what `draw_instances` refuses.
        FileNotFoundError: the folder does not exist.
    """
    require_picture_name(path)
    return save_picture(path, draw_instances(image, result, class_names, **options))


def save_picture(path: str | os.PathLike, picture: np.ndarray) -> Path:
    """Write a picture [H, W, 3] uint8 into a PNG or JPEG file, by the suffix of `path`. The file appears whole or not
    at all.

    Raises:
        ValueError: a suffix other than .png, .jpg, .jpeg.
        FileNotFoundError: the folder does not exist.
    """
    path, kind = Path(path), require_picture_name(path)
    with atomic_path(path) as temporary:
        if Image is None:
            _, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            temporary.write_bytes(data.tobytes())
        else:
            # Thin colored lines suffer from JPEG's usual halving of the color channels. PNG's usual level takes six
            # times as long, for files 6% smaller.
            quality = {"quality": 92, "subsampling": 0} if kind == "JPEG" else {"compress_level": 3}
            Image.fromarray(picture).save(temporary, format=kind, **quality)
    return path


def require_picture_name(path: str | os.PathLike) -> str:
    """PNG or JPEG, by the suffix of `path`. It is cheap, so worth asking before a long run.

    Raises:
        ValueError: another suffix.
        FileNotFoundError: the folder does not exist.
    """
    kind = _FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"A picture is saved as {', '.join(_FORMATS)}. Received: {Path(path).name}.")
    require_folder(path)
    return kind


def label(class_id: int, score: float | None, class_names: Sequence[str] | Mapping[int, str] | None) -> str:
    """The text beside an instance: "cell 0.97", "class 3 0.97" without names, "cell (crowd)" for a negative
    id.

    Raises:
        ValueError: `class_names` has no name for the class.
    """
    number = abs(int(class_id))
    if class_names is None:
        name = f"class {number}"
    elif number in class_names if isinstance(class_names, Mapping) else number < len(class_names):
        name = str(class_names[number])
    else:
        raise ValueError(f"class_names has {len(class_names)} names and none for class id {number}.")
    if class_id < 0:
        name += " (crowd)"
    return name if score is None else f"{name} {score:.2f}"


def mask_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a mask [h, w] bool, holes included, as closed lines: float arrays [points, (x, y)] in
    which pixel centers have whole coordinates. The pixels' stairs are smoothed away."""
    box = _extent(mask)
    mask = mask[box]
    if mask.size == 0:
        return []
    longest = max(mask.shape)
    factor = 4 if longest < 400 else 2 if longest < 1600 else 1
    padded = cv2.copyMakeBorder(mask.astype(np.uint8) * 255, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    if factor > 1:
        padded = cv2.resize(padded, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours((padded > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = []
    corner = np.array([box[1].start, box[0].start])
    for contour in contours:
        points = (contour.reshape(-1, 2).astype(np.float64) + 0.5) / factor - 1.5 + corner
        window = 2 * factor + 1  # about two pixels
        if len(points) > 3 * window:
            around = np.concatenate([points[-(window // 2) :], points, points[: window // 2]])
            sums = np.cumsum(np.concatenate([np.zeros((1, 2)), around]), axis=0)
            points = (sums[window:] - sums[:-window]) / window
        lines.append(points)
    return lines


def _extent(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that hold all of a mask; none if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _checked(
    result: Mapping[str, Any], height: int, width: int, show_masks: bool
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | Sequence[Any] | None]:
    if result.get("rois") is None:
        raise ValueError(f"A result to draw needs `rois`. It has: {', '.join(result) or 'nothing'}.")
    rois = np.asarray(result["rois"])
    rois = np.zeros((0, 4), int) if rois.size == 0 else np.rint(rois).astype(int)
    if rois.ndim != 2 or rois.shape[1] != 4:
        raise ValueError(f"rois must have the shape [N, 4]. Received: {rois.shape}.")
    class_ids, scores = (None if result.get(k) is None else np.asarray(result[k]) for k in ("class_ids", "scores"))
    masks = result.get("masks") if show_masks else None
    if masks is not None and not isinstance(masks, list):
        masks = np.asarray(masks)
    for name, part, length in (
        ("class_ids", class_ids, None if class_ids is None else len(class_ids)),
        ("scores", scores, None if scores is None else len(scores)),
        ("masks", masks, None if masks is None else len(masks) if isinstance(masks, list) else masks.shape[-1]),
    ):
        if part is not None and length != len(rois):
            told = "" if isinstance(part, list) else f" (shape {part.shape})"
            raise ValueError(f"The result has {len(rois)} rois, and {name} for {length}{told}.")
    if isinstance(masks, list):
        sizes = {tuple(mask["size"]) for mask in masks if isinstance(mask, Mapping)}
    else:
        sizes = set() if masks is None or len(rois) == 0 else {masks.shape[:2]}
    for size in sizes - {(height, width)}:
        raise ValueError(f"The masks measure {size}, the image {(height, width)}: they must be one size.")
    return rois, class_ids, scores, masks


def _checked_colors(colors: Any, count: int) -> np.ndarray:
    if colors is None:
        return instance_colors(count)
    chosen = np.asarray(colors, np.float64)
    if chosen.shape == (3,):
        chosen = np.tile(chosen, (count, 1))
    if count == 0:
        return np.zeros((0, 3))
    if chosen.ndim != 2 or chosen.shape[1] != 3 or len(chosen) < count or chosen.min() < 0 or chosen.max() > 1:
        raise ValueError(
            f"colors must be one (red, green, blue) from 0 to 1, or one for each of the {count} instances. "
            f"Received shape: {chosen.shape}, values {chosen.min():g} to {chosen.max():g}."
        )
    return chosen


def _crop(masks: Any, box: np.ndarray, index: int, shape: tuple[int, int]) -> np.ndarray:
    y1, x1, y2, x2 = box.tolist()
    if not isinstance(masks, list):
        return np.ascontiguousarray(masks[y1:y2, x1:x2, index] > 0)
    mask = masks[index]
    part, top, left = decode_crop(mask) if isinstance(mask, Mapping) else crop_of_outlines(mask, shape)
    part = part[max(y1 - top, 0) : max(y2 - top, 0), max(x1 - left, 0) : max(x2 - left, 0)]
    top, left = max(top - y1, 0), max(left - x1, 0)
    inside = np.zeros((y2 - y1, x2 - x1), bool)
    inside[top : top + part.shape[0], left : left + part.shape[1]] = part
    return inside


def _fill(area: np.ndarray, inside: np.ndarray, paint: Any, opacity: float) -> None:
    """Blend a color, in the image's own units, into an image [h, w, C] or [h, w] where `inside` [h, w] is set."""
    if area.size and area.dtype == np.uint8 and area.shape[2:] == (3,):
        # Of 256 values each channel can only become 256 others: much quicker than blending every pixel.
        values = np.arange(256)[:, None] * (1 - opacity) + np.broadcast_to(paint, 3) * opacity
        table = np.rint(np.clip(values, 0, 255)).astype(np.uint8).reshape(1, 256, 3)
        np.copyto(area, cv2.LUT(np.ascontiguousarray(area), table), where=inside[..., None])
        return
    mixed = area[inside] * (1 - opacity) + np.asarray(paint) * opacity
    area[inside] = np.rint(mixed) if np.issubdtype(area.dtype, np.integer) else mixed


def _frame(image: np.ndarray, box: Sequence[int], paint: Any, width: int, opacity: float = 1.0) -> None:
    """The outline of a box, inside it; the parts outside the image fall away."""
    height_limit, width_limit = image.shape[:2]
    y1, x1, y2, x2 = (int(v) for v in box)
    inner_top, inner_bottom = min(y1 + width, y2), max(y2 - width, y1 + width)
    inner_left, inner_right = min(x1 + width, x2), max(x2 - width, x1 + width)
    for top, left, bottom, right in (
        (y1, x1, inner_top, x2),
        (inner_bottom, x1, y2, x2),
        (inner_top, x1, inner_bottom, inner_left),
        (inner_top, inner_right, inner_bottom, x2),
    ):
        edge = image[max(top, 0) : max(min(bottom, height_limit), 0), max(left, 0) : max(min(right, width_limit), 0)]
        _fill(edge, np.ones(edge.shape[:2], bool), np.asarray(paint), opacity)


def _draw_outlines(canvas: np.ndarray, crop: np.ndarray, box: np.ndarray, paint: np.ndarray, width: int) -> None:
    scale = 1 << _SUBPIXEL_BITS
    lines = [
        np.rint((points + box[[1, 0]]) * scale).astype(np.int32).reshape(-1, 1, 2) for points in mask_outlines(crop)
    ]
    color = tuple(float(v) for v in paint)
    cv2.polylines(canvas, lines, True, color, thickness=width, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)


def _draw_labels(
    canvas: np.ndarray,
    order: Sequence[int],
    boxes: np.ndarray,
    texts: Sequence[str],
    paint: np.ndarray,
    size: int,
    line_width: int,
) -> None:
    height, width = canvas.shape[:2]
    font, pad = font_of(size), max(2, size // 5)
    taken: list[tuple[int, int, int, int]] = []
    for i in order:
        y1, x1, y2, x2 = (int(v) for v in boxes[i])
        left, right = extent_of_text(texts[i], font)
        wide, high = math.ceil(right - left) + 2 * pad, math.ceil(size * 1.2) + pad
        if wide > width or high > height or y2 - y1 < size or 2 * (x2 - x1) < wide:
            continue
        x = min(max(x1, 0), width - wide)
        for y in (y1 - high, y1 + line_width, y2, y2 - high - line_width):  # above, inside, below, inside
            place = (y, x, y + high, x + wide)
            if 0 <= y <= height - high and not any(_touch(place, other) for other in taken):
                taken.append(place)
                _draw_label(canvas, place, texts[i], font, pad - left, paint[i])
                break


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _draw_label(
    canvas: np.ndarray,
    place: tuple[int, int, int, int],
    text: str,
    font: Any,
    indent: float,
    paint: np.ndarray,
) -> None:
    y1, x1, y2, x2 = place
    area = canvas[y1:y2, x1:x2]
    blend(area, plate(y2 - y1, x2 - x1), paint)
    ink = 0.0 if paint @ [0.299, 0.587, 0.114] > 128 else 255.0
    blend(area, letters(text, font, y2 - y1, x2 - x1, indent), ink)
