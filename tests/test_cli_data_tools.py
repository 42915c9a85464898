"""`mrcnn data check`, `convert`, `split` and `preview`: what is printed, what is written, and how they end."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from mrcnn.cli import main
from mrcnn.data.formats import load_dataset, read_content
from tests.command_line import error_line
from tests.planted import HEIGHT, WIDTH, Planted, rectangle

# pycocotools' own, under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = ["--config", "IMAGE_RESIZE_MODE=none", "RPN_ANCHOR_SCALES=16,24,64,128,256"]


@pytest.fixture
def planted(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return Planted(folder)


def run(*words):
    return main(["data", *map(str, words)])


def test_check_of_a_sound_dataset(planted, capsys):
    assert run("check", planted.save(), "--strict", *SMALL) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "(coco): 4 images, all decoded; 8 objects of 2 classes; " in printed.out
    assert re.search(r"^cat +4 +4 +█+$", printed.out, re.MULTILINE)
    assert re.search(r"^ +16 to +32 +8 +100% +16, 24 +█+$", printed.out, re.MULTILINE)
    assert printed.out.endswith("\nNothing is wrong.\n")


def test_check_tells_what_is_wrong_by_kind(planted, capsys, tmp_path):
    planted.path(0).unlink()
    planted.annotate(1, [[1, 1, 9, 9]])
    for x in range(5):
        planted.annotate(2, [rectangle(4 + x / 100, 10)])
    planted.write(3, planted.read(3).convert("L"))
    report, picture = tmp_path / "check.json", tmp_path / "check.png"
    assert run("check", planted.save(), "--json", report, "--picture", picture, "--count", 3, *SMALL) == 1
    printed = capsys.readouterr().out
    assert "\nErrors\n  missing images: 1\n      0.png: there is no such image file.\n" in printed
    assert (
        "\n  polygons of too few points: 1\n      annotation 8: its segmentation has a polygon of 4 numbers" in printed
    )
    assert "\nWarnings\n  objects annotated more than once: 5\n      2.png: annotation 9: covers what" in printed
    assert "\n      and 2 more\n" in printed
    assert "\nGood to know\n  grayscale images: 1 (3.png)\n" in printed
    assert "\n2 errors, 5 warnings.\n" in printed and printed.endswith(f"\nWrote {picture}.\n")

    told = json.loads(report.read_text())
    assert (told["errors"], told["warnings"], told["notes"], told["decoded"]) == (2, 5, 1, 4)
    of_kind = {one["kind"]: one for one in told["findings"]}
    assert of_kind["object-twice"]["count"] == 5 == len(of_kind["object-twice"]["examples"])
    assert of_kind["missing-image"]["level"] == "error" and told["figures"]["classes"]["cat"]["objects"] == 9
    assert cv2.imread(str(picture)).shape[1] > 3 * 320


def test_warnings_fail_only_where_they_are_to(planted, capsys):
    planted.annotate(1, [rectangle(4, 30)])
    path = planted.save()
    assert run("check", path, *SMALL) == 0
    assert "0 errors, 1 warning." in capsys.readouterr().out
    assert run("check", path, "--strict", *SMALL) == 1


def test_notes_never_fail(planted):
    planted.write(3, planted.read(3).convert("L"))
    assert run("check", planted.save(), "--strict", *SMALL) == 0


def test_check_of_files_that_are_none(planted, tmp_path, capsys):
    (tmp_path / "text.json").write_text("no json")
    assert run("check", tmp_path / "text.json") == 1
    assert "text.json is not a JSON file" in error_line(capsys)
    assert run("check", tmp_path / "nothing.json") == 1
    assert "nothing.json" in error_line(capsys)
    path = planted.save()
    assert run("check", path, "--picture", "check.bmp") == 1
    assert "A picture is saved as" in error_line(capsys)
    assert run("check", path, "--json", tmp_path / "none" / "check.json") == 1
    assert "does not exist" in error_line(capsys)
    (tmp_path / "empty.json").write_text('{"images": []}')
    assert run("check", tmp_path / "empty.json", "--picture", tmp_path / "check.png") == 1
    printed = capsys.readouterr()
    assert "no images: 1" in printed.out and "no picture is written" in printed.err
    assert not (tmp_path / "check.png").exists()


WEIRD = [None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**30, "", "x", "\0", "../..", [], [[]], {}, [None],
         {"size": 3}, [1], [[1, 2, 3]], [[0, 0, 1e9, 0, 0, 1e9]], {"size": [40, 60], "counts": "~"},
         "café/" * 200]  # fmt: skip


def mutated(rng, value):
    """A copy of a content with one value anywhere in it replaced, taken out or doubled."""
    value = json.loads(json.dumps(value))
    place, keys = value, list(value)
    while True:
        key = keys[rng.integers(len(keys))]
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            place, keys = inner, list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            continue
        way = rng.integers(4)
        if way == 0 and isinstance(place, dict):
            del place[key]
        elif way == 1 and isinstance(place, list):
            place.append(inner)
        else:
            place[key] = WEIRD[rng.integers(len(WEIRD))]
        return value


def test_no_file_makes_a_traceback(planted, capsys, tmp_path):
    rng = np.random.default_rng(0)
    planted.annotate(1, {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}, bbox=[1, 2, 3, 4])
    sound = json.loads(planted.save().read_text())
    reports = 0
    for number in range(120):
        content = mutated(rng, sound) if number % 2 else mutated(rng, mutated(rng, sound))
        path = planted.folder / "mutated.json"
        path.write_text(json.dumps(content))
        picture = tmp_path / "check.png"
        end = run("check", path, *SMALL, *(["--picture", picture, "--count", 2] if number % 6 == 0 else []))
        printed = capsys.readouterr()
        reports += "(coco):" in printed.out
        assert "Traceback" not in printed.err, json.dumps(content)
        assert end == 0 or "error" in printed.out + printed.err
    assert reports > 60


@pytest.mark.parametrize("to", ["coco", "yolo", "labelme"])
def test_what_is_converted_reads_back_the_same(to, planted, capsys, tmp_path):
    path = planted.save()
    assert run("convert", path, tmp_path / "out", "--to", to, "--copy-images") == 0
    printed = capsys.readouterr()
    assert f"annotations.json (coco) is {tmp_path / 'out'} ({to}): 4 images, 8 objects of 2 classes." in printed.out
    before, after = load_dataset(path), load_dataset(tmp_path / "out")
    assert after.class_names == before.class_names
    by_name = {info["path"].rpartition("/")[2]: number for number, info in enumerate(after.image_info)}
    for number, info in enumerate(before.image_info):
        other = by_name[info["path"].rpartition("/")[2]]
        np.testing.assert_array_equal(after.load_image(other), before.load_image(number))
        (masks, ids), (other_masks, other_ids) = before.load_mask(number), after.load_mask(other)
        assert sorted(ids) == sorted(other_ids)
        for mask, class_id in zip(np.moveaxis(masks, -1, 0), ids, strict=True):
            (same,) = np.moveaxis(other_masks, -1, 0)[other_ids == class_id]
            assert (mask != same).sum() == 0


def test_conversion_tells_what_is_lost(planted, capsys, tmp_path):
    planted.annotate(1, [[1, 1, 9, 9]])
    planted.annotate(1, [rectangle(4, 9)], iscrowd=1)
    path = planted.save()
    assert run("convert", path, tmp_path / "out", "--to", "labelme") == 0
    printed = capsys.readouterr()
    assert "not all of" in printed.err and "1 problem: annotation 8: its segmentation has a polygon of 4" in printed.err
    assert "1 crowd left out." in printed.err
    assert f"The images stay where they are, in {planted.folder}." in printed.out
    assert len(read_content(tmp_path / "out").annotations) == 8
    assert run("convert", path, tmp_path / "out", "--to", "coco") == 1
    assert "is not empty" in error_line(capsys)
    (tmp_path / "empty.json").write_text('{"images": []}')
    assert run("convert", tmp_path / "empty.json", tmp_path / "new", "--to", "coco") == 1
    assert "has no images" in error_line(capsys)
    with pytest.raises(SystemExit):
        run("convert", path, tmp_path / "new", "--to", "pdf")


def test_split_writes_parts_that_training_takes(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    planted = Planted(tmp_path / "data", count=20)
    path = planted.save()
    assert run("split", path, tmp_path / "out", "--parts", "train=0.75", "val=0.25") == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ +train +0.75 +val +0.25 *$", printed, re.MULTILINE)
    assert re.search(r"^images +15 +75.0% +5 +25.0% *$", printed, re.MULTILINE)
    assert re.search(r"^dog +15 +75.0% +5 +25.0% *$", printed, re.MULTILINE)
    (command,) = re.findall(r"^    mrcnn (train .*)$", printed, re.MULTILINE)
    _, _, train, _, val, _, images = command.split()
    parts = [load_dataset(part, images) for part in (train, val)]
    assert [part.num_images for part in parts] == [15, 5]
    names = [{info["path"] for info in part.image_info} for part in parts]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 20

    planted.images.reverse()
    assert run("split", planted.save(), tmp_path / "again", "--parts", "train=75", "val=25") == 0
    again = read_content(tmp_path / "again" / "annotations" / "train.json", planted.folder)
    assert {str(again.image_path(image)) for image in again.images} == names[0]


def test_split_by_groups(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    planted = Planted(tmp_path / "data", count=12)
    for image in planted.images:
        image["site"] = f"site {image['id'] // 3}"
    planted.images[0].pop("site")
    argv = ["split", planted.save(), tmp_path / "out", "--parts", "train=0.5", "val=0.5", "--group"]
    assert run(*argv, "site") == 0
    printed = capsys.readouterr()
    assert "4 groups stay together; the largest has 3 images." in printed.out
    assert "1 images are in no group" in printed.err
    assert run(*argv, "nothing") == 1
    assert "'nothing' is no field of the images" in error_line(capsys)


def test_split_of_little(planted, tmp_path, capsys):
    planted.images = planted.images[:1]
    planted.annotations = planted.of(0)
    assert run("split", planted.save(), tmp_path / "one", "--parts", "train=0.8", "val=0.2") == 0
    assert "val got no image" in capsys.readouterr().err
    assert [len(read_content(tmp_path / "one" / "annotations" / f"{part}.json", planted.folder).images)
            for part in ("train", "val")] == [1, 0]  # fmt: skip
    planted.images.clear()
    planted.annotations = []
    assert run("split", planted.save(), tmp_path / "none", "--parts", "train=0.8", "val=0.2") == 1
    assert "has no images to split" in error_line(capsys)


@pytest.mark.parametrize("parts,message", [
    (["train"], "takes NAME=SHARE"), (["train=x"], "takes NAME=SHARE"), (["../a=1"], "takes NAME=SHARE"),
    (["train=-1", "val=2"], "takes NAME=SHARE"), (["train=nan"], "takes NAME=SHARE"),
    (["train=0.5", "Train=0.5"], "names Train twice"), (["train=0.8", "val=0.1"], "must sum to 1"),
])  # fmt: skip
def test_parts_that_cannot_be(parts, message, planted, tmp_path, capsys):
    assert run("split", planted.save(), tmp_path / "out", "--parts", *parts) == 1
    assert message in error_line(capsys) and not (tmp_path / "out").exists()


def test_an_unsound_dataset_is_not_split(planted, tmp_path, capsys):
    planted.annotate(1, [[1, 1, 9, 9]])
    assert run("split", planted.save(), tmp_path / "out", "--parts", "train=0.8", "val=0.2") == 1
    assert "1 of 9 annotations cannot be used" in error_line(capsys)


def test_preview(planted, tmp_path, capsys):
    argv = ["preview", planted.save(), "--out", tmp_path / "preview.png", "--count", 3, "--draws", 2]
    assert run(*argv, "--config", "IMAGE_MIN_DIM=64", "IMAGE_MAX_DIM=64") == 0
    assert capsys.readouterr().out == f"Wrote {tmp_path / 'preview.png'}.\n"
    picture = cv2.imread(str(tmp_path / "preview.png"))
    assert picture.shape[0] > 3 * 320 and 2 * 320 < picture.shape[1] < 3 * 320
    planted.annotate(1, [[1, 1, 9, 9]])
    planted.save()
    pictures = {}
    for name in ("none", "flip", "standard", "strong"):
        assert run(*argv, "--augment", name) == 0
        assert "1 entries of" in capsys.readouterr().err
        pictures[name] = (tmp_path / "preview.png").read_bytes()
    assert len(set(pictures.values())) == 4
    assert run(*argv, "--config", "AUGMENTATION=strong") == 0
    assert (tmp_path / "preview.png").read_bytes() == pictures["strong"]
    capsys.readouterr()
    assert run(*argv[:2], "--out", tmp_path / "preview.gif") == 1
    assert "A picture is saved as" in error_line(capsys)
    planted.images, planted.annotations = [], []
    assert run("preview", planted.save()) == 1
    assert "has no images to draw" in error_line(capsys)


def test_no_framework_is_needed(planted, tmp_path):
    path = str(planted.save())
    commands = [
        ["check", path, "--picture", str(tmp_path / "check.png")],
        ["convert", path, str(tmp_path / "out"), "--to", "coco"],
        ["split", path, str(tmp_path / "parts"), "--parts", "train=0.8", "val=0.2"],
        ["preview", path, "--out", str(tmp_path / "preview.png")],
    ]
    program = (
        f"import sys; from mrcnn.cli import main\nfor words in {commands}: main(['data', *words])\n"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "check.png").exists() and (tmp_path / "preview.png").exists()
