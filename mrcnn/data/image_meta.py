"""ImageMeta: what became of an image on its way into the network; the one owner of the meta array's layout.

Letters: B images, K classes (0 is background). As an array: image id, original shape (h, w, c), molded shape
(h, w, c), window (y1, x1, y2, x2) in pixels of the molded image, scale, then one flag for each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Column ranges of the array; the flags of the classes fill the rest.
_COLUMNS = {
    "image_id": slice(0, 1),
    "original_image_shape": slice(1, 4),
    "image_shape": slice(4, 7),
    "window": slice(7, 11),
    "scale": slice(11, 12),
}
_COLUMNS_WITHOUT_CLASSES = 12
_SCALARS = ("image_id", "scale")


@dataclass(frozen=True)
class ImageMeta:
    """One image's journey.

    Attributes:
        image_id: the dataset's index of the image; 0 at inference.
        original_image_shape: (height, width, channels) before resizing and padding.
        image_shape: (height, width, channels) of the molded image.
        window: (y1, x1, y2, x2) in pixels: the part of the molded image that is not padding.
        scale: the factor that the image was resized by.
        active_class_ids: [K] flags of the classes that the image's source annotates.
    """

    image_id: int
    original_image_shape: Sequence[int]
    image_shape: Sequence[int]
    window: Sequence[int]
    scale: float
    active_class_ids: Sequence[int]

    @staticmethod
    def size(num_classes: int) -> int:
        """Length of the array for `num_classes` classes, the background included."""
        return _COLUMNS_WITHOUT_CLASSES + num_classes

    @staticmethod
    def columns(name: str) -> slice:
        """Which columns of the array hold a field."""
        return _COLUMNS[name]

    def to_array(self) -> np.ndarray:
        """The array [12 + K], float64.

        legacy: the original's array was of whole numbers wherever the scale happened to be the integer 1, and
        cut the fractions off other images' scales in its batch; this one is always float.

        Raises:
            ValueError: a field of the wrong length.
        """
        parts = []
        for name, columns in _COLUMNS.items():
            values = np.atleast_1d(np.asarray(getattr(self, name), np.float64))
            wanted = columns.stop - columns.start
            if values.shape != (wanted,):
                raise ValueError(f"{name} must hold {wanted} number(s). Received: {getattr(self, name)!r}.")
            parts.append(values)
        return np.concatenate([*parts, np.asarray(self.active_class_ids, np.float64).ravel()])

    @classmethod
    def from_array(cls, meta: np.ndarray) -> ImageMeta:
        """The inverse of `to_array`: meta [12 + K] of any number type."""
        fields = cls.parse(np.asarray(meta)[None])
        return cls(
            image_id=int(fields["image_id"][0]),
            original_image_shape=tuple(fields["original_image_shape"][0].tolist()),
            image_shape=tuple(fields["image_shape"][0].tolist()),
            window=tuple(fields["window"][0].tolist()),
            scale=float(meta[_COLUMNS["scale"].start]),
            active_class_ids=tuple(fields["active_class_ids"][0].tolist()),
        )

    @staticmethod
    def parse(meta: Any) -> dict[str, Any]:
        """The fields of a batch of metas.

        Args:
            meta: [B, 12 + K], a numpy array or a tensor of any backend.

        Returns:
            A dict of image_id [B], original_image_shape [B, 3], image_shape [B, 3], window [B, 4], scale [B]
            and active_class_ids [B, K]. Of a numpy array: int32, scale float32. Of a tensor: its own type.
        """
        fields = {
            name: meta[:, columns.start] if name in _SCALARS else meta[:, columns] for name, columns in _COLUMNS.items()
        }
        fields["active_class_ids"] = meta[:, _COLUMNS_WITHOUT_CLASSES:]
        if isinstance(meta, np.ndarray):
            fields = {k: v.astype(np.float32 if k == "scale" else np.int32) for k, v in fields.items()}
        return fields
