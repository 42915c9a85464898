"""VGG Image Annotator, versions 1 and 2: project files, annotations exported as JSON or as CSV.

The files hold no image sizes: these are read from the images, upright as browsers show them.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.content import Content, Kind, short
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats.building import ONLY_CLASS, Builder
from mrcnn.data.formats.coco import read_json
from mrcnn.data.formats.files import find_image, text_file
from mrcnn.data.formats.shapes import ellipse, numbers, rectangle
from mrcnn.data.segmentations import SegmentationError

_REFUSED = ("polyline", "line", "point")
# Kinds of region attributes that can name a class.
_NAMING = ("text", "dropdown", "radio")
# The name that VIA gives a project by itself.
_UNNAMED = "via_project_"
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


@dataclass
class _Project:
    """What a file of any of the layouts says: entries by their keys, kinds and options of the region attributes, where
    its images may be, and whether shapes are still the text that they are in the file."""

    entries: dict[str, Any]
    attributes: dict[str, Any] | None = None
    name: str = ""
    folders: list[Path] = field(default_factory=list)
    is_text: bool = False


def is_via(parsed: Any) -> bool:
    """Whether the content of a JSON file is meant as VIA's."""
    if not isinstance(parsed, dict):
        return False
    if "_via_img_metadata" in parsed or is_via3(parsed):
        return True
    entries = list(parsed.values())[:10]
    return any(isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries)


def is_via_csv(path: Path) -> bool:
    """Whether the first line of a CSV file is that of VIA's."""
    with path.open("rb") as file:
        head = file.readline(1000).decode("utf-8", "replace")
    return all(column in head for column in _COLUMNS)


def is_via3(parsed: Any) -> bool:
    """Whether it is VIA 3's, which is laid out in another way."""
    return isinstance(parsed, dict) and {"project", "config", "attribute", "file", "metadata"} <= parsed.keys()


def read_via(path: Path, images: Path | None = None, parsed: Any = None, class_attribute: str | None = None) -> Content:
    """Read a project file or exported annotations.

    Args:
        path: the JSON or CSV file.
        images: the folder of its images. None: that of the file, `images` beside it, or the project's default.
        parsed: what `read_json` makes of the file, where that is known.
        class_attribute: the region attribute that names the class. None: the only one there is; where there is none,
            all regions are of one class.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it is no JSON or CSV file, or not in this format; `class_attribute` is needed, or is not there.
    """
    project = _read_csv(path) if path.suffix.lower() == ".csv" else _read_project(path, parsed)
    folders = [path.parent, path.parent / "images", *project.folders] if images is None else [images]
    attribute = _choose_attribute(project, path, class_attribute)
    builder = Builder("via", path, images or path.parent, _class_names(project, attribute))
    only = project.name if project.name and not project.name.startswith(_UNNAMED) else ONLY_CLASS
    for key in list(project.entries):
        entry = project.entries.pop(key)  # it goes as the content grows, for both of all would take their memory
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
            message = f"an image needs a 'filename'. Received: {short(entry)}."
            builder.reject_image(path, short(key), Kind.IMAGE_ENTRY, message)
            continue
        name = entry["filename"]
        image = builder.add_image(find_image(name, folders), path, name)
        if image is None:
            continue
        for number, region in _regions(builder, path, name, entry.get("regions"), project.is_text):
            label = f"region {number} of {name}"
            try:
                segmentation = _segmentation(region)
            except SegmentationError as error:
                builder.reject(path, label, error.kind, str(error))
                continue
            builder.add_instance(image, only if attribute is None else _value(region, attribute), segmentation,
                                 path, label)  # fmt: skip
    return builder.finish()


def _read_project(path: Path, parsed: Any) -> _Project:
    parsed = read_json(path) if parsed is None else parsed
    if is_via3(parsed):
        raise DatasetError(
            f"{path} is a project of VIA 3, which is not read. Annotate in VIA 2, or have VIA 3 export COCO."
        )
    if not is_via(parsed):
        raise DatasetError(
            f"{path} is not in VIA's format: it must be a project or exported annotations, an object of images with "
            "'filename' and 'regions'."
        )
    if "_via_img_metadata" not in parsed:
        return _Project(parsed)
    entries = parsed["_via_img_metadata"]
    if not isinstance(entries, dict):
        raise DatasetError(f"{path} is not in VIA's format: '_via_img_metadata' must be an object of images.")
    attributes = _inner(parsed, "_via_attributes", "region")
    folder = _inner(parsed, "_via_settings", "core").get("default_filepath")
    name = _inner(parsed, "_via_settings", "project").get("name")
    return _Project(
        entries,
        attributes or None,
        name if isinstance(name, str) else "",
        [path.parent / folder] if isinstance(folder, str) and folder else [],
    )


def _inner(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The object inside objects; empty where there is none."""
    for key in keys:
        values = values.get(key)
        if not isinstance(values, dict):
            return {}
    return values


def _read_csv(path: Path) -> _Project:
    """A CSV file's lines, one for each region, as the entries of a JSON file."""
    entries: dict[str, Any] = {}
    attributes = functools.lru_cache(1000)(_cell)  # most are alike
    with text_file(path, newline="") as file:
        if file.read(1) != "#":
            file.seek(0)
        rows = csv.DictReader(file, strict=True)
        try:
            missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise DatasetError(f"{path} is not in VIA's format: it has no column {', '.join(missing)}.")
            for row in rows:
                name = row["filename"] or ""
                entry = entries.setdefault(name, {"filename": name, "regions": {}})
                if row.get("region_count") != "0":
                    entry["regions"][f"{row.get('region_id')} (line {rows.line_num})"] = {
                        "shape_attributes": row["region_shape_attributes"],
                        "region_attributes": attributes(row["region_attributes"]),
                    }
        except csv.Error as error:
            raise DatasetError(f"{path}: line {rows.line_num + 1}: no well-formed CSV: {error}") from error
    return _Project(entries, is_text=True)


def _cell(text: str | None) -> Any:
    """What a cell says in JSON."""
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        return text  # for what looks at it to complain of


def _regions(
    builder: Builder, path: Path, name: str, regions: Any, is_text: bool
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each region's number and content. They are an object in VIA 1, a list in VIA 2."""
    if isinstance(regions, list):
        numbered = enumerate(regions)
    elif isinstance(regions, dict):
        numbered = iter(regions.items())
    else:
        message = f"'regions' must be a list or an object. Received: {short(regions)}."
        builder.reject(path, name, Kind.ANNOTATION, message)
        return
    for number, region in numbered:
        if is_text:
            region = {**region, "shape_attributes": _cell(region["shape_attributes"])}
        fine = isinstance(region, dict) and isinstance(region.get("shape_attributes"), dict)
        if fine and isinstance(region.get("region_attributes", {}), dict):
            yield number, region
        else:
            message = f"needs objects 'shape_attributes' and 'region_attributes'. Received: {short(region)}."
            builder.reject(path, f"region {number} of {name}", Kind.ANNOTATION, message)


def _segmentation(region: dict[str, Any]) -> list[Any]:
    shape = region["shape_attributes"]
    kind = shape.get("name")
    if kind == "polygon":
        x, y = (values.tolist() if isinstance(values, np.ndarray) else values
                for values in (shape.get("all_points_x"), shape.get("all_points_y")))  # fmt: skip
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
            message = "needs lists 'all_points_x' and 'all_points_y' of the same length."
            raise SegmentationError(Kind.COORDINATES, message)
        return [[value for point in zip(x, y, strict=True) for value in point]]
    if kind == "rect":
        left, top, width, height = numbers(shape, ("x", "y", "width", "height"))
        return [rectangle(left, top, left + width, top + height)]
    if kind == "circle":
        x, y, radius = numbers(shape, ("cx", "cy", "r"))
        return [ellipse(x, y, radius, radius)]
    if kind == "ellipse":
        x, y, radius_x, radius_y = numbers(shape, ("cx", "cy", "rx", "ry"))
        (angle,) = numbers({"theta": 0.0, **shape}, ("theta",))
        return [ellipse(x, y, radius_x, radius_y, angle)]
    if kind in _REFUSED:
        raise SegmentationError(Kind.SHAPE, f"is a {kind}, which encloses nothing. Draw a polygon, or delete it.")
    message = f"has no shape that is known: polygon, rect, circle or ellipse. Received: {short(kind)}."
    raise SegmentationError(Kind.SHAPE, message)


def _attributes(project: _Project) -> dict[str, bool]:
    """The region attributes, and whether each can name a class: by its kind where the project defines it, else by its
    values being text."""
    if project.attributes is not None:
        return {name: _inner(project.attributes, name).get("type") in _NAMING for name in project.attributes}
    found: dict[str, bool] = {}
    for entry in project.entries.values():
        regions = entry.get("regions") if isinstance(entry, dict) else None
        regions = regions.values() if isinstance(regions, dict) else regions if isinstance(regions, list) else ()
        for region in regions:
            values = region.get("region_attributes") if isinstance(region, dict) else None
            for name, value in values.items() if isinstance(values, dict) else ():
                found[name] = found.get(name, True) and isinstance(value, str)
    return found


def _choose_attribute(project: _Project, path: Path, wanted: str | None) -> str | None:
    known = _attributes(project)
    if wanted is not None:
        if wanted not in known:
            raise DatasetError(f"{path} has no region attribute {wanted!r}. It has: {_listed(list(known))}.")
        return wanted
    naming = [name for name, can_name in known.items() if can_name]
    if len(naming) > 1:
        raise DatasetError(
            f"{path} has several region attributes that could name the class: {_listed(naming)}. Say which one: "
            "class_attribute, or --class-attribute."
        )
    return naming[0] if naming else None


def _class_names(project: _Project, attribute: str | None) -> list[str] | None:
    """Names of the classes in the order of the attribute's options."""
    if attribute is None or project.attributes is None:
        return None
    options = _inner(project.attributes, attribute, "options")
    return [name.strip() for name in options] or None


def _value(region: dict[str, Any], attribute: str) -> Any:
    """A region's class: the value of the attribute; of a checkbox, what alone is checked."""
    value = region.get("region_attributes", {}).get(attribute)
    if isinstance(value, dict):
        checked = [name for name, on in value.items() if on]
        return checked[0] if len(checked) == 1 else value
    return value


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
