"""Readers of what annotation tools write: each makes a `Content` of it, and which one it takes is recognized."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from mrcnn.data.coco import CocoDataset
from mrcnn.data.content import Content
from mrcnn.data.dataset import DatasetError, number_classes
from mrcnn.data.formats.coco import read_coco
from mrcnn.data.formats.cvat import read_cvat
from mrcnn.data.formats.labelme import read_labelme
from mrcnn.data.formats.mask_files import read_mask_files
from mrcnn.data.formats.recognition import recognize
from mrcnn.data.formats.via import read_via
from mrcnn.data.formats.voc import read_voc
from mrcnn.data.formats.yolo import read_yolo


def read_content(
    path: str | PathLike[str],
    images: str | PathLike[str] | None = None,
    format: str | None = None,
    split: str | None = None,
    class_attribute: str | None = None,
) -> Content:
    """Read a dataset of any of the formats, with whatever is wrong with it.

    Args:
        path: an annotation file, or a folder; see docs/data.md for what each format needs.
        images: the folder of its images. None: where the format has them.
        format: coco, via, labelme, yolo, voc, masks or cvat. None: recognized.
        split: the part of the set, such as "train" or "val", where a format or a folder has one for each; others are
            taken whole. None: all parts.
        class_attribute: of VIA, the region attribute that names the class, where there are several.

    Raises:
        FileNotFoundError: there is no such file or folder.
        DatasetError: it is of no format that is known, or no entry of it can be read. Lesser things are among the
            content's `problems`.
    """
    found = recognize(Path(path), format, split)
    folder = None if images is None else Path(images)
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"No such folder of images: {folder}")
    if class_attribute is not None and found.format != "via":
        raise DatasetError(f"A class attribute is a thing of VIA, and {path} is of the format {found.format!r}.")
    if found.format == "coco":
        return read_coco(found.path, folder, found.parsed)
    if found.format == "labelme":
        return read_labelme(found.path, folder, found.parsed)
    if found.format == "via":
        return read_via(found.path, folder, found.parsed, class_attribute)
    if found.format == "cvat":
        return read_cvat(found.path, folder)
    if found.format == "masks":
        return read_mask_files(found.path, folder)
    return {"yolo": read_yolo, "voc": read_voc}[found.format](found.path, folder, split)


def load_dataset(
    path: str | PathLike[str],
    images: str | PathLike[str] | None = None,
    format: str | None = None,
    split: str | None = None,
    class_attribute: str | None = None,
    class_names: Sequence[str] | None = None,
) -> CocoDataset:
    """A dataset of any of the formats, prepared.

        train_set = mrcnn.load_dataset("train.json", "photos")
        val_set = mrcnn.load_dataset("val.json", "photos", class_names=train_set.class_names)

    Args:
        path, images, format, split, class_attribute: see `mrcnn.data.formats.read_content`.
        class_names: number the classes as these are, the background's first: those of the dataset that was trained on.
            None: in the order that the file has, else by name.

    Raises:
        FileNotFoundError: the file, the folder, or images are missing.
        DatasetError: something cannot be used; the first few are told. Classes that are not among `class_names`.
    """
    content = read_content(path, images, format, split, class_attribute)
    content.require_sound()
    if not content.images:
        raise DatasetError(f"{path} lists no images.")
    dataset = CocoDataset()
    dataset.add_content(content)
    if class_names is None:
        dataset.prepare()
    else:
        number_classes(dataset, class_names, str(path), "class_names")
    return dataset
