"""Datasets in the COCO format: one JSON file of images, categories and annotations beside a folder of images.

Letters: H, W sides of an image in pixels, N instances. The format: https://cocodataset.org/#format-data,
"object detection". Everything is checked when a file is loaded, and every complaint names the file and the
annotation. What other formats say comes in the same form, see `mrcnn.data.formats`.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np

from mrcnn.data.content import Content, some
from mrcnn.data.dataset import Dataset, DatasetError
from mrcnn.data.images import read_image
from mrcnn.data.mask_boxes import empty_masks
from mrcnn.data.segmentations import segmentation_crop


class CocoDataset(Dataset):
    """Images and instances of COCO files. Call `load_coco` once or more, then `prepare`.

    `image_info` of each image holds, beside id, source and path, its `height`, `width` and `annotations`, and its
    `frame` where it is one of several in its file.
    """

    def load_coco(
        self,
        annotation_file: str | PathLike[str],
        image_dir: str | PathLike[str],
        class_ids: Iterable[int | str] | None = None,
        source: str = "coco",
    ) -> None:
        """Add the images and categories of an annotation file. Images without annotations are added too.

        Several files may be added one after another, such as the parts of one set; their categories must
        agree.

        Args:
            annotation_file: the JSON file.
            image_dir: the folder that its `file_name`s are in.
            class_ids: categories to take, by id or name; annotations of the others are left out, the images
                stay. None: all.
            source: the name of the source. Files whose category ids mean different things need different
                ones.

        Raises:
            FileNotFoundError: the file, the folder, or images are missing; all missing images are counted.
            DatasetError: the file is malformed, or does not agree with one loaded before.
        """
        from mrcnn.data.formats.coco import read_coco

        content = read_coco(Path(annotation_file), Path(image_dir))
        content.require_sound()
        self.add_content(content, class_ids, source)

    def add_content(
        self, content: Content, class_ids: Iterable[int | str] | None = None, source: str | None = None
    ) -> None:
        """Add the images and categories of a content, whatever the format it was read from. Its problems are not
        looked at: see `Content.require_sound`.

        Args:
            content: see `mrcnn.data.formats.read_content`.
            class_ids: categories to take, by id or name; annotations of the others are left out, the images
                stay. None: all.
            source: the name of the source. None: that of the format.

        Raises:
            DatasetError: unknown `class_ids`; categories do not agree with some added before.
        """
        source = content.format if source is None else source
        categories = {category["id"]: str(category["name"]) for category in content.categories}
        if class_ids is not None:
            categories = _subset(categories, class_ids, content.path)
        known = {info["id"]: info["name"] for info in self.class_info if info["source"] == source}
        for category_id, name in categories.items():
            if known.get(category_id, name) != name:
                raise DatasetError(
                    f"Category {category_id} is {name!r} in {content.path}, but {known[category_id]!r} in a file "
                    f"loaded before as source {source!r}: load this file with another source."
                )
        for category_id in sorted(categories):
            self.add_class(source, category_id, categories[category_id])
        of_image: dict[int | str, list] = {image["id"]: [] for image in content.images}
        for annotation in content.annotations:
            if annotation["category_id"] in categories:
                of_image[annotation["image_id"]].append(annotation)
        for image in content.images:
            self.add_image(
                source,
                image["id"],
                str(content.image_path(image)),
                height=image["height"],
                width=image["width"],
                annotations=of_image[image["id"]],
                **({"frame": image["frame"]} if "frame" in image else {}),
            )

    def load_image(self, image_id: int) -> np.ndarray:
        """The image, [H, W, 3] uint8 RGB, in the size that its annotations are made for.

        Annotation tools differ on whether they heed a photo's EXIF orientation: the size that comes with the
        annotations tells.

        Raises:
            FileNotFoundError, ImageError: naming the file.
            DatasetError: the file has another size than its annotations say.
        """
        info = self._image(image_id)
        if "annotations" not in info:
            return super().load_image(image_id)
        frame = info.get("frame", 0)
        image = read_image(info["path"], frame=frame)
        wanted = (info["height"], info["width"])
        if image.shape[:2] == wanted:
            return image
        stored = read_image(info["path"], apply_orientation=False, frame=frame)
        if stored.shape[:2] == wanted:
            return stored
        raise DatasetError(
            f"{info['path']} is {image.shape[0]} pixels high and {image.shape[1]} wide, but its "
            "annotations are for "
            f"{wanted[0]} x {wanted[1]} (height x width)."
        )

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The image's instances; see `Dataset.load_mask`. Crowds have negative class ids. Instances too small
        to cover a pixel are left out."""
        info = self._image(image_id)
        if "annotations" not in info:
            return super().load_mask(image_id)
        height, width = info["height"], info["width"]
        crops, class_ids = [], []
        for annotation in info["annotations"]:
            crop = segmentation_crop(annotation["segmentation"], height, width)
            if crop[0].size == 0:
                continue
            class_id = self.map_source_class_id(f"{info['source']}.{annotation['category_id']}")
            class_ids.append(-class_id if annotation.get("iscrowd") else class_id)
            crops.append(crop)
        masks = empty_masks(height, width, len(crops))
        for i, (crop, top, left) in enumerate(crops):
            masks[top : top + crop.shape[0], left : left + crop.shape[1], i] = crop
        return masks, np.array(class_ids, np.int32)


def _subset(categories: dict[int, str], wanted: Iterable[int | str], path: Path) -> dict[int, str]:
    by_name = {name: category_id for category_id, name in categories.items()}
    wanted = [wanted] if isinstance(wanted, int | str) else list(wanted)
    chosen = {by_name.get(key, key) for key in wanted}
    unknown = [key for key in wanted if by_name.get(key, key) not in categories]
    if unknown:
        known = [f"{category_id} ({name})" for category_id, name in categories.items()]
        raise DatasetError(f"{path} has no category {', '.join(map(repr, unknown))}. It has: {some(known, 100)}")
    return {category_id: name for category_id, name in categories.items() if category_id in chosen}
