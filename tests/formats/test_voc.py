"""Pascal VOC: lists of images, void, and the variants of labelme and CVAT."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import load_dataset, read_content
from tests.formats import samples
from tests.formats.samples import HEIGHT, RING, SQUARE, WIDTH


def test_lists_of_images(tmp_path):
    path = samples.voc(tmp_path)
    lists = path / "ImageSets" / "Segmentation"
    assert load_dataset(path).num_images == 2
    for dataset in (load_dataset(path, split="val"), load_dataset(lists / "val.txt")):
        assert [info["path"][-8:] for info in dataset.image_info] == ["0002.jpg"]
    with pytest.raises(FileNotFoundError, match=r"test\.txt"):
        load_dataset(path, split="test")
    (lists / "val.txt").write_text("2007_000002\n2007_000009\n../../etc/passwd\n" + "x" * 300 + "\n")
    content = read_content(lists / "val.txt")
    assert [problem.entry for problem in content.problems][:2] == ["2007_000009", "../../etc/passwd"]
    assert len(content.problems) == 3 and len(content.images) == 1
    with pytest.raises(
        DatasetError, match=r"val\.txt: 3 problems\. 2007_000009: No such image file: .*2007_000009\.png"
    ):
        load_dataset(lists / "val.txt")


def test_void_is_of_no_instance(tmp_path):
    content = read_content(samples.voc(tmp_path))
    assert len(content.annotations) == 2
    assert content.categories[0] == {"id": 1, "name": "aeroplane"}
    assert [annotation["category_id"] for annotation in content.annotations] == [8, 12]


def test_the_class_is_that_of_most_pixels(tmp_path):
    path = samples.voc(tmp_path)
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    classes[SQUARE] = 3
    classes[6:9, 4:12], classes[10, 5] = 5, 255
    samples.palette(path / "SegmentationClass" / "2007_000001.png", classes)
    content = read_content(path)
    assert [annotation["category_id"] for annotation in content.annotations] == [3]
    (problem,) = content.problems
    assert problem.entry == "instance 2" and "has no pixel of a class" in problem.message


def test_without_classes(tmp_path):
    path = samples.voc(tmp_path)
    for file in (path / "SegmentationClass").iterdir():
        file.unlink()
    (path / "SegmentationClass").rmdir()
    assert load_dataset(path).class_names == ["BG", "object"]


def test_the_variant_of_labelme(tmp_path):
    """labelme2voc.py: arrays where VOC has pictures, pictures in folders of another name, and names of the classes."""
    path = samples.voc(tmp_path)
    for kind in ("SegmentationObject", "SegmentationClass"):
        (path / kind).rename(path / f"{kind}PNG")
        (path / kind).mkdir()
        np.save(path / kind / "2007_000001.npy", np.zeros(3))
    names = ["_background_", *(f"class{number}" for number in range(1, 15))]
    samples.write_text(path / "class_names.txt", "\n".join(names))
    dataset = load_dataset(path)
    assert [dataset.class_names[number] for number in dataset.load_mask(0)[1]] == ["class8", "class12"]
    samples.write_text(path / "class_names.txt", "\n".join(["__ignore__", *names]))
    assert load_dataset(path).class_names == dataset.class_names


def test_the_variant_of_cvat(tmp_path):
    """ "Segmentation mask": pictures in colors, those of the classes in a file."""
    path = samples.voc(tmp_path)
    samples.write_text(
        path / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:5,0,0::\ndog:0,0,1::\n"
    )
    objects, classes = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    # The palette's colors of numbers 7, which is a gray, and 2; void around one of them.
    objects[5:15, 3:13], objects[SQUARE], objects[RING] = (224, 224, 192), (128, 128, 128), (0, 128, 0)
    classes[SQUARE], classes[RING] = (5, 0, 0), (0, 0, 1)
    for kind, values in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        PIL.Image.fromarray(values).save(path / kind / "2007_000001.png")
    dataset = load_dataset(path)
    assert dataset.class_names == ["BG", "cat", "dog"]
    masks, class_ids = dataset.load_mask(0)
    by_class = dict(zip(class_ids.tolist(), np.moveaxis(masks, -1, 0), strict=True))
    np.testing.assert_array_equal(by_class[1], SQUARE)
    np.testing.assert_array_equal(by_class[2], RING)


def test_colors_without_a_list_are_those_of_the_palette(tmp_path):
    path = samples.voc(tmp_path)
    classes = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    classes[SQUARE], classes[RING] = (64, 0, 0), (64, 0, 128)
    PIL.Image.fromarray(classes).save(path / "SegmentationClass" / "2007_000001.png")
    assert load_dataset(path).load_mask(0)[1].tolist() == [8, 12]
