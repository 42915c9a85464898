"""Masks without the image around them, a bit a pixel: thousands of them take no room.

Letters: h, w size of a crop. Boxes and windows are (y1, x1, y2, x2) in *pixels* of the image, y2 and x2 one outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrcnn.data.tiles import Window


@dataclass(frozen=True, eq=False)
class Crop:
    """A mask of [height, width] pixels, `area` of them in it, from row `top` and column `left` of the image on."""

    top: int
    left: int
    height: int
    width: int
    area: int
    bits: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, top: int, left: int) -> Crop:
        """A crop [h, w] bool that begins at `top` and `left`, cut to the mask in it."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return cls(top, left, 0, 0, 0, np.zeros(0, np.uint8))
        mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        area = int(np.count_nonzero(mask))
        return cls(top + int(rows[0]), left + int(columns[0]), *mask.shape, area, np.packbits(mask))

    def mask(self) -> np.ndarray:
        """[height, width] bool."""
        count = self.height * self.width
        return np.unpackbits(self.bits, count=count).view(bool).reshape(self.height, self.width)

    @property
    def box(self) -> Window:
        """The tightest box around it."""
        return self.top, self.left, self.top + self.height, self.left + self.width

    def area_in(self, window: Sequence[int]) -> int:
        """How many of its pixels lie in a window."""
        return int(np.count_nonzero(self._part(_intersection(self.box, window))))

    def shared(self, other: Crop) -> int:
        """How many pixels it has in common with another."""
        both = _intersection(self.box, other.box)
        return int(np.count_nonzero(self._part(both) & other._part(both)))

    def _part(self, window: Window) -> np.ndarray:
        """What of the mask lies in a window within its box."""
        y1, x1, y2, x2 = window
        return self.mask()[y1 - self.top : y2 - self.top, x1 - self.left : x2 - self.left]


def _intersection(one: Sequence[int], other: Sequence[int]) -> Window:
    """What two boxes have in common; without a pixel where that is nothing."""
    y1, x1 = max(one[0], other[0]), max(one[1], other[1])
    return y1, x1, max(y1, min(one[2], other[2])), max(x1, min(one[3], other[3]))
