"""What both sides train on and are measured on, and what they found, as files that need numpy alone.

Letters: N objects, H, W sides of an image.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TILE = 320  # training images: square parts of the left halves, which overlap
ANCHOR_SIDES = (24, 32, 48, 64, 128)  # one for each level of the pyramid, for nuclei 24 to 45 pixels across
DETECTIONS = 200  # at most, in an image; there are up to 110 nuclei
MIN_SCORE = 0.05


class Clock:
    """How far a training has come, which may take so long, or so many steps.

    Args:
        minutes: of wall-clock time, from now on.
        steps: where the time does not matter.
    """

    def __init__(self, minutes: float | None = None, steps: int | None = None) -> None:
        self._seconds, self._steps = None if minutes is None else 60.0 * minutes, steps
        self._start = time.perf_counter()
        self.steps = 0

    def step(self) -> None:
        """Count a step that has been done."""
        self.steps += 1

    @property
    def passed(self) -> float:
        """Seconds that have passed."""
        return time.perf_counter() - self._start

    @property
    def share(self) -> float:
        """Of the time or the steps, what has passed: from 0 to 1, where they are up."""
        share = self.steps / self._steps if self._seconds is None else self.passed / self._seconds
        return min(share, 1.0)


def write_data(path: Path) -> None:
    """The nuclei of `mrcnn.nuclei`: tiles of the left halves to train on, whole right halves to be measured on."""
    from mrcnn.nuclei import HelaNuclei, fetch_hela

    folder = fetch_hela()
    train, test = HelaNuclei(folder, "left", tile=TILE), HelaNuclei(folder, "right")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        train_images=np.stack([train.load_image(i)[..., 0] for i in train.image_ids]),
        train_labels=np.stack([label_map(train.load_mask(i)[0]) for i in train.image_ids]),
        test_images=np.stack([test.load_image(i)[..., 0] for i in test.image_ids]),
    )


def label_map(masks: np.ndarray) -> np.ndarray:
    """masks [H, W, N] bool, which do not overlap -> [H, W] int16: 0, or the number of the object, from 1 on."""
    return (masks * np.arange(1, masks.shape[-1] + 1, dtype=np.int16)).sum(axis=-1, dtype=np.int16)


def masks_of(labels: np.ndarray) -> np.ndarray:
    """The inverse of `label_map`, with the objects first: [N, H, W] bool."""
    return labels == np.arange(1, labels.max() + 1)[:, None, None]


def write_found(path: Path, found: Sequence[dict[str, np.ndarray]]) -> None:
    """Keep the results of images, as `mrcnn.Detector.detect` gives them."""
    arrays = {}
    for number, result in enumerate(found):
        arrays[f"{number}_rois"], arrays[f"{number}_scores"] = result["rois"], result["scores"]
        arrays[f"{number}_shape"] = np.array(result["masks"].shape)
        arrays[f"{number}_masks"] = np.packbits(result["masks"])
    np.savez_compressed(path, **arrays)


class Found:
    """Results of `write_found`, as a model that gives them in their order."""

    def __init__(self, path: Path) -> None:
        self._arrays = dict(np.load(path))
        self._next = 0

    def detect(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The results of the next images."""
        results = []
        for _ in images:
            rois, scores, shape, masks = (
                self._arrays[f"{self._next}_{name}"] for name in ("rois", "scores", "shape", "masks")
            )
            results.append(
                {
                    "rois": rois,
                    "scores": scores,
                    "class_ids": np.ones(len(rois), np.int32),
                    "masks": np.unpackbits(masks, count=int(np.prod(shape))).reshape(shape).astype(bool),
                }
            )
            self._next += 1
        return results
