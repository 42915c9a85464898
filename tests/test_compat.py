"""Programs as users of the original wrote them (tests/compat), run from beginning to end on small data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from mrcnn.model import MaskRCNN
from tests import filler, golden
from tests.compat import projects
from tests.shapes import Shapes
from tests.small import SmallConfig

FOLDER = Path(projects.__file__).parent
ROOT = FOLDER.parents[1]
YEAR = "2014"

POLYGONS = [
    ["polygons.py", "train", "--dataset=polygons", "--weights=coco"],
    ["polygons.py", "train", "--dataset=polygons", "--weights=last"],
    ["polygons.py", "splash", "--image=polygons/val/1.jpg", "--weights=one_class.h5"],
]
CELLS = [
    ["cells.py", "train", "--dataset=cells", "--subset=train", "--weights=coco"],
    ["cells.py", "detect", "--dataset=cells", "--subset=test", "--weights=one_class.h5"],
]
COCO_TRAIN = ["coco.py", "train", "--dataset=coco", f"--year={YEAR}", "--model=coco"]
COCO_EVALUATE = ["coco.py", "evaluate", "--dataset=coco", f"--year={YEAR}", "--model=eighty.h5", "--limit=2"]
SHAPES = [["shapes_notebook.py"]]
DETECTOR = ["kaggle_detector.py"]
TUTORIAL = ["tutorial.py"]
INSPECT = ["inspect_notebook.py", "--confidence=0.5"]
INSPECT_NOTHING = ["inspect_notebook.py", "--confidence=1"]


class Project:
    """A folder in which the programs have run, and what each printed."""

    def __init__(self, folder: Path, output: str) -> None:
        self.folder = folder
        self.outputs = {}
        for part in output.split("\n$ ")[1:]:
            command_line, _, printed = part.partition("\n")
            self.outputs[command_line] = printed

    def output(self, command_line: list[str]) -> str:
        printed = self.outputs[" ".join(command_line)]
        assert "Traceback" not in printed, printed[printed.index("Traceback") :]
        return printed


def prepare(folder: Path, backbone: str | None = None) -> None:
    projects.write_polygons(folder / "polygons")
    projects.write_cells(folder / "cells")
    projects.write_coco(folder / "coco", YEAR)
    projects.write_opacities(folder / "opacities")
    projects.write_kangaroos(folder / "kangaroos")
    projects.write_weights(folder / "mask_rcnn_coco.h5", backbone=backbone)
    projects.write_weights(folder / "one_class.h5", classes=2, backbone=backbone)
    projects.favor_class(folder / "one_class.h5", 1)
    projects.write_weights(folder / "eighty.h5", backbone=backbone)
    projects.favor_class(folder / "eighty.h5", 9)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **more}


def run(arguments: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """A program in a process of its own, which must not warn of anything in our code."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(**variables), capture_output=True, text=True)
    assert not [line for line in done.stderr.splitlines() if re.search(r"mrcnn/.*Warning", line)]
    return done


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    prepare(folder)
    command_lines = [*POLYGONS, *CELLS, COCO_EVALUATE, *SHAPES, DETECTOR, TUTORIAL, INSPECT, INSPECT_NOTHING]
    path = os.pathsep.join([str(FOLDER), str(ROOT)])
    done = run([str(FOLDER / "run.py"), json.dumps(command_lines)], folder, PYTHONPATH=path)
    project = Project(folder, done.stdout)
    assert list(project.outputs) == [" ".join(command_line) for command_line in command_lines], done.stderr[-3000:]
    return project


def checkpoints(folder: Path, name: str, logs: str = "logs") -> list[str]:
    """Names of the checkpoints of the one run of `name`."""
    (log_dir,) = [path for path in (folder / logs).iterdir() if re.fullmatch(rf"{name}\d{{8}}T\d{{4}}", path.name)]
    return sorted(path.name for path in log_dir.glob("*.h5"))


def test_outlined_objects_are_trained_on_from_coco_weights(project):
    printed = project.output(POLYGONS[0])
    assert re.search(r"^NUM_CLASSES +2$", printed, re.MULTILINE)
    assert "mrcnn_class_logits" in printed and "res2a_branch2a" not in printed  # the heads train, the backbone does not
    (path,) = (project.folder / "logs").glob("polygon*/mask_rcnn_polygon_0001.h5")
    with h5py.File(path) as file:
        kernel = file["conv1/conv1/kernel:0"][...]
        np.testing.assert_array_equal(kernel, filler.fill("conv1", "kernel", kernel.shape))
        head = file["mrcnn_class_conv1/mrcnn_class_conv1/kernel:0"][...]
        expected = filler.fill("mrcnn_class_conv1", "kernel", head.shape)
        assert 0 < np.abs(head - expected).max() < 0.1  # what was loaded, moved by two steps
        assert file["mrcnn_class_logits/mrcnn_class_logits/bias:0"].shape == (2,)


def test_training_resumes_with_last(project):
    printed = project.output(POLYGONS[1])
    assert "Re-starting from epoch 1" in printed
    assert checkpoints(project.folder, "polygon") == ["mask_rcnn_polygon_0001.h5", "mask_rcnn_polygon_0002.h5"]


def check_splash(folder: Path, printed: str) -> None:
    assert int(re.search(r"Objects: (\d+)", printed)[1]) > 0
    assert "Processing 1 images" in printed and "molded_images            shape: (1, 64, 64, 3)" in printed
    (path,) = folder.glob("splash_*.png")
    splash = np.array(Image.open(path)).astype(int)
    image = np.array(Image.open(folder / "polygons" / "val" / "1.jpg")).astype(int)
    assert splash.shape == image.shape
    colored = np.ptp(splash, axis=2) > 0
    assert 0 < colored.mean() < 1
    np.testing.assert_array_equal(splash[colored], image[colored])


def test_color_splash(project):
    check_splash(project.folder, project.output(POLYGONS[2]))


def test_a_folder_of_png_masks_is_trained_on(project):
    printed = project.output(CELLS[0])
    assert "Images: 3 to train on, 2 to validate on" in printed
    assert "res2a_branch2a" in printed
    assert checkpoints(project.folder, "cell") == ["mask_rcnn_cell_0001.h5"]
    (path,) = (project.folder / "logs").glob("cell*/mask_rcnn_cell_0001.h5")
    with h5py.File(path) as file:
        kernel = file["conv1/conv1/kernel:0"][...]
        assert np.abs(kernel - filler.fill("conv1", "kernel", kernel.shape)).max() > 0


def check_run_lengths(folder: Path) -> None:
    """Each line is an object: pixels in the image, that no other object has."""
    (path,) = folder.glob("results/cells/submit_*/submit.csv")
    header, *lines = path.read_text().splitlines()
    assert header == "ImageId,EncodedPixels"
    counts = {}
    for line in lines:
        name, _, pairs = line.partition(",")
        if name not in counts:
            assert (path.parent / f"{name}.png").stat().st_size > 0
            width, height = Image.open(folder / "cells" / "test" / name / "images" / f"{name}.png").size
            counts[name] = np.zeros(height * width, int)
        starts, lengths = np.array(pairs.split(), int).reshape(-1, 2).T
        assert starts.min() >= 1 and lengths.min() >= 1
        for start, length in zip(starts, lengths, strict=True):
            assert start - 1 + length <= counts[name].size
            counts[name][start - 1 : start - 1 + length] += 1
    assert sorted(counts) == ["test000", "test001"]
    assert all(count.max() == 1 for count in counts.values())


def test_detections_as_run_lengths(project):
    project.output(CELLS[1])
    check_run_lengths(project.folder)


def check_evaluation(printed: str) -> None:
    found = re.findall(r"Found: (\d+) of categories (.*)", printed)
    assert len(found) == 2 and found[0] == found[1] and int(found[0][0]) > 0
    assert found[0][1] == "[10]"  # class 9 of ours: category 9 is not in use
    values = re.findall(r"Average (?:Precision|Recall) .* = (-?[\d.]+)", printed)
    assert len(values) == 24 and all(value == "-1.000" or 0 <= float(value) <= 1 for value in values)


def test_evaluation_with_the_tools_of_coco(project):
    check_evaluation(project.output(COCO_EVALUATE))


def check_shapes(folder: Path, printed: str) -> None:
    assert checkpoints(folder, "shapes") == ["mask_rcnn_shapes_0001.h5", "mask_rcnn_shapes_0002.h5"]
    assert (folder / "logs" / "mask_rcnn_shapes.h5").exists()
    for name, shape, dtype in (("original_image", r"\(64, 64, 3\)", "uint8"), ("gt_bbox", r"\(\d, 4\)", "int32")):
        assert re.search(rf"^{name} +shape: {shape} +min: +[\d.]+  max: +[\d.]+  {dtype}$", printed, re.MULTILINE)
    assert 0 <= float(re.search(r"^mAP:  (.*)$", printed, re.MULTILINE)[1]) <= 1


def test_the_notebook_of_shapes(project):
    check_shapes(project.folder, project.output(SHAPES[0]))


def check_detector(folder: Path, printed: str) -> None:
    """Anchors on four levels, images without objects, a history of two trainings, a measure of the script's own."""
    names = ["mask_rcnn_opacity_0001.h5", "mask_rcnn_opacity_0002.h5"]
    assert checkpoints(folder, "opacity", "detector") == names
    assert re.search(r"^STEPS_PER_EPOCH +2$", printed, re.MULTILINE)
    assert re.search(r"Loaded weights for the inference model: .*mask_rcnn_opacity_0002\.h5$", printed, re.MULTILINE)
    assert re.search(r"^mAP at epoch 2 is: [\d.]+$", printed, re.MULTILINE)
    assert len(re.findall(r"^Measured: \[.+\]$", printed, re.MULTILINE)) == 1
    losses = [float(value) for value in re.findall(r"^Epoch \d val_loss (.*)$", printed, re.MULTILINE)]
    assert len(losses) == 2
    best = names[int(np.argmin(losses))]
    assert re.search(rf"^Found model .*{best}$", printed, re.MULTILINE)
    _, *lines = (folder / "submission.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["0000", "0001", "0002", "0003"]
    for line in lines:
        numbers = np.array(line.partition(",")[2].split(), float).reshape(-1, 5)
        assert ((numbers[:, 1:3] + numbers[:, 3:5]) <= 96).all() and (numbers[:, 1:] >= 0).all()


def test_a_detector_with_images_without_objects(project):
    check_detector(project.folder, project.output(DETECTOR))


def check_tutorial(printed: str) -> None:
    assert "Train: 2, Test: 2" in printed
    assert 0 <= float(re.search(r"^Test mAP: (.*)$", printed, re.MULTILINE)[1]) <= 1
    assert int(re.search(r"^Photo: float32 \(60, 90, 3\) \(60, 90, (\d+)\)$", printed, re.MULTILINE)[1]) > 0


def test_a_tutorial(project):
    check_tutorial(project.output(TUTORIAL))
    assert (project.folder / "predicted.png").stat().st_size > 0


def check_inspection(printed: str, found: bool) -> None:
    """Ground truth and detections are of one image, that which was resized."""
    assert "[60 90  3]" in printed and "(128, 128, 3)" in printed
    count = int(re.search(r"^Found: (\d+)$", printed, re.MULTILINE)[1])
    assert (count > 0) == found
    assert (int(re.search(r"^(\d+) detections: ", printed, re.MULTILINE)[1]) > 0) == found
    assert 0 <= float(re.search(r"^AP over the range: (.*)$", printed, re.MULTILINE)[1]) <= 1
    assert re.search(r"^refined_anchors_clipped  shape: \(1, \d+, 4\)", printed, re.MULTILINE)
    assert re.search(r"^All Anchors .*Recall: \d\.\d{3}", printed, re.MULTILINE)
    assert int(re.search(r"^Figures: (\d+)$", printed, re.MULTILINE)[1]) > 10


@pytest.mark.parametrize("command_line", [INSPECT, INSPECT_NOTHING], ids=["found", "nothing"])
def test_a_look_inside(project, command_line):
    check_inspection(project.output(command_line), command_line is INSPECT)


def test_the_check_of_numbers_in_the_docs(tmp_path, monkeypatch, capsys):
    """The two programs of docs/migrating.md, with the same network on both sides, and then with another."""
    record, compare = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "migrating.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    model = MaskRCNN("inference", SmallConfig(), "logs")
    golden.fill_small(model.keras_model)
    names = {"model": model, "dataset": Shapes(2, size=64)}
    exec(record, dict(names))
    exec(compare, dict(names))
    printed = capsys.readouterr().out
    assert re.fullmatch(r"(image \d: (\d+) objects then, \2 now\n(  .*\D0(\.0)?(?: pixels)?\n){4}){2}", printed)
    logits = model.keras_model.get_layer("mrcnn_class_logits")
    logits.set_weights([logits.get_weights()[0] / 100, logits.get_weights()[1]])
    exec(compare, names)
    differences = re.findall(r"scores differ by (.*)", capsys.readouterr().out)
    assert len(differences) == 2 and all(float(difference) > 1e-3 for difference in differences)


@pytest.mark.slow
def test_all_programs_with_resnet50(tmp_path):
    """In a process each, as users run them."""
    prepare(tmp_path, backbone="resnet50")
    printed = []
    for name, *arguments in (*POLYGONS, *CELLS, COCO_TRAIN, COCO_EVALUATE, *SHAPES, DETECTOR, TUTORIAL, INSPECT):
        done = run([str(FOLDER / name), *arguments], tmp_path, COMPAT_BACKBONE="resnet50")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        printed.append(done.stdout)
    assert "Re-starting from epoch 1" in printed[1]
    check_splash(tmp_path, printed[2])
    check_run_lengths(tmp_path)
    assert checkpoints(tmp_path, "coco") == [f"mask_rcnn_coco_{epoch:04d}.h5" for epoch in (1, 2, 3)]
    check_evaluation(printed[6])
    check_shapes(tmp_path, printed[7])
    check_detector(tmp_path, printed[8])
    check_tutorial(printed[9])
    check_inspection(printed[10], found=True)
