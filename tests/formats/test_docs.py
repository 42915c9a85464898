"""The recipes of docs/data.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import PIL.Image

from mrcnn.data.coco import CocoDataset
from mrcnn.data.formats.recognition import FORMATS
from tests.formats import samples

DOCS = Path(__file__).parents[2] / "docs" / "data.md"


def section() -> str:
    return re.search(r"^## Formats\n(.*?)^## ", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[1]


def test_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = Path()
    for part in ("train", "val", "labelme"):
        samples.labelme(here / part)
    samples.coco(here)
    (here / "images").rename("photos")
    samples.via(here).rename("via_project.json")
    samples.yolo(here / "yolo")
    samples.voc(here / "VOC2012")
    samples.write_text(here / "VOC2012/ImageSets/Segmentation/trainval.txt", "2007_000001\n2007_000002\n")
    samples.masks(here / "stage1_train")
    (here / "truth").mkdir()
    PIL.Image.fromarray(samples.RING.astype(np.uint8)).save("truth/a.png")
    samples.cvat(here / "cvat")
    blocks = re.findall(r"```python\n(.*?)```", section(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if "=" in line]
    names: dict = {}
    exec("import mrcnn", names)
    for line in lines:
        exec(line, names)
        dataset = names[line.split()[0]]
        assert isinstance(dataset, CocoDataset) and dataset.num_images > 0, line
        assert sum(len(dataset.load_mask(i)[1]) for i in dataset.image_ids) > 0, line
    assert len(lines) == 11


def test_all_formats_have_a_recipe():
    headings = re.findall(r"^### (.*)", section(), re.MULTILINE)
    for format in FORMATS:
        assert any(format in heading.lower() for heading in headings), format
