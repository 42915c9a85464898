"""labelme: shapes, groups, the layouts of its versions, and where the images are."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest

from mrcnn.data.content import Kind
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import load_dataset, read_content
from tests.formats import samples
from tests.formats.samples import CORNERS, RING, SQUARE, labelme_file, labelme_shape


@pytest.fixture
def masks_of(tmp_path):
    """The masks of an image of these shapes."""

    def masks_of(*shapes):
        samples.image(tmp_path / "a.png")
        dataset = load_dataset(labelme_file(tmp_path / "a.json", list(shapes), "a.png"))
        return np.moveaxis(dataset.load_mask(0)[0], -1, 0)

    return masks_of


def test_shapes(masks_of):
    circle, *squares = masks_of(
        labelme_shape("circle", [[16, 12], [16, 20]]),
        labelme_shape("rectangle", [[12, 14], [4, 6]]),
        labelme_shape("rectangle", CORNERS),
        labelme_shape("oriented_rectangle", CORNERS),
    )
    wanted = samples.disk(16, 12, 8, 8)
    assert (circle ^ wanted).sum() <= 0.1 * wanted.sum()
    for square in squares:
        np.testing.assert_array_equal(square, SQUARE)


def test_masks_reach_beyond_the_image(masks_of):
    whole = np.ones((10, 10), bool)
    top, bottom = masks_of(
        labelme_shape("mask", [[-3, -4], [6, 5]], mask=samples.png(whole)),
        labelme_shape("mask", [[28, 20], [37, 29]], mask=samples.png(whole)),
    )
    assert top[:6, :7].all() and top.sum() == 42
    assert bottom[20:, 28:].all() and bottom.sum() == 16


def test_a_group_is_one_instance(masks_of):
    other = [[20, 2], [24, 2], [24, 6], [20, 6]]
    ring = labelme_shape("mask", [[18, 2], [27, 21]], mask=samples.png(RING[2:22, 18:28]), group_id=1)
    joined, alone = masks_of(
        labelme_shape("polygon", CORNERS, group_id=0),
        labelme_shape("polygon", CORNERS, "cat", group_id=None),
        labelme_shape("polygon", other, group_id=0),
    )
    assert joined.sum() == SQUARE.sum() + 16 and joined[3, 21]
    np.testing.assert_array_equal(alone, SQUARE)
    circle = labelme_shape("circle", other[:2], "cat", group_id=1)
    mixed, cat = masks_of(labelme_shape("polygon", CORNERS, group_id=1), ring, circle)
    np.testing.assert_array_equal(mixed, RING | SQUARE)
    assert cat.sum() < 60


def test_what_is_no_object_is_left_out_and_told(tmp_path):
    samples.image(tmp_path / "a.png")
    shapes = [labelme_shape("polygon", CORNERS, "__ignore__"), labelme_shape("polygon", CORNERS)]
    path = labelme_file(tmp_path / "a.json", shapes, "a.png")
    (problem,) = read_content(path).problems
    assert not problem.is_error and problem.entry == "shape 0"
    assert load_dataset(path).class_names == ["BG", "dog"]


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points", "spline"])
def test_shapes_that_enclose_nothing(tmp_path, kind):
    samples.image(tmp_path / "a.png")
    path = labelme_file(tmp_path / "a.json", [labelme_shape(kind, CORNERS)], "a.png")
    (problem,) = read_content(path).problems
    assert problem.kind == Kind.SHAPE and problem.file == str(path) and kind in problem.message
    with pytest.raises(DatasetError, match=r"a\.json: 1 of 1 annotations cannot be used\. shape 0: "):
        load_dataset(path)


def test_version_3(tmp_path):
    """No shape_type, no size, colors beside."""
    samples.image(tmp_path / "a.png")
    shape = {"label": "dog", "line_color": None, "fill_color": None, "points": CORNERS}
    content = {"version": "3.3.6", "flags": {}, "shapes": [shape], "lineColor": [0, 255, 0, 128],
               "imagePath": "a.png", "imageData": "iVBORw0KGgo="}  # fmt: skip
    path = samples.write_json(tmp_path / "a.json", content)
    np.testing.assert_array_equal(load_dataset(path).load_mask(0)[0][..., 0], SQUARE)
    (tmp_path / "a.png").unlink()
    (problem,) = read_content(path).problems
    assert problem.kind == Kind.MISSING_IMAGE and "embeds it" in problem.message


def test_where_images_are(tmp_path):
    """As Windows writes it; in a folder of its own; called like the file, where the file names itself."""
    samples.image(tmp_path / "images" / "a.png")
    (tmp_path / "ann").mkdir()
    for name in (r"..\images\a.png", "../images/a.png"):
        path = labelme_file(tmp_path / "ann" / "a.json", [], name)
        assert load_dataset(path).image_info[0]["path"].endswith("a.png")
    path = labelme_file(tmp_path / "ann" / "a.json", [], r"C:\photos\a.png")
    assert load_dataset(path, tmp_path / "images").num_images == 1
    with pytest.raises(FileNotFoundError, match=r"1 of the 1 images"):
        load_dataset(path)
    samples.image(tmp_path / "ann" / "a.jpg")
    assert load_dataset(labelme_file(path, [], "a.json")).image_info[0]["path"].endswith("a.jpg")


def test_one_bad_file_among_many(tmp_path):
    """All that is wrong is in the list; loading tells the first few."""
    samples.labelme(tmp_path)
    samples.write_text(tmp_path / "c.json", "{")
    samples.write_json(tmp_path / "d.json", {"some": "thing"})
    labelme_file(tmp_path / "e.json", [labelme_shape("polygon", CORNERS[:2])], "b.png")
    content = read_content(tmp_path)
    assert [(problem.kind, problem.file[-6:]) for problem in content.problems] == [
        (Kind.FILE, "c.json"), (Kind.FILE, "d.json"), (Kind.DUPLICATE_ID, "e.json"),
    ]  # fmt: skip
    assert len(content.images) == 2 and len(content.annotations) == 2
    with pytest.raises(
        DatasetError, match=r"3 problems\. .*c\.json: is not a JSON file: .*d\.json: is not in labelme's"
    ):
        load_dataset(tmp_path)


def test_files_in_folders_below(tmp_path):
    samples.labelme(tmp_path / "one")
    samples.labelme(tmp_path / "two")
    assert load_dataset(tmp_path, format="labelme").num_images == 4


def test_size_of_the_file_is_that_of_the_image(tmp_path):
    samples.labelme(tmp_path)
    content = json.loads((tmp_path / "a.json").read_text())
    for size in ((None, 5), ("24", "32"), (24.0, 32), (0, 32)):
        samples.write_json(tmp_path / "a.json", {**content, "imageHeight": size[0], "imageWidth": size[1]})
        with pytest.raises(DatasetError, match=r"a\.json: 'imageHeight' and 'imageWidth' must be whole numbers"):
            load_dataset(tmp_path)


def test_a_gray_photo(tmp_path):
    PIL.Image.new("L", (samples.WIDTH, samples.HEIGHT)).save(tmp_path / "a.png")
    assert load_dataset(labelme_file(tmp_path / "a.json", [], "a.png")).load_image(0).shape[2] == 3


def test_of_a_photo_that_is_only_embedded_it_is_said(tmp_path):
    file = labelme_file(tmp_path / "a.json", [labelme_shape("polygon", CORNERS)], "a.png")
    content = json.loads(file.read_text())
    samples.write_json(file, {**content, "imageData": "AAAA"})
    (tmp_path / "a.png").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"or --images\. The annotation file embeds it: save it beside"):
        load_dataset(file)
