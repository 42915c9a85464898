"""labelme's own reader, which is a window's program: it runs in a process of its own, with stand-ins for the window.

labelme is under the GPL. `python -m tests.labelme_tool` (`make setup-labelme`) fetches it to be a judge in tests, into
a folder of its own, and nothing of it is imported by this package. What reads files and fills polygons in it needs no
window.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / ".venv-labelme"
PACKAGES = ("labelme==6.3.1", "loguru", "tifffile")

PROGRAM = """
import json, sys
from unittest import mock
for name in ("PyQt5", "PyQt5.QtCore", "PyQt5.QtGui", "PyQt5.QtWidgets", "onnxruntime", "imgviz", "imgviz.io"):
    sys.modules[name] = mock.MagicMock()
import numpy as np
import labelme
for number, path in enumerate(sys.argv[2:]):
    file = labelme.LabelFile(path)
    shape = labelme.utils.img_data_to_arr(file.image_data).shape
    names = sorted({shape["label"] for shape in file.shapes})
    alone = [labelme.utils.shape_to_mask(shape, s["points"], s["shape_type"]) for s in file.shapes]
    np.savez(f"{sys.argv[1]}/{number}.npz", alone=np.array(alone).reshape(-1, *shape[:2]))
    print(json.dumps({"shapes": [{k: v for k, v in s.items() if k != "mask"} for s in file.shapes],
                      "image_path": file.image_path, "shape": shape, "flags": file.flags}))
"""


def fetch() -> None:
    """Put labelme into `FOLDER`."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--upgrade", "--target", str(FOLDER)]
    subprocess.run([*command, *PACKAGES], check=True)
    (FOLDER / ".fetched").touch()


def read(folder: Path, *paths: Path) -> list[dict]:
    """What labelme reads in files: `shapes`, `image_path`, `shape` of the image, `flags`, and `masks` [N, H, W] bool
    with one for each object: shapes of one label and group are one object."""
    if not (FOLDER / ".fetched").exists():
        pytest.fail(f"labelme, which judges here, is not in {FOLDER}: run `make setup-labelme`.")
    program = f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for number, one in enumerate(told):
        alone = np.load(folder / f"{number}.npz")["alone"]
        objects: dict[object, np.ndarray] = {}
        for position, (shape, mask) in enumerate(zip(one["shapes"], alone, strict=True)):
            key = position if shape["group_id"] is None else (shape["label"], shape["group_id"])
            objects[key] = objects.get(key, False) | mask
        one["masks"] = np.array(list(objects.values())).reshape(-1, *alone.shape[1:])
    return told


if __name__ == "__main__":
    fetch()
