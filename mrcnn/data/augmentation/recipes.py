"""Augmentations by name: what `Config.AUGMENTATION` and `mrcnn train --augment` stand for."""

from __future__ import annotations

from mrcnn.config import AUGMENTATIONS
from mrcnn.data.augmentation.color import Color
from mrcnn.data.augmentation.copy_paste import CopyPaste
from mrcnn.data.augmentation.geometry import Flip, ScaleJitter
from mrcnn.data.augmentation.protocol import Augmentation, Compose


def recipe(name: str) -> Augmentation | None:
    """An augmentation by its name.

    Args:
        name: "none"; "flip": left-right, half of the images; "standard": that, other colors, and scaled by 0.8 to 1.25;
            "strong": scaled by 0.1 to 2 instead, and in half of the images objects of others, changed likewise, pasted.

    Returns:
        The augmentation; None for "none".

    Raises:
        ValueError: no such name.
    """
    if name == "none":
        return None
    if name == "flip":
        return Flip()
    if name == "standard":
        return Compose([Color(), Flip(), ScaleJitter((0.8, 1.25))])
    if name == "strong":
        jitter = Compose([Color(), Flip(), ScaleJitter((0.1, 2.0))])
        return Compose([jitter, CopyPaste(0.5, other=jitter)])
    raise ValueError(f"There are the augmentations {', '.join(AUGMENTATIONS)}. Received: {name!r}.")
