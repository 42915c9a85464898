"""labelme's files, one a JSON for each image: what labelme 3 and later read and write.

An object is a polygon for each of its parts; those of one object bear one `group_id`, which is labelme's own way to
say so. Holes are joined to the outline by seams, see `mrcnn.data.outlines`. Points are (x, y) in *pixels*; labelme, as
this package does, fills a polygon whose points are the centers of a mask's outermost pixels with their pixels
included.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# What labelme 5 and 6 write; it is told, and nothing hangs on it.
VERSION = "5.5.0"


def labelme_shapes(
    label: str, outlines: Sequence[np.ndarray], group_id: int, more: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The shapes of one object.

    Args:
        label: its class.
        outlines: of its parts, [M, 2] each, M at least 3.
        group_id: no other object's of the image; told only of an object of several parts.
        more: what else to say of the object, such as its score. labelme keeps what it does not know.
    """
    return [
        {
            "label": label,
            "points": np.asarray(outline, np.float64).tolist(),
            "group_id": group_id if len(outlines) > 1 else None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
            **(more or {}),
        }
        for outline in outlines
    ]


def labelme_file(shapes: Iterable[dict[str, Any]], image_path: str, height: int, width: int) -> dict[str, Any]:
    """The content of the file of an image.

    Args:
        shapes: of all objects, see `labelme_shapes`.
        image_path: of the image, from the file's own folder; see `path_from`.
        height, width: of the image as it is shown: turned as its EXIF orientation says.
    """
    return {
        "version": VERSION,
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": int(height),
        "imageWidth": int(width),
    }


def path_from(folder: Path, file: Path) -> str:
    """The path of a file as seen from a folder, with / on every system; whole, where the two share no drive."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        return Path(file).absolute().as_posix()
