"""Every format through `mrcnn data`: checked, converted, and refused where it is malformed."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn.cli import main
from mrcnn.data.formats import load_dataset
from tests.formats import samples
from tests.formats.test_malformed import CASES
from tests.formats.test_readers import FORMATS

# A third of them: how each is read is told in test_malformed.py.
MALFORMED = [(name, number) for name, cases in CASES.items() for number in range(1, len(cases), 3)]


def run(*words):
    return main(["data", *map(str, words)])


@pytest.mark.parametrize("name", samples.WRITERS)
def test_a_sound_dataset(name, tmp_path, capsys):
    path = samples.WRITERS[name](tmp_path / "set")
    assert run("check", path) == 0
    printed = capsys.readouterr().out
    assert f" ({FORMATS[name]}): 2 images, all decoded; 2 objects of " in printed and "Errors" not in printed
    assert run("convert", path, tmp_path / "out", "--to", "coco", "--copy-images") == 0
    before, after = load_dataset(path), load_dataset(tmp_path / "out")
    assert after.class_names == before.class_names and after.num_images == 2
    for number in before.image_ids:
        (masks, class_ids), (again, class_ids_again) = before.load_mask(number), after.load_mask(number)
        np.testing.assert_array_equal(again, masks)
        np.testing.assert_array_equal(class_ids_again, class_ids)


@pytest.mark.parametrize("name,number", MALFORMED)
def test_a_malformed_one(name, number, tmp_path, capsys):
    path = samples.WRITERS[name](tmp_path)
    CASES[name][number][0](tmp_path)
    assert run("check", path) == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert "\nErrors\n" in printed.out or printed.err.startswith("mrcnn: error: ")
