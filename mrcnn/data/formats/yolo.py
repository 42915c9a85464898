"""YOLO's segmentation labels: a text file beside each image, a line "class x1 y1 x2 y2 ..." for each instance.

Coordinates are shares of the image's width and height, upright as viewers show it. A data.yaml, or a classes.txt, names
the classes. What Ultralytics trains on, and what Roboflow, Label Studio and CVAT export as "YOLO segmentation".
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn.data.content import Content, Kind, short, some
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats.building import Builder
from mrcnn.data.formats.files import find_image, read_text, watched
from mrcnn.data.image_lists import is_image
from mrcnn.data.segmentations import SegmentationError

_YAML = (".yaml", ".yml")
_CLASS_LISTS = ("classes.txt", "obj.names")
_SPLITS = ("train", "val", "valid", "test")
# How far outside its image a point may lie, in shares of it. Those in pixels lie farther.
_OUTSIDE = 0.5
_MOST_CLASSES = 100_000
# A line of a label file has the class and at least a box.
_LEAST_WORDS = 5


@dataclass
class _Layout:
    """Where things are: folders of images and lists of images, by the part of the set, and names of the classes."""

    root: Path
    splits: dict[str, list[Path]]
    names: list[str] | None = None


def is_yolo(path: Path) -> bool:
    """Whether a file or folder is meant as a dataset in this layout."""
    if path.suffix.lower() in _YAML:
        return path.is_file()
    if not path.is_dir():
        return False
    if _yaml_of(path) is not None:
        return True
    folder = path / "images" if (path / "images").is_dir() else path
    labels = _with_labels(folder)
    if labels != folder:
        return labels.is_dir() and any(labels.rglob("*.txt"))
    return any(file.with_suffix(".txt").is_file() for file in path.glob("*") if is_image(file))


def read_yolo(path: Path, images: Path | None = None, split: str | None = None) -> Content:
    """Read a dataset.

    An image without a label file has no objects.

    Args:
        path: data.yaml, a folder that has it or `images` and `labels`, or a folder of images of one part of the set.
        images: the folder of the images. None: where the layout says.
        split: "train", "val" or "test", where data.yaml tells these apart. None: all of them.

    Raises:
        FileNotFoundError: there is no such file or folder.
        DatasetError: it is not in this layout; there is no label file at all.
    """
    layout = _layout(path)
    if images is not None:
        layout.splits = {"": [images]}
    chosen = layout.splits
    if split is not None and len(chosen) > 1:
        names = ("val", "valid", "validation") if split == "val" else (split,)
        chosen = {name: folders for name, folders in chosen.items() if name in names}
        if not chosen:
            raise DatasetError(f"{path} has no part {split!r}. It has: {', '.join(layout.splits)}.")
    # Of a set that is not split, train and val are often the same folder.
    files = list(dict.fromkeys(file for folders in chosen.values() for folder in folders for file in _images(folder)))
    if not files:
        where = [str(folder) for folders in chosen.values() for folder in folders]
        raise DatasetError(f"{path}: there are no images in {some(where) if where else 'it.'}")
    labels = [_label_file(file) for file in files]
    if not any(label.is_file() for label in labels):
        raise DatasetError(f"{path}: none of the {len(files)} images has a label file, such as {labels[0]}.")
    builder = Builder("yolo", path, layout.root, layout.names or _numbers(labels))
    if layout.names is None:
        message = "there is no data.yaml or classes.txt: the classes are named by their numbers."
        builder.report(path, "", Kind.CATEGORY, message, is_error=False)
    for file, label in watched(list(zip(files, labels, strict=True)), "reading labels"):
        image = builder.add_image(file if file.is_file() else None, label, str(file))
        if image is not None and label.is_file():
            _add_labels(builder, image, label)
    for label in _unclaimed([folder for folders in chosen.values() for folder in folders], labels):
        message = "there is no image of this name: its labels are left out."
        builder.report(label, "", Kind.MISSING_IMAGE, message, is_error=False)
    return builder.finish()


def _unclaimed(folders: list[Path], labels: list[Path]) -> list[Path]:
    """Label files that no image has. Lists of images choose some of a folder, so theirs are not looked for."""
    within = {_with_labels(folder) if _with_labels(folder).is_dir() else folder for folder in folders}
    files = {file for folder in within if folder.is_dir() for file in folder.rglob("*.txt")}
    return [file for file in sorted(files - set(labels)) if _holds_labels(file)]


def _holds_labels(file: Path) -> bool:
    """Whether a text file's first line is one of a label file: names of classes and lists of images are not."""
    if file.name.startswith(".") or not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as lines:
        words = lines.readline(1000).split()[:_LEAST_WORDS]
    try:
        return len([float(word) for word in words]) == _LEAST_WORDS
    except ValueError:
        return False


def _add_labels(builder: Builder, image: dict[str, Any], label: Path) -> None:
    try:
        lines = read_text(label).splitlines()
    except DatasetError as error:
        builder.report(label, "", Kind.FILE, str(error).removeprefix(f"{label} "))
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            entry = f"line {number}"
            try:
                name, polygon = _instance(line, builder.names or [], image["width"], image["height"])
            except SegmentationError as error:
                builder.reject(label, entry, error.kind, str(error))
            else:
                builder.add_instance(image, name, [polygon], label, entry)


def _instance(line: str, names: list[str], width: int, height: int) -> tuple[str, list[float]]:
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        message = f"must be numbers, 'class x1 y1 x2 y2 x3 y3 ...'. Received: {short(line)}."
        raise SegmentationError(Kind.COORDINATES, message)
    if len(values) == 5:
        message = "is a box, 'class x y width height'. An instance needs an outline: at least three points."
        raise SegmentationError(Kind.SHAPE, message)
    if len(values) < 7 or len(values) % 2 == 0:
        message = f"needs a class, and x and y of three points or more. Received: {len(values)} numbers."
        raise SegmentationError(Kind.POINTS, message)
    number, points = values[0], values[1:]
    if number != int(number) or not 0 <= number < len(names):
        message = f"is of class {number:g}. There are classes from 0 to {len(names) - 1}."
        raise SegmentationError(Kind.CLASS, message)
    farthest = max(points, key=lambda value: abs(value - 0.5))
    if abs(farthest - 0.5) > 0.5 + _OUTSIDE:
        message = f"has a coordinate of {farthest:g}. They must be shares of the image's sides, from 0 to 1."
        raise SegmentationError(Kind.COORDINATES, message)
    return names[int(number)], [value * side for value, side in zip(points, (width, height) * (len(points) // 2),
                                                                  strict=True)]  # fmt: skip


def _numbers(labels: list[Path]) -> list[str]:
    """Names for classes that have none: all numbers up to the highest in the label files."""
    highest = 0
    for label in labels:
        try:
            lines = read_text(label).splitlines() if label.is_file() else []
        except DatasetError:
            continue  # told when its lines are read
        words = (line.split(maxsplit=1)[0] for line in lines if line.strip())
        highest = max([highest, *(int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 6)])
    return [str(number) for number in range(min(highest, _MOST_CLASSES) + 1)]


def _layout(path: Path) -> _Layout:
    if path.suffix.lower() in _YAML:
        return _from_yaml(path)
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}")
    if not path.is_dir():
        raise DatasetError(f"{path} is not in YOLO's layout: it must be a folder, or a file such as data.yaml.")
    file = _yaml_of(path)
    if file is not None:
        return _from_yaml(file)
    folder = path / "images" if (path / "images").is_dir() else path
    parts = {name: [folder / name] for name in _SPLITS if (folder / name).is_dir()}
    # Names of the classes stand beside the images or in a folder above.
    for above in (path, *path.resolve().parents[:3]):
        if (above / "data.yaml").is_file():
            return _Layout(path, parts or {"": [folder]}, _from_yaml(above / "data.yaml").names)
        for name in _CLASS_LISTS:
            if (above / name).is_file():
                names = [line.strip() for line in read_text(above / name).splitlines() if line.strip()]
                return _Layout(path, parts or {"": [folder]}, names)
    return _Layout(path, parts or {"": [folder]})


def _yaml_of(folder: Path) -> Path | None:
    """The YAML file of a folder that describes a dataset: data.yaml, else the only one that names classes."""
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in _YAML and file.is_file())
    named = [file for file in files if file.name == "data.yaml"]
    if named or not files:
        return named[0] if named else None
    naming = [file for file in files if "names:" in file.read_text(encoding="utf-8", errors="replace")]
    return naming[0] if len(naming) == 1 else None


def _from_yaml(file: Path) -> _Layout:
    import yaml

    text = read_text(file)
    try:
        # All values as text: a class may be called "no", which YAML takes for false.
        values = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes nothing but text, lists and dicts
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DatasetError(f"{file} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or "names" not in values:
        raise DatasetError(f"{file} does not describe a dataset: it must have 'names', those of the classes.")
    given = values.get("path")
    roots = [file.parent / given] if isinstance(given, str) and given else []
    splits = {}
    for split in _SPLITS:
        entries = values.get(split)
        if not entries:
            continue
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise DatasetError(f"{file}: {split!r} must be a folder or a list of them. Received: {short(entries)}.")
        splits[split] = [_find_part(entry, [*roots, file.parent], file) for entry in entries]
    if not splits:
        folder = file.parent / "images"
        splits = {"": [folder if folder.is_dir() else file.parent]}
    return _Layout(file.parent, splits, _class_names(values["names"], file))


def _class_names(names: Any, file: Path) -> list[str]:
    if isinstance(names, list):
        numbered = dict(enumerate(names))
    elif isinstance(names, dict):
        numbered = {int(key): name for key, name in names.items()
                    if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 6}  # fmt: skip
    else:
        numbered = {}
    fine = sorted(numbered) == list(range(len(numbered))) and len(numbered) == len(names or ())
    if not numbered or not fine or not all(isinstance(name, str) and name.strip() for name in numbered.values()):
        raise DatasetError(
            f"{file}: 'names' must be names, as a list or by numbers from 0 on. Received: {short(names)}."
        )
    stripped = [numbered[number].strip() for number in range(len(numbered))]
    if len(set(stripped)) < len(stripped):
        raise DatasetError(f"{file}: 'names' has several classes of one name: {short(stripped)}.")
    return stripped


def _find_part(entry: str, roots: list[Path], file: Path) -> Path:
    """The folder of images, or the list of them, that an entry of data.yaml means.

    Roboflow writes "../train/images" for a folder beside the file; Ultralytics takes that too.
    """
    tried = [root / one for root in roots for one in (entry, entry.removeprefix("../"))]
    for one in tried:
        if os.path.exists(one):  # False for names that no file can have
            return one
    raise DatasetError(f"{file} names a folder {entry!r} that is not there: {some([str(one) for one in tried[:1]])}")


def _images(folder: Path) -> Iterator[Path]:
    """The images of a folder, or of a text file that lists them."""
    if folder.is_file():
        for line in read_text(folder).splitlines():
            if line.strip():
                yield find_image(line.strip(), [folder.parent, Path()]) or folder.parent / line.strip()
    else:
        yield from sorted(file for file in folder.rglob("*") if is_image(file))


def _label_file(image: Path) -> Path:
    """The label file of an image: in `labels` where the image is in `images`, else beside it."""
    folder = _with_labels(image.parent)
    return (folder if folder.is_dir() else image.parent) / f"{image.stem}.txt"


def _with_labels(folder: Path) -> Path:
    """A folder with the last `images` of its path made `labels`."""
    parts = list(folder.parts)
    for place in reversed(range(len(parts))):
        if parts[place] == "images":
            parts[place] = "labels"
            return Path(*parts)
    return folder
