"""YOLO's text files for segmentation, as Ultralytics reads them: a line for each object, its class, counted from 0,
and one polygon x1 y1 x2 y2 ... in shares of the image's width and height.

One polygon is all that a line holds, so the parts of an object are joined, and holes kept, by seams; see
`mrcnn.data.outlines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_UNITS = 1_000_000  # coordinates have six decimals


def yolo_line(class_index: int, outline: np.ndarray, height: int, width: int) -> str:
    """The line of one object, without its end.

    Coordinates are rounded up, by two units of the last decimal at most. So readers that round to whole pixels and
    those that cut off, in float32, both find the pixels that `outline` names, in images of up to 100,000 pixels a side.

    Args:
        class_index: from 0 on.
        outline: [M, 2] in pixels, M at least 3, within the image.
        height, width: of the image.
    """
    shares = np.asarray(outline, np.float64) / (width, height)
    units = np.clip(np.floor(shares * _UNITS).astype(np.int64) + 2, 0, _UNITS)
    return " ".join([str(class_index), *(f"{value / _UNITS:.6f}" for value in units.ravel().tolist())])


def data_yaml(class_names: Sequence[str], parts: Mapping[str, str] | None = None) -> str:
    """The text of a data.yaml, from whose folder its paths are taken.

    Args:
        class_names: [K], without a background.
        parts: folders of images by the part of the data that they are: train, val, test.
    """
    lines = [f"{part}: {_quoted(folder)}" for part, folder in (parts or {}).items()]
    lines += [f"nc: {len(class_names)}", "names:" if class_names else "names: {}"]
    lines += [f"  {index}: {_quoted(name)}" for index, name in enumerate(class_names)]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A YAML string in quotes, whatever is in it."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
