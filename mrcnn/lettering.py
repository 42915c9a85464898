"""Letters on pictures, with no window and no plotting library. Pictures are uint8 RGB [H, W, 3], lengths in pixels."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

try:
    from PIL import Image, ImageDraw, ImageFont
except ImportError:  # where only detection is installed: OpenCV writes then, with plainer letters
    Image = None


@functools.lru_cache(maxsize=8)
def font_of(size: int) -> Any:
    """DejaVu Sans, which knows most alphabets, from matplotlib's files without importing it; else Pillow's
    own; without Pillow the scale at which OpenCV's letters are of that size."""
    if Image is None:
        return size / 30
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def extent_of_text(text: str, font: Any) -> tuple[float, float]:
    """First and last column of a text that is written from 0 on."""
    if Image is None:
        return 0, cv2.getTextSize(_latin(text), cv2.FONT_HERSHEY_SIMPLEX, font, 1)[0][0]
    left, _, right, _ = font.getbbox(text)
    return left, right


def letters(text: str, font: Any, height: int, width: int, indent: float) -> np.ndarray:
    """A line of text, in the middle of so many rows and from column `indent` on: how much of each pixel it covers, 0 to
    255, [height, width] uint8."""
    if Image is None:
        canvas = np.zeros((height, width), np.uint8)
        (_, letter_height), _ = cv2.getTextSize(_latin(text), cv2.FONT_HERSHEY_SIMPLEX, font, 1)
        start = (round(indent), (height + letter_height) // 2)
        cv2.putText(canvas, _latin(text), start, cv2.FONT_HERSHEY_SIMPLEX, font, 255, 1, cv2.LINE_AA)
        return canvas
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).text((indent, height / 2), text, fill=255, font=font, anchor="lm")
    return np.asarray(canvas)


def plate(height: int, width: int) -> np.ndarray:
    """What a label's letters stand on: how much of each pixel it covers, 0 to 255, [height, width] uint8."""
    if Image is None:
        return np.full((height, width), 235, np.uint8)
    canvas = Image.new("L", (width * 4, height * 4))  # drawn larger and reduced: smooth corners
    ImageDraw.Draw(canvas).rounded_rectangle((0, 0, width * 4 - 1, height * 4 - 1), radius=height, fill=235)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX))


def blend(area: np.ndarray, cover: np.ndarray, color: Sequence[float] | float) -> None:
    """Paint a part of a picture [h, w, 3] with a color, in 0 to 255, as far as `cover` [h, w] from 0 to 255 says."""
    opacity = cover.astype(np.float32)[..., None] / 255
    area[:] = np.rint(area + (np.asarray(color, np.float32) - area) * opacity)


def write(
    picture: np.ndarray, text: str, left: int, top: int, right: int, size: int, color: Sequence[float] | float
) -> None:
    """Write a line of text, cut with an ellipsis before column `right`, into rows from `top` on: see `line_height`."""
    font, wide, high = font_of(size), right - left, line_height(size)
    area = picture[top : top + high, left:right]
    if area.size:
        blend(area, letters(shortened(text, font, wide), font, high, wide, 0)[: len(area)], color)


def line_height(size: int) -> int:
    """Rows that a line of letters of a size takes."""
    return math.ceil(size * 1.45)


def shortened(text: str, font: Any, width: float) -> str:
    """A text as it is where it fits into so many columns, else its begin and an ellipsis."""
    text = " ".join(text.split())
    if extent_of_text(text, font)[1] <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if extent_of_text(text[:middle].rstrip() + "…", font)[1] <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def _latin(text: str) -> str:
    return text.replace("…", "...").encode("ascii", "replace").decode()  # OpenCV knows no more letters
