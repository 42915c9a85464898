"""VIA: shapes, what names the class, and where the images are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mrcnn.data.content import Kind
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import load_dataset, read_content
from tests.formats import samples
from tests.formats.samples import via_region


def project(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def regions_of(content):
    return content["_via_img_metadata"]["a.png2000"]["regions"]


def test_shapes(tmp_path):
    rect = via_region({"name": "rect", "x": 4, "y": 6, "width": 8, "height": 8}, kind="cat")
    circle = via_region({"name": "circle", "cx": 16, "cy": 12, "r": 7.5}, kind="dog")
    plain = via_region({"name": "ellipse", "cx": 16, "cy": 12, "rx": 10, "ry": 5}, kind="dog")  # before version 2.0.9
    path = project(samples.via(tmp_path), lambda c: regions_of(c).__setitem__(slice(None), [rect, circle, plain]))
    masks, _ = load_dataset(path).load_mask(0)
    np.testing.assert_array_equal(masks[..., 0], samples.SQUARE)
    for number, wanted in ((1, samples.disk(16, 12, 7.5, 7.5)), (2, samples.disk(16, 12, 10, 5))):
        assert (masks[..., number] ^ wanted).sum() <= 0.1 * wanted.sum()


@pytest.mark.parametrize("shape", [{"name": "polyline", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]},
                                   {"name": "point", "cx": 3, "cy": 4}])  # fmt: skip
def test_shapes_that_enclose_nothing(tmp_path, shape):
    path = project(samples.via(tmp_path), lambda c: regions_of(c).append(via_region(shape, kind="cat")))
    (problem,) = read_content(path).problems
    assert problem.kind == Kind.SHAPE and problem.entry == "region 2 of a.png"
    with pytest.raises(
        DatasetError, match=rf"1 of 3 annotations .*region 2 of a\.png: is a {shape['name']}, which enc"
    ):
        load_dataset(path)


def test_several_attributes_that_could_name_the_class(tmp_path):
    def change(content):
        content["_via_attributes"]["region"]["color"] = {"type": "text", "description": "", "default_value": ""}
        for region in regions_of(content):
            region["region_attributes"]["color"] = "red"

    path = project(samples.via(tmp_path), change)
    with pytest.raises(DatasetError, match="several region attributes that could name the class: 'kind', 'color'. Say"):
        load_dataset(path)
    assert load_dataset(path, class_attribute="color").class_names == ["BG", "red"]
    assert load_dataset(path, class_attribute="kind").class_names == ["BG", "dog", "cat"]
    with pytest.raises(DatasetError, match="has no region attribute 'size'. It has: 'kind', 'seen', 'color'"):
        load_dataset(path, class_attribute="size")
    with pytest.raises(DatasetError, match=r"region 1 of a\.png: has no name of a class. Received: \{\}"):
        load_dataset(path, class_attribute="seen")  # a checkbox: one is checked, or it names nothing


def test_attributes_of_version_1_are_those_of_the_regions(tmp_path):
    path = samples.via1(tmp_path)
    content = json.loads(path.read_text())
    content["a.png2000"]["regions"]["1"]["region_attributes"]["name"] = "rex"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="'kind', 'name'"):
        load_dataset(path)
    del content["a.png2000"]["regions"]["0"]["region_attributes"]["kind"]
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"region 0 of a\.png: has no name of a class. Received: None"):
        load_dataset(path, class_attribute="kind")


@pytest.mark.parametrize(("name", "wanted"), [("via_project_9Feb2026_10h", "object"), ("balloons", "balloons"),
                                              ("", "object"), (3, "object")])  # fmt: skip
def test_without_attributes_all_are_of_one_class(tmp_path, name, wanted):
    def change(content):
        content["_via_attributes"] = {"region": {}, "file": {}}
        content["_via_settings"]["project"]["name"] = name
        for region in regions_of(content):
            region["region_attributes"] = {}

    dataset = load_dataset(project(samples.via(tmp_path), change))
    assert dataset.class_names == ["BG", wanted] and dataset.load_mask(0)[1].tolist() == [1, 1]


def test_images_where_the_project_says(tmp_path):
    path = samples.via(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / name).rename(tmp_path / "photos" / name)
    with pytest.raises(FileNotFoundError, match=r"a\.png; b\.png"):
        load_dataset(path)
    project(path, lambda c: c["_via_settings"]["core"].update(default_filepath="./photos/"))
    assert load_dataset(path).num_images == 2
    content = read_content(path)
    assert [image["file_name"] for image in content.images] == ["photos/a.png", "photos/b.png"]


def test_one_image_twice(tmp_path):
    def change(content):
        content["_via_img_metadata"]["a.png1"] = content["_via_img_metadata"]["a.png2000"]

    with pytest.raises(DatasetError, match=r"a\.png: another entry is for the same image, .*a\.png"):
        load_dataset(project(samples.via(tmp_path), change))


def test_version_3_is_told(tmp_path):
    content = {"project": {"pid": "x"}, "config": {}, "attribute": {}, "file": {}, "metadata": {}, "view": {}}
    with pytest.raises(DatasetError, match="is a project of VIA 3, which is not read"):
        load_dataset(samples.write_json(tmp_path / "via3.json", content))


def test_csv_of_version_1(tmp_path):
    path = samples.via_csv(tmp_path)
    text = path.read_text()
    path.write_text("#" + text)
    assert load_dataset(path).class_names == ["BG", "cat", "dog"]
    path.write_text(text.replace("cat", 'c""at'))
    assert read_content(path).problems[0].entry == "region 0 (line 2) of a.png"
