"""`mrcnn data ...`: what is printed, what can be pasted, and files."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest
from PIL import Image

from mrcnn.cli import _parser, main
from mrcnn.config import Config
from mrcnn.evaluation import coco_ground_truth, write_results
from tests.command_line import error_line, write_weights
from tests.formats import samples
from tests.shapes import Shapes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight images, of few disks, with their annotation file among them."""
    folder, source = tmp_path_factory.mktemp("data"), Shapes(8, size=64)
    for image_id in source.image_ids:
        Image.fromarray(source.load_image(image_id)).save(folder / f"{image_id}.png")
    truth = coco_ground_truth(source)
    disks = [a for a in truth["annotations"] if a["category_id"] == 2]
    truth["annotations"] = [a for a in truth["annotations"] if a["category_id"] != 2] + disks[:1]
    write_results(folder / "annotations.json", truth)
    write_results(folder / "empty.json", {**truth, "annotations": []})
    return folder


def pasted(printed):
    """The configuration of the lines for a Config, and that of the line for --config; they must be the same."""
    import numpy as np

    values = {}
    for line in re.findall(r"^    ([A-Z_]+ = .*)$", printed, re.MULTILINE):
        exec(line, {"np": np}, values)
    (options,) = re.findall(r"^    (--config .*)$", printed, re.MULTILINE)
    argv = ["train", "--train", "a", "--images", "b", *shlex.split(options)]
    settings = dict(_parser().parse_args(argv).config)
    base = {"NUM_CLASSES": 4}
    config, again = type("Pasted", (Config,), {**base, **values})(), Config.from_dict({**base, **settings})
    for name in values:
        np.testing.assert_allclose(getattr(config, name), getattr(again, name))
    assert settings.keys() == values.keys()
    return config


def test_summary(folder, capsys, tmp_path):
    argv = ["data", "summary", "--dataset", str(folder / "annotations.json"), "--json", str(tmp_path / "s.json")]
    assert main([*argv, "--config", "IMAGE_MAX_DIM=128", "MAX_GT_INSTANCES=1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Looked at all 8 images, in ")
    assert "64 x 64 pixels (height x width), molded to 128 x 128" in printed
    assert re.search(r"^disk +1 +\S+% +1$", printed, re.MULTILINE)
    config = pasted(printed)
    assert config.MAX_GT_INSTANCES == 10 and config.CLASS_WEIGHTS[2] > 2 > config.CLASS_WEIGHTS[0] == 1.0
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["classes"]["disk"] == {"objects": 1, "images": 1} and told["images"] == 8
    assert told["proposals"]["MEAN_PIXEL"] == config.MEAN_PIXEL.tolist()


def test_the_dataset_is_named_with_and_without_its_option(folder, capsys):
    path = str(folder / "annotations.json")
    printed = []
    for argv in ([path], ["--dataset", path], ["--images", str(folder), path], [path, "--seconds", "9"]):
        assert main(["data", "summary", *argv]) == 0
        printed.append(capsys.readouterr().out.splitlines()[1:])
    assert printed[0] == printed[1] == printed[2] == printed[3]
    for argv, told in (
        ([], "required: PATH"),
        ([path, "--dataset", path], "given twice"),
        (["--dataset", path, path], "given twice"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["data", "anchors", *argv])
        assert told in capsys.readouterr().err


def test_anchors(folder, capsys, tmp_path):
    argv = ["data", "anchors", "--dataset", str(folder / "annotations.json"), "--images", str(folder)]
    argv += ["--config", "IMAGE_MAX_DIM=64", "RPN_ANCHOR_SCALES=64,128,256,512,512"]
    assert main([*argv, "--json", str(tmp_path / "a.json")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^configured  64, 128, 256, 512, 512  0.5, 1, 2 +0.0% ", printed, re.MULTILINE)
    config = pasted(printed)
    told = json.loads((tmp_path / "a.json").read_text())
    assert list(config.RPN_ANCHOR_SCALES) == told["RPN_ANCHOR_SCALES"]
    assert config.RPN_ANCHOR_RATIOS == [0.5, 1, 2] and "RPN_ANCHOR_RATIOS" not in told
    assert told["before"]["fair"] == 0.0 and told["after"]["fair"] > 0.9 and told["better"]

    assert main([*argv, "--ratios"]) == 0
    ratios = pasted(capsys.readouterr().out).RPN_ANCHOR_RATIOS
    assert len(ratios) == 3 and ratios != [0.5, 1, 2]
    assert main([*argv, "--ratios", "2"]) == 0
    printed = capsys.readouterr()
    assert len(pasted(printed.out).RPN_ANCHOR_RATIOS) == 2
    assert "exclude rpn_class_raw and rpn_bbox_pred" in printed.err

    fitting = ",".join(map(str, told["RPN_ANCHOR_SCALES"]))
    assert main([*argv, f"RPN_ANCHOR_SCALES={fitting}"]) == 0
    printed = capsys.readouterr().out
    assert "there is nothing to change" in printed and "--config" not in printed


def test_the_configuration_is_that_of_weights(folder, capsys, tmp_path):
    stored = Config.from_dict({"NUM_CLASSES": 7, "IMAGE_MAX_DIM": 320, "CLASS_WEIGHTS": [1.0] * 7}).to_dict()
    weights = write_weights(tmp_path / "w.h5", classes=7, config={**stored, "BACKBONE": "resnet14"})
    argv = ["data", "summary", "--dataset", str(folder / "annotations.json"), "--weights", str(weights)]
    assert main(argv) == 0
    assert "molded to 320 x 320" in capsys.readouterr().out


@pytest.mark.parametrize("name", samples.WRITERS)
def test_summary_of_all_formats(name, capsys, tmp_path):
    path = samples.WRITERS[name](tmp_path)
    assert main(["data", "summary", "--dataset", str(path), "--config", "IMAGE_MAX_DIM=64"]) == 0
    printed = capsys.readouterr().out
    assert "24 x 32 pixels" in printed and re.search(r"^(dog|object) +[12] ", printed, re.MULTILINE)


def test_how_annotations_are_to_be_read_can_be_told(capsys, tmp_path):
    path = samples.via(tmp_path)
    content = json.loads(path.read_text())
    content["_via_attributes"]["region"]["name"] = {"type": "text", "description": "", "default_value": ""}
    for region in content["_via_img_metadata"]["a.png2000"]["regions"]:
        region["region_attributes"]["name"] = "rex"
    path.write_text(json.dumps(content))
    argv = ["data", "summary", "--dataset", str(path), "--config", "IMAGE_MAX_DIM=64"]
    assert main(argv) == 1
    assert "'kind', 'name'. Say which one: class_attribute, or --class-attribute" in error_line(capsys)
    assert main([*argv, "--class-attribute", "name"]) == 0
    assert re.search(r"^rex +2 ", capsys.readouterr().out, re.MULTILINE)
    samples.yolo(tmp_path)
    argv[3] = str(tmp_path)
    assert main(argv) == 1
    assert "holds several datasets" in error_line(capsys)
    for split, told in (("train", "images:           1"), ("val", "images:           1")):
        assert main([*argv, "--data-format", "yolo", "--split", split]) == 0
        assert told in capsys.readouterr().out
    assert main([*argv, "--data-format", "yolo", "--split", "test"]) == 1
    assert "has no part 'test'" in error_line(capsys)


def test_what_cannot_be_done_is_told_in_a_line(folder, capsys):
    assert main(["data", "anchors", "--dataset", str(folder / "empty.json")]) == 1
    assert "empty.json has no objects that anchors could be fitted to" in error_line(capsys)
    assert main(["data", "summary", "--dataset", str(folder / "empty.json")]) == 0
    assert "objects:          0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["data"])
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_preflight_takes_seconds(text, capsys):
    argv = ["train", "--train", "a", "--images", "b", "--preflight"]
    assert _parser().parse_args([*argv, "0"]).preflight == 0
    with pytest.raises(SystemExit):
        main([*argv, text])
    assert f"--preflight: {text}" in capsys.readouterr().err.replace("'", "")


def test_no_framework_is_needed(folder):
    argv = ["data", "anchors", "--dataset", str(folder / "annotations.json")]
    program = (
        f"import sys; from mrcnn.cli import main; main({argv});"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
