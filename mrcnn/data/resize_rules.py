"""How images are resized and padded, where recipes differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mrcnn.config import SIZE_MULTIPLE


@dataclass(frozen=True)
class Rules:
    """How an image is fitted where recipes differ. The defaults are the original's.

    Attributes:
        interpolation: see `Config.IMAGE_INTERPOLATION`.
        rounding: of scaled sides: "even" (a half goes to the even side), "up" (it goes up) or "down" (all goes down).
        multiple: sides in mode "shortest" are multiples of this.
        corner: whether the image lies in the upper left corner, or in the middle.
        canvas: (height, width) that images of mode "shortest" are padded to, for training; None: to `multiple`.
    """

    interpolation: str = "legacy"
    rounding: str = "even"
    multiple: int = SIZE_MULTIPLE
    corner: bool = False
    canvas: Sequence[int] | None = None

    @classmethod
    def of(cls, config: Any, canvas: Sequence[int] | None = None) -> Rules:
        """What a `Config` says."""
        nearest = "up" if config.IMAGE_RESIZE_MODE == "shortest" else "even"
        return cls(
            config.IMAGE_INTERPOLATION,
            "down" if config.IMAGE_ROUND_DOWN else nearest,
            config.IMAGE_SIZE_MULTIPLE,
            bool(config.IMAGE_PAD_CORNER),
            canvas,
        )

    def scaled(self, size: int, scale: float) -> int:
        """A side of an image or a mask after scaling; a sliver keeps one pixel."""
        sides = {"even": round, "up": lambda side: math.floor(side + 0.5), "down": math.floor}
        return max(1, sides[self.rounding](size * scale))


ORIGINAL = Rules()
