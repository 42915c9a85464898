"""Dataset: which images and classes there are, and how an image and its masks are loaded.

Letters: H, W sides of an image in pixels, N instances, K classes (0 is the background, "BG").
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from mrcnn.data.images import read_image


class DatasetError(ValueError):
    """A dataset that was put together wrongly, or holds what cannot be used. The message says what and
    where."""


class Dataset:
    """Images, classes and masks. Subclass it, add classes and images, override `load_mask`, then call
    `prepare`:

        class BalloonDataset(Dataset):
            def load_balloons(self, files):
                self.add_class("balloon", 1, "balloon")
                for file in files:
                    self.add_image("balloon", image_id=file.name, path=file)

            def load_mask(self, image_id):
                ...

    Several *sources* may stand side by side: each class and image belongs to one, and training asks of an
    image only the classes of its own source. A class is known outside by its source and the id it has there,
    inside by a number from 0 to K - 1; an image by its place in `image_info`.

    Args:
        class_map: kept for the signature's sake; it has no effect.
    """

    def __init__(self, class_map: Any = None) -> None:
        _warn_of_class_map(class_map)
        self.class_info: list[dict[str, Any]] = [{"source": "", "id": 0, "name": "BG"}]
        self.image_info: list[dict[str, Any]] = []
        self.source_class_ids: dict[str, list[int]] = {}
        self._image_ids = np.arange(0)

    def add_class(self, source: str, class_id: Any, class_name: str) -> None:
        """Add a class. One that is there already (same source and id) stays as it is.

        Args:
            source: name of the source, without a dot.
            class_id: the id that the source gives it: a number or text.
            class_name: for people to read.

        Raises:
            DatasetError: a dot in `source`.
        """
        if "." in source:
            raise DatasetError(f"A source's name must not contain a dot. Received: {source!r}.")
        for info in self.class_info:
            if info["source"] == source and info["id"] == class_id:
                if info["name"] != class_name:
                    warnings.warn(
                        f"Class {class_id} of source {source!r} is named {info['name']!r} already; "
                        f"the name {class_name!r} is not used.",
                        stacklevel=2,
                    )
                return
        self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str, image_id: Any, path: Any, **kwargs: Any) -> None:
        """Add an image.

        Args:
            source: name of its source.
            image_id: the id that the source gives it.
            path: its file, or None where `load_image` is overridden.
            **kwargs: kept beside these in `image_info`, for `load_mask` to use.
        """
        self.image_info.append({"id": image_id, "source": source, "path": path, **kwargs})

    def prepare(self, class_map: Any = None) -> None:
        """Number the classes and images. Call it once all are added, and again when more were.

        Sets `num_classes`, `class_ids`, `class_names` (up to the first comma), `num_images`, `image_ids`,
        `sources`, `class_from_source_map` and `image_from_source_map` ("source.id" -> number) and
        `source_class_ids` (source -> numbers of its classes, the background's among them).
        """
        _warn_of_class_map(class_map)
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes)
        self.class_names = [str(info["name"]).split(",")[0] for info in self.class_info]
        self.num_images = len(self.image_info)
        self._image_ids = np.arange(self.num_images)
        self.class_from_source_map = {_key(info): i for i, info in enumerate(self.class_info)}
        self.image_from_source_map = {_key(info): i for i, info in enumerate(self.image_info)}
        # A source without classes of its own is one all of whose images are background.
        self.sources = list(dict.fromkeys(info["source"] for info in (*self.class_info, *self.image_info)))
        self.source_class_ids = {
            source: [i for i, info in enumerate(self.class_info) if i == 0 or info["source"] == source]
            for source in self.sources
        }

    @property
    def image_ids(self) -> np.ndarray:
        """Numbers of the images, [num_images] integers; empty before `prepare`."""
        return self._image_ids

    def map_source_class_id(self, source_class_id: str) -> int:
        """The number of the class that a source knows as, for example, "coco.18".

        Raises:
            DatasetError: no such class.
        """
        try:
            return self.class_from_source_map[source_class_id]
        except KeyError:
            known = ", ".join(list(self.class_from_source_map)[1:11])
            raise DatasetError(f"No class {source_class_id!r}. Some that are known: {known or 'none'}.") from None

    def get_source_class_id(self, class_id: int, source: str) -> Any:
        """The id that `source` gives to class number `class_id`; the inverse of `map_source_class_id`.

        Raises:
            DatasetError: no such class, or one of another source.
        """
        if not 0 <= class_id < len(self.class_info):
            raise DatasetError(f"Class numbers run from 0 to {len(self.class_info) - 1}. Received: {class_id}.")
        info = self.class_info[class_id]
        if info["source"] != source:
            raise DatasetError(f"Class {class_id} ({info['name']}) is of source {info['source']!r}, not {source!r}.")
        return info["id"]

    def source_image_link(self, image_id: int) -> Any:
        """Path or address of the image."""
        return self._image(image_id)["path"]

    def image_reference(self, image_id: int) -> str:
        """What to call the image in a message: its path, else its source and the id it has there."""
        info = self._image(image_id)
        return str(info["path"]) if info["path"] is not None else f"{info['source']}.{info['id']}"

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, [H, W, 3] uint8 RGB; see `mrcnn.data.images.read_image` for what becomes of other kinds.

        Override it for images that are not files, or have other channels: [H, W, C] with C =
        IMAGE_CHANNEL_COUNT.

        Raises:
            FileNotFoundError, ImageError: naming the file.
            DatasetError: the image has no path.
        """
        info = self._image(image_id)
        if info["path"] is None:
            raise DatasetError(
                f"Image {image_id} ({self.image_reference(image_id)}) has no path: give add_image one, "
                "or override load_image."
            )
        return read_image(info["path"])

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The image's instances. To be overridden: this one warns and has none.

        Returns:
            masks: [H, W, N] bool, one layer for each instance.
            class_ids: [N] int32, numbers of their classes; negative for a crowd (a region of many instances
                of that class, from which no background is learned).
        """
        name = type(self).__name__
        if type(self).load_mask is Dataset.load_mask:
            told = f"{name} does not override load_mask: its images have no objects."
        else:
            told = f"{name}.load_mask leaves images to Dataset.load_mask: those have no objects."
        warnings.warn(told, stacklevel=2)
        return np.zeros((0, 0, 0), bool), np.zeros(0, np.int32)

    def _image(self, image_id: int) -> dict[str, Any]:
        if not 0 <= image_id < len(self.image_info):
            raise DatasetError(
                f"Image numbers run from 0 to {len(self.image_info) - 1} in this dataset. Received: {image_id}."
                if self.image_info
                else f"The dataset has no images. Received: image {image_id}."
            )
        return self.image_info[image_id]


def number_classes(dataset: Dataset, names: Iterable[str], annotations: str, owner: str) -> None:
    """Number the classes of a dataset as a network has them, by name, and prepare it. Classes that the network has and
    the dataset lacks keep their numbers.

    Args:
        dataset: of one source.
        names: [K], the background's first.
        annotations: the dataset's file, for messages.
        owner: whose classes `names` are, for messages.

    Raises:
        DatasetError: the dataset has classes that the network lacks, or two of one name.
    """
    there = {str(info["name"]).split(",")[0]: info for info in dataset.class_info[1:]}
    if len(there) < len(dataset.class_info) - 1:
        raise DatasetError(f"{annotations} has several categories of one name, so they cannot be matched by name.")
    names = list(names)[1:]
    strange = [name for name in there if name not in names]
    if strange:
        raise DatasetError(
            f"{annotations} has classes that {owner} does not know: {_some(strange)}. It knows: {_some(names)}. "
            "Give its classes the same names (--classes)."
        )
    source = dataset.image_info[0]["source"]
    ids = {info["id"] for info in there.values()}
    spare = (number for number in range(1, len(names) + len(ids) + 1) if number not in ids)
    dataset.class_info[1:] = [there.get(name) or {"source": source, "id": next(spare), "name": name} for name in names]
    dataset.prepare()


def _key(info: dict[str, Any]) -> str:
    return f"{info['source']}.{info['id']}"


def _warn_of_class_map(class_map: Any) -> None:
    if class_map is not None:
        warnings.warn("class_map has no effect.", stacklevel=3)


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
