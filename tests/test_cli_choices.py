"""Tiles, least scores by class, suppression across classes and mirror images, from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from mrcnn import cli
from mrcnn.cli import main
from mrcnn.cli.running import Running, Stopwatch
from mrcnn.config import Config
from mrcnn.data.masks import extract_bboxes
from mrcnn.data.rle import encode_masks
from mrcnn.inference import Detector
from mrcnn.tiling import TiledImage
from tests.command_line import error_line, write_weights
from tests.oracle_engine import OracleConfig, OracleEngine, mosaic, truth

NAMES = ("BG", "cat", "dog", "bird")


@pytest.fixture
def oracle(monkeypatch, tmp_path):
    """Commands in a folder with weights, run by an oracle."""
    engine = OracleEngine()

    def opened(args, *more, **options):
        clock = Stopwatch(engine)
        return Running(Detector(clock, OracleConfig(), flips=args.flips), clock, NAMES, True)

    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "w.h5")
    for command in ("detecting", "evaluating"):
        monkeypatch.setattr(f"mrcnn.cli.{command}.open_detector", opened)
    return engine


@pytest.fixture(scope="module")
def image():
    return mosaic((230, 300), 50, seed=2)


def test_detect_in_tiles(oracle, image, tmp_path, capsys):
    oracle.seconds = 0.01
    Image.fromarray(image).save("a.png")
    Image.fromarray(image[:100, :90]).save("b.png")
    assert main(["detect", "a.png", "b.png", "missing.png", "--weights", "w.h5", "--tile", "128"]) == 1
    printed = capsys.readouterr()
    expected = truth(image)
    rows = {line.split()[0]: line.split() for line in printed.out.splitlines()[1:3]}
    assert int(rows["a.png"][1]) == len(expected) and int(rows["b.png"][1]) == len(truth(image[:100, :90]))
    assert float(rows["a.png"][2]) >= 0.06 > float(rows["b.png"][2]) > 0 and "tiles)." in printed.out
    assert [line for line in printed.err.splitlines() if line] == ["mrcnn: error: No such image file: missing.png"]
    entries = json.loads((tmp_path / "detections" / "detections.json").read_text())
    entries = [entry for entry in entries if entry["file_name"] == "a.png"]
    masks = encode_masks(np.stack(list(expected.values()), axis=-1))
    assert sorted(entry["segmentation"]["counts"] for entry in entries) == sorted(rle["counts"] for rle in masks)
    assert oracle.runs == 7  # of 2 x 3 tiles, and of one
    with Image.open("detections/a_detected.png") as picture:
        assert picture.size == (300, 230)


def test_without_pictures_no_image_is_loaded_whole(oracle, image, tmp_path, monkeypatch):
    def whole(self):
        raise AssertionError("loaded whole")

    monkeypatch.setattr(TiledImage, "whole", whole)
    tifffile.imwrite("a.tif", image, photometric="rgb")
    tifffile.imwrite("b.tif", np.zeros_like(image), photometric="rgb")  # nothing is found
    assert main(["detect", "a.tif", "b.tif", "--weights", "w.h5", "--tile", "128", "--format", "csv", "coco"]) == 0
    entries = json.loads((tmp_path / "detections" / "detections.json").read_text())
    assert len(entries) == len(truth(image)) and {entry["file_name"] for entry in entries} == {"a.tif"}


def test_evaluate_in_tiles(oracle, image, tmp_path, capsys):
    Image.fromarray(image).save("a.png")
    masks = np.stack(list(truth(image).values()), axis=-1)
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1 + color % 3, "segmentation": rle, "iscrowd": 0,
         "area": int(masks[..., number - 1].sum()), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for number, (color, rle, (y1, x1, y2, x2)) in enumerate(
            zip(truth(image), encode_masks(masks), extract_bboxes(masks).tolist(), strict=True), start=1
        )
    ]  # fmt: skip
    images = [{"id": 1, "file_name": "a.png", "width": 300, "height": 230}]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES[1:], start=1)]
    told = {"images": images, "categories": categories, "annotations": annotations}
    (tmp_path / "coco.json").write_text(json.dumps(told))
    argv = ["evaluate", "coco.json", "--images", ".", "--weights", "w.h5", "--json", "figures.json"]
    assert main([*argv, "--tile", "128", "--overlap", "0.5", "--flips", "vertical,both"]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["mask"]["ap"] == figures["box"]["ap"] == 1
    assert (figures["tile"], figures["overlap"]) == (128, 0.5) and oracle.runs == 3 * 12
    assert main(argv) == 0 and oracle.runs == 3 * 12 + 1
    assert "tile" not in json.loads((tmp_path / "figures.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a.png", "--overlap", "0.3"], "--overlap is of tiles: it needs --tile. Received: --overlap 0.3"),
        (["a.png", "clip.mp4", "--tile", "128"], "--tile is for images"),
        (["a.png", "--tile", "20"], "tile must be a whole number of pixels, at least 64. Received: 20"),
    ],
)
def test_users_mistakes_are_told_in_a_line(oracle, image, arguments, told, capsys):
    Image.fromarray(image).save("a.png")
    assert main(["detect", *arguments, "--weights", "w.h5"]) == 1
    assert told in error_line(capsys) and oracle.runs == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--overlap", "1"], "1 is not from 0 to 0.9"),
        (["--overlap", "half"], "'half' is not a number"),
        (["--tile", "0"], "0 is not a whole number of at least 1"),
        (["--flips", "sideways"], "'sideways' is not of horizontal, vertical and both"),
        (["--flips", "both,both"], "each once"),
        (["--min-confidence", "cat=2"], "2 is not from 0 to 1"),
        (["--min-confidence", "cat=0.5,cat=0.6"], "with each class once"),
        (["--min-confidence", "cat=0.5,0.6"], "is not CLASS=X,CLASS=X"),
        (["--min-confidence", "=0.5"], "is not CLASS=X,CLASS=X"),
    ],
)
def test_wrong_usage_exits_2(arguments, told, capsys):
    with pytest.raises(SystemExit) as left:
        main(["detect", "a.png", "--weights", "w.h5", *arguments])
    assert left.value.code == 2 and told in capsys.readouterr().err


# What reaches the network


class _Built(Exception):
    pass


@pytest.fixture
def built(monkeypatch, tmp_path):
    """What a command would build a network, or open an exported model, with."""
    told = {}

    class Model:
        def __init__(self, mode, config, model_dir):
            self.config, self.keras_model = config, self

        def load_weights(self, path):
            pass

    def detector(model, config=None, **options):
        told.update(options, config=config or model.config)
        raise _Built

    import mrcnn.model

    monkeypatch.setattr(mrcnn.model, "MaskRCNN", Model)
    monkeypatch.setattr("mrcnn.cli.running.Detector", detector)
    monkeypatch.chdir(tmp_path)
    stored = {"NUM_CLASSES": 4, "BACKBONE": "resnet14", "DETECTION_MIN_CONFIDENCE": 0.6}
    write_weights(tmp_path / "w.h5", config=stored, class_names=list(NAMES))
    write_weights(tmp_path / "unnamed.h5")
    own = {**stored, "DETECTION_CLASS_CONFIDENCE": [0, 0.1, 0.2, 0.3]}
    write_weights(tmp_path / "own.h5", config=own, class_names=list(NAMES))
    Image.new("RGB", (8, 8)).save("a.png")

    def build(*arguments):
        told.clear()
        assert main(["detect", "a.png", "--weights", "w.h5", *arguments]) == 1
        return told

    return build


def test_choices_become_fields_of_the_configuration(built):
    config = built()["config"]
    assert config.least_scores() == 0.6 and not config.DETECTION_NMS_CLASS_AGNOSTIC
    told = built("--class-agnostic-nms", "--flips", "horizontal,vertical", "--min-confidence", "cat=0.3, bird =0.8")
    assert told["flips"] == ("horizontal", "vertical") and told["config"].DETECTION_NMS_CLASS_AGNOSTIC is True
    np.testing.assert_allclose(told["config"].DETECTION_CLASS_CONFIDENCE, [0.6, 0.3, 0.6, 0.8], rtol=1e-6)
    assert built("--weights", "own.h5")["config"].least_scores() == [0, 0.1, 0.2, 0.3]
    assert built("--weights", "own.h5", "--min-confidence", "0.4")["config"].least_scores() == 0.4
    least = built("--weights", "own.h5", "--min-confidence", "dog=0.9")["config"].least_scores()
    np.testing.assert_allclose(least, [0, 0.1, 0.9, 0.3], rtol=1e-6)
    least = built("--weights", "unnamed.h5", "--min-confidence", "2=0.9,class 3=0.1")["config"].least_scores()
    np.testing.assert_allclose(least, [0.7, 0.7, 0.9, 0.1], rtol=1e-6)


def test_a_class_that_is_not_there_is_told(built, capsys):
    built("--min-confidence", "horse=0.3")
    assert "The network has no class 'horse'. It knows: cat, dog, bird." in error_line(capsys)
    built("--weights", "unnamed.h5", "--min-confidence", "7=0.3")
    assert "The network has classes 1 to 3. Received: 7." in error_line(capsys)


def test_evaluation_goes_down_to_low_scores_of_the_other_classes(built, tmp_path):
    from mrcnn.cli.running import open_detector

    parser = cli._parser()
    for given, expected in (
        ([], 0.05),
        (["--min-confidence", "0.3"], 0.3),
        (["--min-confidence", "dog=0.9"], [0.05, 0.05, 0.9, 0.05]),
        (["--weights", "own.h5"], 0.05),
        (["--weights", "own.h5", "--min-confidence", "dog=0.9"], [0.05, 0.05, 0.9, 0.05]),
    ):
        args = parser.parse_args(["evaluate", "x.json", "--weights", "w.h5", *given])
        args.verbose = False
        told = built.__closure__[0].cell_contents
        with pytest.raises(_Built):
            open_detector(args, 0.05)
        np.testing.assert_allclose(told["config"].least_scores(), expected, rtol=1e-6)


def test_choices_of_an_exported_model(built, tmp_path, capsys):
    from mrcnn.bundle import write_bundle

    config = Config.from_dict({"NUM_CLASSES": 4, "BACKBONE": "resnet14", "DETECTION_MIN_CONFIDENCE": 0.4})

    def write(where):
        (where / "model.onnx").write_bytes(b"a network")
        return "model.onnx"

    write_bundle(tmp_path / "model", "onnx", "float32", config, NAMES, write, lambda bundle: {})
    told = built("--weights", "model", "--min-confidence", "cat=0.5,dog=0.9", "--class-agnostic-nms", "--flips", "both")
    assert told["min_confidence"] == {1: 0.5, 2: 0.9} and told["class_agnostic_nms"] and told["flips"] == ("both",)
    assert not told["config"].DETECTION_NMS_CLASS_AGNOSTIC
    capsys.readouterr()
    assert built("--weights", "model", "--min-confidence", "0.3") == {}
    assert "exported to find what scores 0.4 or better" in error_line(capsys)
