"""What every engine is: the network, run on molded images, whatever runs it.

Letters: B images, h, w molded size; C channels; A anchors, K classes (0 is background), N detections of one image.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

PRECISIONS = ("float32", "bfloat16", "int8")
_ALIASES = {"f32": "float32", "fp32": "float32", "bf16": "bfloat16"}

# The detections of one image: [N, (y1, x1, y2, x2, class id, score)] float32, boxes *normalized* in the molded image,
# best first, real ones only; and for each the mask [N, mh, mw] float32 of its class, probabilities.
Raw = tuple[np.ndarray, np.ndarray]


class EngineError(Exception):
    """An engine that is not there, or cannot do what is asked of it."""


class Engine(Protocol):
    """Runs a network. May be called from several threads at once.

    Attributes:
        name: "keras", "openvino" or "onnxruntime".
        precision: "float32", "bfloat16" or "int8": what its convolutions compute in.
        device: what it runs on, in words.
        threads: how many it uses on a CPU; None: as many as it likes.
    """

    name: str
    precision: str
    device: str
    threads: int | None

    def run(self, molded: np.ndarray, metas: np.ndarray, anchors: np.ndarray) -> list[Raw]:
        """molded [B, h, w, C], metas [B, 12 + K] and anchors [B, A, 4], normalized; all float32 -> B of `Raw`."""
        ...


def precision_name(precision: str) -> str:
    """The full name of a precision: "bfloat16" of "bf16"; "auto" stays.

    Raises:
        ValueError: there is none of that name.
    """
    name = _ALIASES.get(precision, precision)
    if name != "auto" and name not in PRECISIONS:
        raise ValueError(f"precision must be auto, {', '.join(PRECISIONS)} (or f32, bf16). Received: {precision!r}.")
    return name


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that cannot be.

    Raises:
        ValueError: below 1, or not a whole number.
    """
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise ValueError(f"threads must be a whole number from 1 on, or None. Received: {threads!r}.")


def split(detections: np.ndarray, image_index: np.ndarray, masks: np.ndarray, count: int) -> list[Raw]:
    """Detections [M, 6] and masks [M, mh, mw] of all images -> those of each of `count` images, best first.

    Args:
        image_index: [M] whole numbers, which image a detection is of.
    """
    results = []
    for index in range(count):
        own = np.flatnonzero(image_index == index)
        own = own[np.argsort(-detections[own, 5], kind="stable")]
        results.append((detections[own], masks[own]))
    return results
