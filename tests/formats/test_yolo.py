"""YOLO: what data.yaml may say, the layouts of several tools, and parts of the set."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data.checking import check
from mrcnn.data.content import Kind
from mrcnn.data.dataset import DatasetError
from mrcnn.data.findings import Level
from mrcnn.data.formats import load_dataset, read_content
from tests.formats import samples

SQUARE = "0.125 0.25 0.375 0.25 0.375 0.583333 0.125 0.583333"


@pytest.mark.parametrize("names", ["names: [cat, dog]", "names:\n  - cat\n  - dog", "names:\n  1: dog\n  0: cat",
                                   "nc: 2\nnames: {0: cat, 1: dog}", "names: ['cat', \"dog\"]"])  # fmt: skip
def test_names(tmp_path, names):
    path = samples.yolo(tmp_path)
    path.write_text(f"train: images/train\nval: images/val\n{names}\n")
    dataset = load_dataset(path)
    assert dataset.class_names == ["BG", "cat", "dog"] and dataset.load_mask(0)[1].tolist() == [1, 2]


def test_names_that_yaml_takes_for_something_else(tmp_path):
    path = samples.yolo(tmp_path)
    path.write_text("train: images/train\nnames: [no, 2024-01-01]\n")
    assert load_dataset(path).class_names == ["BG", "no", "2024-01-01"]


@pytest.mark.parametrize("names", ["names: 3", "names: []", "names: {0: cat, 2: dog}", "names: {a: cat}", "nc: 2",
                                   "names: [cat, cat]", "names: [[cat], dog]", "names: {0: [cat]}"])  # fmt: skip
def test_names_that_will_not_do(tmp_path, names):
    path = samples.yolo(tmp_path)
    path.write_text(f"train: images/train\n{names}\n")
    with pytest.raises(DatasetError, match=r"data\.yaml.* 'names'"):
        load_dataset(path)


def test_nested_aliases_take_no_time(tmp_path):
    path = samples.yolo(tmp_path)
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)), "names: *a59"]
    path.write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=r"'names' must be .* Received: \[\[\[\["):
        load_dataset(path)


def test_parts(tmp_path):
    path = samples.yolo(tmp_path)
    assert load_dataset(path, split="train").load_mask(0)[1].tolist() == [1, 2]
    assert load_dataset(path, split="val").load_mask(0)[1].tolist() == []
    with pytest.raises(DatasetError, match=r"data\.yaml has no part 'test'. It has: train, val"):
        load_dataset(path, split="test")
    # A folder of one part, its classes named above it.
    for part in ("images/train", "images/val"):
        assert load_dataset(tmp_path / part, format="yolo").class_names == ["BG", "cat", "dog"]
    assert read_content(tmp_path / "images" / "train").format == "yolo"


def test_a_folder_that_is_all_parts_is_taken_once(tmp_path):
    path = samples.yolo(tmp_path)
    path.write_text("train: images/train\nval: images/train\nnames: [cat, dog]\n")
    for split in (None, "train", "val"):
        assert load_dataset(path, split=split).num_images == 1


def test_the_layout_of_roboflow(tmp_path):
    for part in ("train", "valid"):
        samples.image(tmp_path / part / "images" / "a.jpg")
        samples.write_text(tmp_path / part / "labels" / "a.txt", f"1 {SQUARE}\n")
    samples.write_text(
        tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['a', 'b']\n"
    )
    assert load_dataset(tmp_path).num_images == 2
    dataset = load_dataset(tmp_path, split="val")
    assert dataset.image_info[0]["path"].endswith("valid/images/a.jpg") and dataset.load_mask(0)[1].tolist() == [2]
    assert load_dataset(tmp_path / "valid").class_names == ["BG", "a", "b"]


def test_the_layout_of_label_studio(tmp_path):
    samples.image(tmp_path / "images" / "a.jpg")
    samples.write_text(tmp_path / "labels" / "a.txt", f"1 {SQUARE}\n")
    samples.write_text(tmp_path / "classes.txt", "cat\nbig dog\n")
    samples.write_json(tmp_path / "notes.json", {"categories": [{"id": 0, "name": "cat"}], "info": {}})
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ["BG", "cat", "big dog"]
    np.testing.assert_array_equal(dataset.load_mask(0)[0][..., 0], samples.SQUARE)


def test_images_and_labels_side_by_side_or_listed(tmp_path):
    samples.image(tmp_path / "a.jpg"), samples.image(tmp_path / "b.jpg")
    samples.write_text(tmp_path / "a.txt", f"2 {SQUARE}\n")
    content = read_content(tmp_path)
    assert [category["name"] for category in content.categories] == ["0", "1", "2"] and len(content.images) == 2
    assert [problem.is_error for problem in content.problems] == [False]
    samples.write_text(tmp_path / "set.yaml", "train: train.txt\nnames: [a, b, c]\n")
    samples.write_text(tmp_path / "train.txt", "./a.jpg\n")
    dataset = load_dataset(tmp_path)
    assert dataset.num_images == 1 and dataset.load_mask(0)[1].tolist() == [3]
    samples.write_text(tmp_path / "train.txt", "./a.jpg\n./gone.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images .*gone\.jpg"):
        load_dataset(tmp_path)


def test_boxes_are_told(tmp_path):
    path = samples.yolo(tmp_path)
    samples.write_text(tmp_path / "labels" / "train" / "a.txt", f"0 {SQUARE}\n0 0.5 0.5 0.2 0.2\n")
    (problem,) = read_content(path).problems
    assert problem.kind == Kind.SHAPE and problem.entry == "line 2" and problem.file.endswith("labels/train/a.txt")
    with pytest.raises(DatasetError, match=r"a\.txt: line 2: is a box, 'class x y width height'\. An instance needs"):
        load_dataset(path)


def test_a_set_without_labels(tmp_path):
    path = samples.yolo(tmp_path)
    (tmp_path / "labels" / "train" / "a.txt").unlink(), (tmp_path / "labels" / "val" / "b.txt").unlink()
    with pytest.raises(DatasetError, match=r"none of the 2 images has a label file, such as .*a\.txt"):
        load_dataset(path)
    path.write_text("train: pictures\nnames: [a]\n")
    with pytest.raises(DatasetError, match=r"data\.yaml names a folder 'pictures' that is not there: .*pictures"):
        load_dataset(path)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DatasetError, match="there are no images in .*pictures"):
        load_dataset(path)


def test_labels_without_an_image_are_told(tmp_path):
    path = samples.yolo(tmp_path)
    samples.write_text(tmp_path / "labels" / "train" / "gone.txt", f"0 {SQUARE}\n")
    samples.write_text(tmp_path / "labels" / "train" / "classes.txt", "cat\ndog\n")
    samples.write_text(tmp_path / "labels" / "train" / "empty.txt", "")
    (problem,) = read_content(path).problems
    assert problem.kind == Kind.MISSING_IMAGE and not problem.is_error and problem.file.endswith("train/gone.txt")
    assert load_dataset(path).num_images == 2 and not read_content(path, split="val").problems
    findings = check(read_content(path), Config()).findings
    assert [kind for kind, _, _ in findings.of_level(Level.WARNING) if kind == "missing-image"] == ["missing-image"]
