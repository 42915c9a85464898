"""The photo that all candidates see: the portrait that matplotlib carries (public domain), cut and enlarged."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE = 1024


def load_photo(side: int = SIDE) -> np.ndarray:
    """[side, side, 3] uint8, RGB: the size that the networks work at, so that nobody's resizing counts."""
    import cv2
    import matplotlib.cbook

    with matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=True) as file:
        encoded = np.frombuffer(file.read(), np.uint8)
    photo = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    square = min(photo.shape[:2])
    photo = photo[:square, :square]
    return np.ascontiguousarray(cv2.resize(photo, (side, side), interpolation=cv2.INTER_CUBIC))


def saved_photo(cache: Path, side: int = SIDE) -> Path:
    """The photo as a `.npy` file in the cache folder, which workers without matplotlib can read."""
    path = cache / f"photo_{side}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, load_photo(side))
    return path
