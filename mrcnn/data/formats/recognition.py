"""Which format a file or folder is in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrcnn.data.content import short, some
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats.coco import is_coco, read_json
from mrcnn.data.formats.cvat import ROOT as CVAT_ROOT
from mrcnn.data.formats.files import files_of
from mrcnn.data.formats.labelme import is_labelme
from mrcnn.data.formats.mask_files import has_masks
from mrcnn.data.formats.via import is_via, is_via_csv
from mrcnn.data.formats.voc import voc_root
from mrcnn.data.formats.xml_files import root_of
from mrcnn.data.formats.yolo import is_yolo

# What the formats are, for people who have another.
FORMATS = {
    "coco": "COCO (a JSON file with 'images' and 'annotations')",
    "via": "VIA 1 and 2 (a project, or exported JSON or CSV)",
    "labelme": "labelme (a JSON file with 'shapes' for each image)",
    "yolo": "YOLO segmentation (data.yaml, or images and labels)",
    "voc": "Pascal VOC (SegmentationObject)",
    "masks": "masks as image files (ID/images and ID/masks, images and masks, or A.png and A_mask.png)",
    "cvat": "CVAT for images (annotations.xml)",
}
# Formats that a folder is read in as a whole: their readers tell best what is amiss.
_FOLDERS = ("labelme", "yolo", "voc", "masks")
# Other names that parts of a set have.
_PARTS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class Found:
    """A format, the file or folder to read, and what a JSON file holds."""

    format: str
    path: Path
    parsed: Any = None


def recognize(path: Path, format: str | None = None, split: str | None = None) -> Found:
    """The format of a file or folder.

    Args:
        path: the file or folder.
        format: the format that it must be. None: any.
        split: the part of the set that is wanted, such as "train", where a folder has one for each.

    Raises:
        FileNotFoundError: there is no such file or folder.
        DatasetError: it is of no format, or a folder is of several; a file that ought to be read to know is damaged.
    """
    if format is not None and format not in FORMATS:
        raise DatasetError(f"There is no format {format!r}. There are: {', '.join(FORMATS)}.")
    if not path.exists():
        raise FileNotFoundError(f"No such file or folder: {path}")
    if not path.is_dir():
        return _of_file(path, format)
    if format in _FOLDERS:
        return Found(format, path)
    found = _of_folder(path, format, split)
    if not found and split is not None:
        for part in _PARTS.get(split, (split,)):
            if (path / part).is_dir():
                return recognize(path / part, format)
    if len(found) == 1:
        return found[0]
    if found:
        told = [f"{one.path} ({one.format})" for one in found]
        raise DatasetError(f"{path} holds several datasets: {some(told)} Name one of them, or the format.")
    wanted = "any format that is known" if format is None else f"the format {format!r}"
    parts = [part.name for part in sorted(path.iterdir()) if part.is_dir() and _is_any(part, format)]
    hint = f" These folders in it are: {some(parts)}" if parts else f" Known are: {'; '.join(FORMATS.values())}."
    hint = _hint_of_voc(path) or hint
    raise DatasetError(f"{path} is not in {wanted}.{hint}")


def _hint_of_voc(folder: Path) -> str:
    """What a folder in Pascal VOC's layout lacks; "" where it is none."""
    if any((folder / name).is_dir() for name in ("SegmentationClass", "SegmentationClassPNG")):
        return (
            " It has Pascal VOC's SegmentationClass but no SegmentationObject: the classes of pixels do not tell one "
            "object from the next."
        )
    if (folder / "Annotations").is_dir() and any((folder / "Annotations").glob("*.xml")):
        return " It has Pascal VOC's boxes (Annotations) but no masks: a folder SegmentationObject is needed."
    return ""


def _is_any(folder: Path, format: str | None) -> bool:
    try:
        return bool(_of_folder(folder, format, None))
    except DatasetError:
        return False


def _of_file(path: Path, format: str | None) -> Found:
    suffix = path.suffix.lower()
    parsed = None
    if suffix == ".json":
        parsed = read_json(path)
        kind = _kind_of_json(parsed)
    elif suffix == ".txt":
        kind = "voc" if voc_root(path) is not None else None
    else:
        kind = {".csv": "via", ".xml": "cvat", ".yaml": "yolo", ".yml": "yolo"}.get(suffix)
    if format is not None:
        return Found(format, path, parsed)
    if kind is not None:
        return Found(kind, path, parsed)
    hint = " Unpack it first." if suffix in (".zip", ".tar", ".gz", ".7z", ".rar") else ""
    if isinstance(parsed, dict):
        hint = f" It is an object of {short(list(parsed)[:5])}."
    raise DatasetError(f"{path} is not in any format that is known.{hint} Known are: {'; '.join(FORMATS.values())}.")


def _kind_of_json(parsed: Any) -> str | None:
    for kind, fits in (("coco", is_coco), ("labelme", is_labelme), ("via", is_via)):
        if fits(parsed):
            return kind
    return None


def _of_folder(path: Path, format: str | None, split: str | None) -> list[Found]:
    """What a folder can be read as."""
    found = []
    for kind, fits in (("voc", voc_root), ("yolo", is_yolo), ("masks", has_masks)):
        if format in (None, kind) and fits(path):
            found.append(Found(kind, path))
    if format in (None, "cvat"):
        files = files_of(path, "*.xml")
        files = [path / "annotations.xml"] if path / "annotations.xml" in files else files
        found += [Found("cvat", file) for file in files[:10] if root_of(file) == CVAT_ROOT]
    if format in (None, "via"):
        found += [Found("via", file) for file in files_of(path, "*.csv") if is_via_csv(file)]
    if format in (None, "coco", "labelme", "via"):
        of_json, damage = _of_json_files(path, format, split)
        found += of_json
        if damage is not None and not found:
            raise damage
    return found


def _of_json_files(path: Path, format: str | None, split: str | None) -> tuple[list[Found], DatasetError | None]:
    """The datasets that a folder's JSON files are, no more than two: of labelme's all are one. And what is wrong with
    one that cannot be read."""
    files = sorted([*files_of(path, "*.json"), *files_of(path / "annotations", "*.json")])
    if len(files) > 1 and split is not None:
        parts = _PARTS.get(split, (split,))
        files = [file for file in files if any(part in file.stem for part in parts)] or files
    found: list[Found] = []
    damage = None
    for file in files:
        try:
            parsed = read_json(file)
        except DatasetError as error:
            damage = error
            continue
        kind = _kind_of_json(parsed)
        if kind == "labelme" and format in (None, kind):
            return [*found, Found(kind, path)], None
        if kind is not None and format in (None, kind):
            found.append(Found(kind, file, parsed))
        if len(found) > 1:
            break
    return found, damage
