"""How far the detections of an engine lie from those of another, over many images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcnn.agreement import Differences


def summary(images: Sequence[Differences]) -> dict[str, Any]:
    """The numbers of detections of all images together, and how far those that match lie apart.

    Boxes in pixels: `box_median`, `box_95` (the 95th percentile) and `box_largest` of those that end inside the image,
    `border_largest` of the `border` others. Scores and masks: of all, likewise.
    """
    boxes, scores, masks, border = (
        np.concatenate([getattr(one, name) for one in images]) for name in ("boxes", "scores", "masks", "border")
    )
    told: dict[str, Any] = {
        "detections": sum(one.found for one in images),
        "of": sum(one.expected for one in images),
        "matched": len(boxes),
        "border": int(border.sum()),
        "border_largest": float(boxes[border].max(initial=0)),
    }
    for name, values in (("box", boxes[~border]), ("score", scores), ("mask", masks)):
        median, most = np.percentile(values, [50, 95]) if len(values) else (0.0, 0.0)
        told |= {f"{name}_median": float(median), f"{name}_95": float(most)}
        told[f"{name}_largest"] = float(values.max(initial=0))
    return told
