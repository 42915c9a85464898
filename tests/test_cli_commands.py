"""The commands that run a network: detect, evaluate and train, with stand-ins for it and, once, with a true one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image

from mrcnn.cli import _PRESETS, main
from mrcnn.presets import PRESETS
from tests.command_line import error_line, running, settings, write_weights
from tests.formats import samples
from tests.shapes import KINDS, Shapes, ShapesConfig


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> SimpleNamespace:
    """Four images of shapes as PNG files with a COCO annotation file."""
    from mrcnn.evaluation import coco_ground_truth, write_results

    folder = tmp_path_factory.mktemp("shapes")
    dataset = Shapes(4, size=64)
    for image_id in dataset.image_ids:
        Image.fromarray(dataset.load_image(image_id)).save(folder / f"{image_id}.png")
    annotations = folder / "annotations.json"
    write_results(annotations, coco_ground_truth(dataset))
    images = [str(folder / f"{image_id}.png") for image_id in dataset.image_ids]
    return SimpleNamespace(folder=folder, dataset=dataset, annotations=str(annotations), images=images)


# detect


@pytest.fixture
def finder(monkeypatch):
    monkeypatch.setattr("mrcnn.cli.detecting.open_detector", lambda args: running())


@pytest.mark.usefixtures("finder")
def test_detect_goes_on_after_a_bad_image(tmp_path, monkeypatch, capsys):
    from pycocotools import mask as rle_codec

    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "w.h5")
    for name in ("a.png", "b/a.png", "b/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20), (200, 90, 10)).save(name)
    Image.fromarray(np.full((20, 30), -5.0, np.float32)).save("dark.tif")  # a picture, but of no known range
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    argv = [
        "detect",
        "missing.png",
        "a.png",
        "broken.png",
        "dark.tif",
        "b",
        "--weights",
        "w.h5",
        "--output",
        "out/here",
    ]
    assert main(argv) == 1
    printed = capsys.readouterr()
    errors = printed.err.splitlines()
    assert len(errors) == 3 and all(line.startswith("mrcnn: error: ") for line in errors)
    assert all(name in line for name, line in zip(("missing.png", "broken.png", "dark.tif"), errors, strict=True))
    rows = [line.split() for line in printed.out.splitlines()]
    assert [row[0] for row in rows[1:4]] == ["a.png", "b/a.png", "b/c.jpg"]
    assert all(row[1] == "1" and row[3:] == ["1", "dog"] for row in rows[1:4])
    assert all(float(row[2]) >= 0 for row in rows[1:4])
    assert "3 of 6 images, 3 instances, 3 failed." in printed.out

    out = tmp_path / "out" / "here"
    assert sorted(path.name for path in out.iterdir()) == [
        "a_2_detected.png", "a_detected.png", "c_detected.png", "detections.json",
    ]  # fmt: skip
    entries = json.loads((out / "detections.json").read_text())
    assert [(e["image_id"], e["file_name"]) for e in entries] == [(2, "a.png"), (5, "b/a.png"), (6, "b/c.jpg")]
    assert entries[0]["category_id"] == 2 and entries[0]["category_name"] == "dog"
    assert entries[0]["bbox"] == [1, 2, 4, 4] and entries[0]["score"] == 0.5
    mask = rle_codec.decode(entries[0]["segmentation"])
    assert mask.shape == (20, 30) and mask.sum() == 16 and mask[2:6, 1:5].all()


@pytest.mark.usefixtures("finder")
def test_detect_writes_the_results_where_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "w.h5")
    Image.new("L", (30, 20), 99).save("gray.png")
    assert main(["detect", "gray.png", "--weights", "w.h5", "--json", "results.json"]) == 0
    assert (tmp_path / "detections" / "gray_detected.png").is_file()
    assert len(json.loads((tmp_path / "results.json").read_text())) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("finder")
def test_detect_writes_the_formats_it_is_asked_for(tmp_path, monkeypatch, capsys):
    from mrcnn.results.saving import FORMATS

    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "w.h5")
    for name in ("a.png", "b/a.png", "b/å.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGBA", (30, 20)).save(name)
    assert main(["detect", "a.png", "b", "--weights", "w.h5", "--format", *FORMATS]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "Pictures" not in printed.out
    assert printed.out.splitlines()[-1].startswith("Results: detections/detections.json, detections/labelme, ")
    files = {str(p.relative_to("detections")) for p in Path("detections").rglob("*") if p.is_file()}
    each = [("labelme", "json"), ("yolo/labels", "txt"), ("labels", "png")]
    assert files == {"detections.json", "measurements.csv", "yolo/data.yaml"} | {
        f"{folder}/{name}.{suffix}" for folder, suffix in each for name in ("a", "a_2", "å")
    }
    assert json.loads(Path("detections/labelme/a_2.json").read_text())["imagePath"] == "../../b/a.png"
    labels = np.array(Image.open("detections/labels/å.png"))
    assert labels.sum() == 16 and labels[2:6, 1:5].all()
    assert Path("detections/measurements.csv").read_text().splitlines()[2].startswith("b/a.png,1,2,dog,0.5,16,2.500,")
    assert 'names:\n  0: "cat"\n  1: "dog"' in Path("detections/yolo/data.yaml").read_text()

    assert main(["detect", "b", "--weights", "w.h5", "--output", "p", "--format", "pictures", "csv"]) == 0
    assert "Results: p/measurements.csv." in capsys.readouterr().out
    assert sorted(path.name for path in Path("p").iterdir()) == ["a_detected.png", "measurements.csv", "å_detected.png"]
    assert main(["detect", "b", "clip.mp4", "--weights", "w.h5", "--output", "v", "--format", "coco", "csv"]) == 1
    assert "--format csv is for images" in error_line(capsys) and not Path("v").exists()


def test_the_formats_that_can_be_asked_for_are_those_there_are(capsys):
    from mrcnn.results.saving import FORMATS

    with pytest.raises(SystemExit):
        main(["detect", "a.png", "--weights", "w", "--format", "voc"])
    assert "choose from pictures, " + ", ".join(FORMATS) in capsys.readouterr().err.replace("'", "")


def test_folder_without_images_is_an_error(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert main(["detect", str(tmp_path), "--weights", "w.h5"]) == 1
    assert "holds no images" in error_line(capsys)


# evaluate


def evaluating(monkeypatch, dataset, names, known=True, order=None):
    """Make `mrcnn evaluate` use a model that finds the truth of `dataset`, its class ids mapped by `order`."""
    from mrcnn.cli.running import Running
    from mrcnn.data.masks import extract_bboxes

    class Truth:
        engine = SimpleNamespace(name="truth", precision="int8")

        def detect(self, images):
            results = []
            for image in images:
                i = next(i for i in dataset.image_ids if np.array_equal(dataset.load_image(i), image))
                masks, class_ids = dataset.load_mask(i)
                results.append(
                    {
                        "rois": extract_bboxes(masks),
                        "class_ids": np.array([(order or {}).get(c, c) for c in class_ids.tolist()], np.int32),
                        "scores": np.linspace(0.9, 0.8, len(class_ids)),
                        "masks": masks,
                    }
                )
            return results

    found = Running(Truth(), None, names, known)
    monkeypatch.setattr("mrcnn.cli.evaluating.open_detector", lambda *arguments, **options: found)


def test_evaluate_matches_classes_by_name(shapes, monkeypatch, tmp_path, capsys):
    # The network has another order, and a class that the annotation file does not know.
    names = ("BG", "triangle", "star", "square", "disk")
    evaluating(monkeypatch, shapes.dataset, names, order={1: 3, 2: 4, 3: 1})
    argv = ["evaluate", shapes.annotations, "--images", str(shapes.folder), "--weights", "w.h5"]
    files = ["--json", str(tmp_path / "figures.json"), "--results", str(tmp_path / "results.json")]
    assert main([*argv, *files]) == 0
    printed = capsys.readouterr()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["mask"]["ap"] == figures["box"]["ap50"] == 1
    assert figures["image_count"] == 4 and figures["annotations_per_class"]["star"] == 0
    assert (figures["engine"], figures["precision"]) == ("truth", "int8")
    assert "AP50" in printed.out and "triangle" in printed.out
    results = json.loads((tmp_path / "results.json").read_text())
    truth = json.loads(Path(shapes.annotations).read_text())["annotations"]
    assert sorted(r["category_id"] for r in results) == sorted(a["category_id"] for a in truth)
    assert main([*argv, "--limit", "1", "--json", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["image_count"] == 1


def test_evaluate_refuses_classes_that_do_not_match(shapes, monkeypatch, capsys):
    argv = ["evaluate", shapes.annotations, "--images", str(shapes.folder), "--weights", "w.h5"]
    evaluating(monkeypatch, shapes.dataset, ("BG", "square", "star"))
    assert main(argv) == 1
    told = error_line(capsys)
    assert "does not know: disk, triangle" in told and "It knows: square, star" in told
    evaluating(monkeypatch, shapes.dataset, ("BG", "class 1", "class 2"), known=False)
    assert main(argv) == 1
    assert "2 classes without names" in error_line(capsys)
    evaluating(monkeypatch, shapes.dataset, ("BG", "class 1", "class 2", "class 3"), known=False)
    assert main(argv) == 0
    assert "does not name its classes" in capsys.readouterr().err


# train


class Trained:
    """Stands in for MaskRCNN in training, and notes what it is asked for."""

    last: Trained

    def __init__(self, mode, config, model_dir):
        Trained.last = self
        self.mode, self.config, self.calls = mode, config, []
        self.checkpoint_path, self.epoch = f"{model_dir}/run/mask_rcnn_{{epoch:04d}}.h5", 0

    def load_weights(self, path, by_name, exclude):
        self.calls.append(("load", str(path), tuple(exclude)))

    def set_log_dir(self):
        self.calls.append("new run")

    def train(self, train_set, val_set, **options):
        self.calls.append("train")
        self.train_set, self.val_set, self.options, self.epoch = train_set, val_set, options, options["epochs"]
        return SimpleNamespace(history={})


@pytest.fixture
def train(shapes, monkeypatch):
    import mrcnn.model

    monkeypatch.setattr(mrcnn.model, "MaskRCNN", Trained)

    def run(*arguments: str) -> Trained:
        assert main(["train", "--train", shapes.annotations, "--images", str(shapes.folder), *arguments]) == 0
        return Trained.last

    return run


def test_train_from_scratch(train, shapes, capsys):
    arguments = ["--weights", "none", "--epochs", "3", "--config", "BACKBONE=resnet14", "IMAGES_PER_GPU=3", "--name"]
    model = train(*arguments, "mine", "--val", shapes.annotations, "--learning-rate", "0.5", "--augmentation", "none")
    assert model.mode == "training" and model.calls == ["train"]
    config = model.config
    assert (config.NAME, config.NUM_CLASSES, config.BACKBONE, config.BATCH_SIZE) == ("mine", 4, "resnet14", 3)
    assert (config.STEPS_PER_EPOCH, config.VALIDATION_STEPS) == (2, 2)  # four images, three a step
    options = {"learning_rate": 0.5, "epochs": 3, "layers": "all", "preflight_seconds": 5.0}
    assert model.options.items() >= options.items() and config.AUGMENTATION == "none"
    assert model.val_set.class_names == model.train_set.class_names == ["BG", *KINDS]
    assert "mask_rcnn_0003.h5" in capsys.readouterr().out


def test_train_takes_the_parts_of_a_set_in_any_format(monkeypatch, tmp_path):
    import mrcnn.model

    monkeypatch.setattr(mrcnn.model, "MaskRCNN", Trained)
    path = str(samples.yolo(tmp_path))
    assert main(["train", "--train", path, "--val", path, "--weights", "none"]) == 0
    trained = Trained.last
    assert [info["path"][-11:] for info in trained.train_set.image_info] == ["train/a.png"]
    assert [info["path"][-9:] for info in trained.val_set.image_info] == ["val/b.png"]
    assert trained.train_set.class_names == trained.val_set.class_names == ["BG", "cat", "dog"]


def test_train_goes_on_with_a_checkpoint(train, tmp_path, monkeypatch):
    from mrcnn.cli import training

    inspect = training.inspect_weights
    stored = {**ShapesConfig().to_dict(), "LEARNING_RATE": 0.25, "AUGMENTATION": "strong"}
    path = write_weights(tmp_path / "w.h5", config=stored, class_names=["BG", *KINDS])
    with h5py.File(path, "a") as file:
        file.create_group("optimizer_weights")
    assert inspect(path).has_optimizer
    model = train("--weights", str(path), "--layers", "4+", "--config", "SEED=5")
    assert model.calls == [("load", str(path), ()), "train"]
    assert model.config.STEPS_PER_EPOCH == ShapesConfig.STEPS_PER_EPOCH and model.config.SEED == 5
    assert model.options["learning_rate"] == 0.25 and model.options["layers"] == "4+"
    assert model.config.AUGMENTATION == "strong" and "augmentation" not in model.options
    # Under another name it is a new run.
    model = train("--weights", str(path), "--name", "new")
    assert model.calls == [("load", str(path), ()), "new run", "train"] and model.config.AUGMENTATION == "flip"
    assert train("--weights", str(path), "--augment", "standard").config.AUGMENTATION == "standard"
    assert train("--weights", str(path), "--config", "AUGMENTATION=none").config.AUGMENTATION == "none"


def test_train_on_other_classes_leaves_their_layers_out(train, tmp_path, capsys):
    heads = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")
    path = write_weights(tmp_path / "w.h5", classes=81)
    assert train("--weights", str(path)).calls == [("load", str(path), heads), "new run", "train"]
    assert "start from scratch" in capsys.readouterr().err
    path = write_weights(tmp_path / "w.h5", classes=4, class_names=["BG", "cat", "dog", "cow"])
    assert train("--weights", str(path)).calls[0] == ("load", str(path), heads)
    path = write_weights(tmp_path / "b.h5", kind="backbone")
    model = train("--weights", str(path))
    assert model.calls == [("load", str(path), ()), "new run", "train"] and model.config.BACKBONE == "resnet14"


@pytest.fixture
def sought(monkeypatch):
    """Names of weights that are looked for; what is found is `sought.path`."""
    from mrcnn.cli import training

    class Sought(list):
        path = None

        def __call__(self, name):
            self.append(name)
            return self.path

    found = Sought()
    monkeypatch.setattr(training, "find_weights", found)
    return found


def test_train_by_a_preset(train, sought, tmp_path):
    assert sorted(_PRESETS) == sorted(PRESETS)
    whole = {"class_names": ["BG", *KINDS]}
    sought.path = write_weights(tmp_path / "legacy.h5", config=ShapesConfig().to_dict(), **whole)
    config = train("--preset", "modern", "--config", "IMAGE_MIN_DIM=128").config
    assert set(sought) == {"torchvision/maskrcnn_resnet50_fpn_v2_coco"}
    modern = {**PRESETS["modern"], "BACKBONE": ShapesConfig.BACKBONE, "IMAGE_MIN_DIM": 128}
    for field, value in modern.items():
        np.testing.assert_array_equal(getattr(config, field), value, err_msg=field)
    assert config.NUM_CLASSES == 4 and config.IMAGES_PER_GPU == ShapesConfig.IMAGES_PER_GPU
    # What the weights were trained with gives way to the original's numbers, too.
    sought.path = write_weights(tmp_path / "modern.h5", config=config.to_dict(), **whole)
    legacy = train("--weights", "modern.h5", "--preset", "legacy").config
    assert (legacy.ROI_ALIGN, legacy.IMAGE_MIN_DIM, legacy.BACKBONE) == ("legacy", 800, ShapesConfig.BACKBONE)
    assert train("--weights", "none", "--preset", "modern").config.BACKBONE == "resnet50"
    assert train("--weights", "none").config.ROI_ALIGN == "legacy"
    # A backbone's weights hang on how they are computed with.
    hang = {"BACKBONE": "resnet18", "RESNET_STRIDE_IN_3X3": False, "IMAGE_CHANNEL_ORDER": "bgr"}
    sought.path = write_weights(tmp_path / "b.h5", kind="backbone", config=hang)
    backbone = train("--weights", "b.h5", "--preset", "modern").config
    assert {field: getattr(backbone, field) for field in hang} == hang and backbone.ROI_ALIGN == "aligned"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--preset", "modern"], "torchvision/resnet50_imagenet1k_v2"),
        (["--preset", "detectron2", "--config", "BACKBONE=resnet101"], "detectron2/R-101"),
        ([], "imagenet"),
    ],
)
def test_train_from_imagenet_takes_what_the_preset_computes_with(train, sought, tmp_path, options, name):
    sought.path = write_weights(tmp_path / "b.h5", kind="backbone")
    assert train("--weights", "imagenet", *options).calls[0] == ("load", str(sought.path), ())
    assert sought == [name]


def test_train_tells_users_mistakes(shapes, tmp_path, capsys):
    argv = ["train", "--weights", "none", "--images", str(shapes.folder)]
    assert main([*argv, "--train", str(tmp_path / "no.json")]) == 1
    assert "No such file or folder" in error_line(capsys)
    assert main([*argv, "--train", shapes.annotations, "--val-images", "."]) == 1
    assert "needs --val" in error_line(capsys)
    empty = tmp_path / "empty.json"
    empty.write_text('{"images": [], "categories": [], "annotations": []}')
    assert main([*argv, "--train", str(empty)]) == 1
    assert "lists no images" in error_line(capsys)
    truth = json.loads(Path(shapes.annotations).read_text())
    empty.write_text(json.dumps({**truth, "categories": [], "annotations": []}))
    assert main([*argv, "--train", str(empty)]) == 1
    assert "nothing to learn" in error_line(capsys)
    assert main([*argv, "--train", shapes.annotations, "--config", "IMAGE_MAX_DIM=1000"]) == 1
    assert "Nearest: 960, 1024" in error_line(capsys)


# All of it


def test_train_detect_and_evaluate_for_true(shapes, tmp_path, monkeypatch, capsys):
    from mrcnn import training
    from tests.test_training import Untraced

    monkeypatch.setattr(training, "TrainingModel", Untraced)
    monkeypatch.chdir(tmp_path)
    data = ["--images", str(shapes.folder)]
    tiny = ["--config", *settings(STEPS_PER_EPOCH=1, VALIDATION_STEPS=1, EVALUATE_IMAGES=2)]
    argv = ["train", "--train", shapes.annotations, *data, "--weights", "none", "--epochs", "1", "--logs", "runs"]
    assert main([*argv, "--val", shapes.annotations, "--name", "tiny", *tiny]) == 0
    (weights,) = (tmp_path / "runs").glob("tiny*/mask_rcnn_tiny_0001.h5")
    best, report = (weights.relative_to(tmp_path).with_name(name) for name in ("best.h5", "report.html"))
    printed = capsys.readouterr().out
    assert f"Weights: {weights.relative_to(tmp_path)}\nBest weights: {best}\nReport: {report}\n" in printed
    assert re.search(r"(?m)^ +epoch +loss +val loss +.*mask AP .*\n +1/1 +\d.* best$", printed)  # a table, unasked for
    assert best.is_file() and 'id="precision"' in report.read_text()

    assert main(["info", str(weights)]) == 0
    told = capsys.readouterr().out
    assert "resnet14" in told and "BG, square, disk, triangle" in told and "64 x 64 (square)" in told

    # By name, for which is the fastest would have to be measured first.
    by_name = ["--engine", "keras", "--precision", "float32"]
    assert main(["detect", *shapes.images[:2], "--weights", str(weights), *by_name]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.startswith("engine: keras, float32\n")
    assert (tmp_path / "detections" / "1_detected.png").is_file()
    json.loads((tmp_path / "detections" / "detections.json").read_text())

    argv = ["evaluate", shapes.annotations, *data, "--weights", str(weights), "--json", "figures.json"]
    assert main(argv) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["image_count"] == 4 and 0 <= figures["mask"]["ap50"] <= 1

    assert main(["detect", shapes.images[0], "--weights", str(weights), "--config", "MASK_CONV_SIZE=16"]) == 1
    assert "MASK_CONV_SIZE is 16, the file has 32" in error_line(capsys)
