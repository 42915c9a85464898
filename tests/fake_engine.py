"""An engine without a network: what it finds follows from the molded image's pixels. It imports numpy alone."""

from __future__ import annotations

import threading
import time
import zlib

import numpy as np


class FakeEngine:
    """Finds up to `most` objects in each image: which, a checksum of its pixels decides.

    Attributes:
        batches: shape of the molded images of each run.
        running: set while a run waits for `go_on`.
    """

    name, precision, device, threads = "fake", "float32", "CPU", None

    def __init__(self, num_classes: int = 4, most: int = 12, seconds: float = 0.0) -> None:
        self.num_classes, self.most, self.seconds = num_classes, most, seconds
        self.batches: list[tuple[int, ...]] = []
        self.anchors: list[tuple[int, ...]] = []
        self.lock = threading.Lock()

    def run(self, molded, metas, anchors):
        if molded.dtype != np.float32 or metas.dtype != np.float32 or len(anchors) != len(molded) != len(metas):
            raise TypeError(f"not what engines are given: {molded.dtype}, {metas.dtype}, {len(anchors)}")
        with self.lock:
            self.batches.append(molded.shape)
            self.anchors.append(anchors.shape)
        time.sleep(self.seconds)
        return [self._found(image, meta) for image, meta in zip(molded, metas, strict=True)]

    def _found(self, image, meta):
        rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(image)))
        count = int(rng.integers(1, self.most + 1))
        (height, width), (y1, x1, y2, x2) = image.shape[:2], meta[7:11]
        low = np.array([y1 / (height - 1), x1 / (width - 1)])
        room = np.array([(y2 - 1) / (height - 1), (x2 - 1) / (width - 1)]) - low
        corners = np.sort(rng.random((2, count, 2)), axis=0) * room + low
        rows = np.zeros((count, 6), np.float32)
        rows[:, :2], rows[:, 2:4] = corners
        rows[:, 4] = rng.integers(1, self.num_classes, count)
        rows[:, 5] = np.sort(rng.random(count))[::-1]
        y, x = np.mgrid[-1:1:28j, -1:1:28j]
        radius = rng.uniform(0.5, 1.2, (count, 1, 1))
        return rows, (1 / (1 + np.exp(-9 * (radius - np.hypot(y, x))))).astype(np.float32)


class BrokenEngine(FakeEngine):
    """Fails from a run on, counted from 0."""

    def __init__(self, at: int, **values) -> None:
        super().__init__(**values)
        self.at = at

    def run(self, molded, metas, anchors):
        if len(self.batches) >= self.at:
            raise RuntimeError("the accelerator is on fire")
        return super().run(molded, metas, anchors)
