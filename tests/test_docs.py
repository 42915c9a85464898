"""What the pages tell people to paste: commands that the command line takes, and the recipes for results."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mrcnn.cli import _parser
from mrcnn.results.saving import FORMATS, save_results

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ["BG", "cell", "dust"]


def commands():
    """(page, command) of all that start with `mrcnn`, but for those that leave something open."""
    for page in sorted(DOCS.glob("*.md")):
        for block in re.findall(r"^```\n(.*?)^```|^```\w+\n.*?^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                line = re.sub(r"(\S) {3,}.*", r"\1", line.strip())  # what it says of itself
                if line.startswith("mrcnn ") and not re.search(r"\[|\||(^| )\.\.\.( |$)", line):
                    yield page.name, line


@pytest.mark.parametrize("page,line", list(commands()))
def test_the_command_line_takes_the_commands(page, line):
    assert _parser().parse_args(shlex.split(line, comments=True)[1:]).module.startswith("mrcnn.cli.")


def test_there_are_commands_of_all_kinds():
    found = {" ".join(line.split()[1 : 3 if " data " in line else 2]) for _, line in commands()}
    wanted = {"detect", "train", "evaluate", "export"}
    wanted |= {f"data {name}" for name in ("check", "convert", "split", "preview", "summary", "anchors")}
    assert wanted <= found


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """The blocks of Python of "Results out", and what they take for granted: a photo, and a result with two objects."""
    monkeypatch.chdir(tmp_path)
    masks = np.zeros((40, 50, 2), bool)
    masks[5:25, 4:24, 0] = True
    masks[20:32, 30:45, 1] = True
    result = {
        "rois": np.array([[5, 4, 25, 24], [20, 30, 32, 45]]), "class_ids": np.array([1, 2], np.int32),
        "scores": np.array([0.9, 0.8], np.float32), "masks": masks,
    }  # fmt: skip
    image = np.full((40, 50, 3), 90, np.uint8)
    Path("photos").mkdir(), Path("found").mkdir()
    PIL.Image.fromarray(image).save("photos/photo.png")

    class Made:
        class_names = NAMES

        def detect(self, paths, masks):
            assert masks == "rle"
            return [result] * len(paths)

    for name in ("coco", "yolo", "labels", "csv"):
        save_results(Path("found") / FORMATS[name].place, [result], ["photos/photo.png"], NAMES, format=name)
    section = re.search(r"^## Results out\n(.*?)^## ", (DOCS / "detection.md").read_text("utf-8"), re.DOTALL | re.M)[1]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return blocks, {"detector": Made(), "paths": ["photos/photo.png"], "result": result, "image": image}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_recipes_for_results(recipes):
    (saving, reading), names = recipes
    exec(saving, names)
    assert Path("measurements.csv").is_file() and Path("for-labelme/photo.json").is_file()
    exec(reading.partition("# label images")[0], names)
    masks = names["result"]["masks"]
    np.testing.assert_array_equal(names["mask"], masks[..., 0])
    assert names["picture"].shape == names["image"].shape and (names["picture"] != 90).any()
    (found,) = names["data"].annotations.values()
    assert found.class_id.tolist() == [0, 1] and names["data"].classes == NAMES[1:]


def test_recipes_for_tables(recipes):
    pytest.importorskip("skimage")
    pytest.importorskip("pandas")
    (_, reading), names = recipes
    recipe = reading.partition("# label images")[2]
    exec(recipe.partition("\n")[2], names)
    assert names["table"]["label"].tolist() == names["rows"]["object"].tolist() == [1, 2]
    assert names["table"]["area"].tolist() == names["rows"]["area"].tolist() == [400, 180]
