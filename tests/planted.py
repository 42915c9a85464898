"""A small COCO dataset that is sound, to plant errors in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 60


def rectangle(x: float, y: float, width: float = 20, height: float = 16) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


class Planted:
    """`count` images of noise, two objects each: of class "cat" (id 1) on the left, of "dog" (id 2) on the right."""

    def __init__(self, folder: Path, count: int = 4) -> None:
        self.folder, self.images, self.annotations = folder, [], []
        self.categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        rng = np.random.default_rng(0)
        for number in range(count):
            self.images.append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
            self.write(number, rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
            for category_id, x in ((1, 4), (2, 34)):
                self.annotate(number, [rectangle(x, 8 + number % 8)], category_id)

    def annotate(self, image: int, segmentation: Any, category_id: int = 1, **fields: Any) -> dict[str, Any]:
        annotation = {"id": len(self.annotations), "image_id": image, "category_id": category_id,
                      "segmentation": segmentation, "iscrowd": 0, **fields}  # fmt: skip
        self.annotations.append(annotation)
        return annotation

    def of(self, image: int) -> list[dict[str, Any]]:
        return [annotation for annotation in self.annotations if annotation["image_id"] == image]

    def path(self, image: int) -> Path:
        return self.folder / self.images[image]["file_name"]

    def read(self, image: int) -> Image.Image:
        with Image.open(self.path(image)) as picture:
            return picture.copy()

    def write(self, image: int, picture: Any, name: str | None = None, **options: Any) -> None:
        """Write another file for an image, in place of the one it has."""
        if name is not None:
            self.path(image).unlink()
            self.images[image]["file_name"] = name
        picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        picture.save(self.path(image), **options)

    def save(self, name: str = "annotations.json") -> Path:
        """The annotation file, written."""
        content = {"images": self.images, "categories": self.categories, "annotations": self.annotations}
        path = self.folder / name
        path.write_text(json.dumps(content))
        return path
