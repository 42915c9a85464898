"""Ten malformed datasets of each format: each is refused, by file and entry. What is wrong is also in the list of
problems, and what is beside it is read."""

from __future__ import annotations

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import load_dataset, read_content
from mrcnn.data.images import ImageError
from tests.formats import samples
from tests.formats.samples import CVAT_RING, CVAT_SQUARE


def edit(name, change):
    """Change the content of a JSON file."""

    def edited(folder):
        path = next(folder.rglob(name))
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edited


def text(name, old, new):
    def edited(folder):
        path = next(folder.rglob(name))
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return edited


def write(name, content):
    """Replace a file's content."""

    def written(folder):
        path = next(folder.rglob(name))
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)

    return written


def cut(name, share=0.5):
    def cut(folder):
        path = next(folder.rglob(name))
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return cut


def picture(name, values):
    return lambda folder: PIL.Image.fromarray(values).save(next(folder.rglob(name)))


def remove(name):
    def removed(folder):
        path = next(folder.rglob(name))
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return removed


def coco_case(change):
    return edit("instances.json", change)


def outline(segmentation):
    return coco_case(lambda c: c["annotations"][0].update(segmentation=segmentation))


def second(**values):
    return coco_case(lambda c: c["annotations"][1].update(values))


def via_case(change):
    return edit("via_project*.json", lambda c: change(c["_via_img_metadata"]["a.png2000"]))


def region_case(change):
    return via_case(lambda entry: change(entry["regions"][1]))


def corners(x, y):
    return via_case(lambda entry: entry["regions"][0]["shape_attributes"].update(all_points_x=x, all_points_y=y))


def shape(**values):
    return edit("a.json", lambda c: c["shapes"][1].update(values))


def at(place, *spoilers):
    """In a folder of the dataset."""
    return lambda folder: [spoil(folder / place) for spoil in spoilers]


SMALL = np.zeros((5, 7), np.uint8)
MANY = np.arange(samples.HEIGHT * samples.WIDTH, dtype=np.uint16).reshape(samples.HEIGHT, samples.WIDTH)
LINES = r"a\.txt: line 1: "
VALID = " 0.1 0.1 0.5 0.1 0.5 0.5"
CASES = {
    "coco": [
        (coco_case(lambda c: c.pop("images")), r"instances\.json is not in any format"),
        (cut("instances.json"), r"instances\.json is not a JSON file"),
        (outline([4, 6, 12, 6, 12, 14]), "annotation 1: .* flat list"),
        (outline([[1, 2, 3, 4]]), r"annotation 1: .* of 4 numbers"),
        (outline([[1, 2, 3, 4, 5, "6"]]), r"annotation 1: .*no list"),
        (coco_case(lambda c: c["annotations"][1]["segmentation"].update(size=[32, 24])), r"annotation 2: .*\[32, 24\]"),
        (second(image_id="1"), "annotation 2: its image_id '1' is not among"),
        (second(category_id=7), "annotation 2: its category_id 7 is not among"),
        (coco_case(lambda c: c["images"][1].update(id=1)), "images: image id 1 is there twice"),
        (coco_case(lambda c: c["images"][1].update(width="32")), "images: an image needs .*'b.png'"),
        (coco_case(lambda c: c["categories"][0].pop("name")), "categories: a category needs"),
        (coco_case(lambda c: c["images"][0].update(height=10**9)), "images: an image needs .*1000000000"),
    ],
    "via": [
        (cut("via_project*.json"), r"json is not a JSON file"),
        (edit("via_project*.json", lambda c: c.update(_via_img_metadata=[])), "must be an object of images"),
        (via_case(lambda entry: entry.pop("filename")), "'a.png2000': an image needs a 'filename'"),
        (via_case(lambda entry: entry.update(regions=None)), r"a\.png: 'regions' must be a list"),
        (region_case(lambda r: r.pop("shape_attributes")), r"region 1 of a\.png: needs objects 'shape_at"),
        (region_case(lambda r: r["shape_attributes"].update(name="star")), r"region 1 of a\.png: .* 'star'"),
        (region_case(lambda r: r["shape_attributes"].update(rx="wide")), r"region 1 of a\.png: .* 'rx' 'wide'"),
        (region_case(lambda r: r["shape_attributes"].update(ry=0)), r"region 1 of a\.png: .* radius 0"),
        (region_case(lambda r: r["region_attributes"].update(kind="bird")), r"region 1 of a\.png: .* 'bird'"),
        (region_case(lambda r: r["region_attributes"].update(kind=5)), r"region 1 of a\.png: has no name"),
        (corners([1, 2, 3], [1, 2]), r"region 0 of a\.png: needs lists .* of the same length"),
        (corners([1, 9], [1, 9]), r"region 0 of a\.png: has a polygon of 4 numbers"),
        (corners([1e9, 12, 12], [4, 4, 9]), r"region 0 of a\.png: .* image sizes away"),
    ],
    "labelme": [
        (cut("a.json"), r"a\.json: is not a JSON file"),
        (edit("a.json", lambda c: c.update(imagePath=None)), r"a\.json: 'imagePath' must be text"),
        (edit("a.json", lambda c: c.update(imageWidth=33)), r"a\.json: a\.png: is for an image of 24 x 33"),
        (edit("a.json", lambda c: c["shapes"].append(7)), r"a\.json: shape 2: is no object"),
        (shape(mask="not base64!"), r"a\.json: shape 1: has a 'mask' that is no base64"),
        (shape(mask="iVBORw0KGgo="), r"a\.json: shape 1: Cannot read the image file its 'mask'"),
        (shape(mask=None), r"a\.json: shape 1: is a mask, which needs a PNG"),
        (shape(points=[[500, 2], [510, 20]]), r"a\.json: shape 1: has a mask at 500, 2, outside"),
        (shape(shape_type="circle", points=[[5, 5]]), r"a\.json: shape 1: .*two points. Received: 1"),
        (shape(shape_type="circle", points=[[5, 5]] * 2), r"a\.json: shape 1: .* radius 0"),
        (shape(shape_type="polygon", points=[[5, 5], [6]]), r"a\.json: shape 1: needs 'points'"),
        (shape(shape_type="polygon", points=[[5, float("nan")]] * 3), r"shape 1: needs 'points'"),
        (shape(label=None), r"a\.json: shape 1: has no name of a class"),
    ],
    "yolo": [
        (write("a.txt", "0 0.5 0.5 0.2 0.2"), LINES + "is a box"),
        (write("a.txt", "0 0.1 0.1 0.5 0.5 0.2"), LINES + "needs a class, .* Received: 6 numbers"),
        (write("a.txt", "2" + VALID), LINES + "is of class 2. There are classes from 0 to 1"),
        (write("a.txt", "-1" + VALID), LINES + "is of class -1"),
        (write("a.txt", "0.5" + VALID), LINES + "is of class 0.5"),
        (write("a.txt", "cat" + VALID), LINES + "must be numbers"),
        (write("a.txt", "0 10 10 20 10 20 20"), LINES + "has a coordinate of 20. They must be shares"),
        (write("a.txt", "0 nan 0.1 0.5 0.1 0.5 0.5"), LINES + "must be numbers"),
        (write("a.txt", b"\xff\xfe\x00"), r"a\.txt: is not a text file in UTF-8"),
        (write("data.yaml", "names: [a\n"), r"data\.yaml is not a YAML file"),
        (write("data.yaml", "train: images/train\nnames: {0: a, 5: b}"), r"data\.yaml: 'names'"),
        (write("data.yaml", "train: nowhere\nnames: [a, b]"), r"data\.yaml names a folder 'nowhere' that is not there"),
    ],
    "voc": [
        (remove("SegmentationObject"), "must have a folder SegmentationObject|is not in any format"),
        (at("SegmentationObject", remove("2007_000001.png")), r"No such image file: .*Object.2007_000001\.png"),
        (at("SegmentationClass", remove("2007_000001.png")), r"No such image file: .*Class.2007_000001\.png"),
        (at("SegmentationObject", cut("2007_000001.png")), r"Cannot read .*SegmentationObject.2007_000001\.png"),
        (at("SegmentationClass", picture("2007_000001.png", SMALL)), r"Class.2007_000001\.png is of another size"),
        (lambda f: [picture("2007_000001.png", SMALL)(f / f"Segmentation{kind}") for kind in ("Class", "Object")],
         r"2007_000001\.png: image 2007_000001: is for an image of 5 x 7"),
        (at("SegmentationClass", picture("2007_000001.png", np.zeros_like(MANY, np.uint8))),
         r"Object.2007_000001\.png: instance 1: has no pixel of a class"),
        (at("SegmentationClass", picture("2007_000001.png", np.full_like(MANY, 77, np.uint8))),
         r"Object.2007_000001\.png: instance 1: has no pixel of a class"),
        (remove("2007_000002.jpg"), r"image 2007_000002"),
        (write("2007_000002.jpg", b"JPEG"), r"image 2007_000002: Cannot read the image file .*2007_000002\.jpg"),
    ],
    "masks": [
        (at("0ab1/masks", cut("0.png")), r"Cannot read the image file .*masks.0\.png"),
        (at("0ab1/masks", write("0.png", "text")), r"Cannot read the image file .*masks.0\.png"),
        (at("0ab1/masks", write("0.png", b"")), r"Cannot read the image file .*masks.0\.png"),
        (at("0ab1/masks", picture("0.png", SMALL)), r"masks.0\.png: is 5 x 7 .* Its image is 24 x 32"),
        (at("0ab1/masks", picture("1.png", MANY)), r"masks.1\.png holds more values than those of one mask"),
        (at("0ab1", write("0ab1.png", "text")), r"Cannot read the image file .*0ab1\.png"),
        (at("0ab1", cut("0ab1.png", 0.01)), r"Cannot read the image file .*0ab1\.png"),
        (lambda f: [shutil.rmtree(f / name / "masks") for name in ("0ab1", "0cd2")], "is not in any format"),
        (lambda f: [shutil.rmtree(f / name / "images") for name in ("0ab1", "0cd2")], "is not in any format"),
        (at("0ab1/images", picture("0ab1.png", SMALL)), r"masks.0\.png: is 24 x 32 .* Its image is 5 x 7"),
    ],
    "label_images": [
        (cut("a_mask.tif"), r"Cannot read the image file .*a_mask\.tif"),
        (picture("a_mask.tif", SMALL), r"a_mask\.tif: is for an image of 5 x 7 pixels .*a\.png measures 24 x 32"),
        (picture("a_mask.tif", np.full(MANY.shape, 0.5, np.float32)), r"a_mask\.tif holds numbers that are not whole"),
        (write("a.png", b"\x89PNG"), r"a_mask\.tif: Cannot read the image file .*a\.png"),
    ],
    "cvat": [
        (cut("annotations.xml"), r"annotations\.xml: line \d+: no well-formed XML"),
        (text("annotations.xml", '<annotations>', '<annotation>'), r"annotations\.xml"),
        (text("annotations.xml", f'width="{samples.WIDTH}"', 'width="wide"'), r"line 10: an image needs .*'wide'"),
        (text("annotations.xml", 'name="a.png" ', ""), "line 10: an image needs 'name'"),
        (text("annotations.xml", ";4.00,14.00", ";4.00"), r"line 11, polygon of a\.png: needs 'points' such as"),
        (text("annotations.xml", 'points="', 'dots="'), r"line 11, polygon of a\.png: needs 'points'.* Received: None"),
        (text("annotations.xml", ";12.00,14.00;4.00,14.00", ""), r"line 11, polygon of a\.png: .* of 4 numbers"),
        (text("annotations.xml", "4.00,6.00", "nan,6.00"), r"line 11, polygon of a\.png: .*no list of finite"),
        (text("annotations.xml", 'label="cat"', 'label="bird"'), r"line 11, polygon of a\.png: is of class 'bird'"),
        (text("annotations.xml", 'rle="', 'rle="9, '), r"line 12, mask of a\.png: .* a sum of 209. Its box"),
        (text("annotations.xml", 'rle="', 'rle="x, '), r"line 12, mask of a\.png: needs 'rle'"),
        (text("annotations.xml", 'left="18"', 'left="30"'), r"line 12, mask of a\.png: lies outside its image"),
        (text("annotations.xml", 'top="2"', ""), r"line 12, mask of a\.png: needs whole numbers"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [pytest.param(name, *case, id=f"{name}-{i}") for name, cases in CASES.items() for i, case in enumerate(cases)],
)
def test_malformed(tmp_path, name, spoil, message):
    path = samples.WRITERS[name](tmp_path)
    spoil(tmp_path)
    with pytest.raises((DatasetError, ImageError, FileNotFoundError), match=message):
        load_dataset(path)


def test_there_are_ten_of_each():
    count = {name: len(cases) for name, cases in CASES.items()}
    count["masks"] += count.pop("label_images")
    assert set(count) == {"coco", "via", "labelme", "yolo", "voc", "masks", "cvat"} and min(count.values()) >= 10


def test_all_problems_are_listed_and_the_rest_is_read(tmp_path):
    path = samples.cvat(tmp_path, CVAT_SQUARE * 3 + CVAT_RING)
    text("annotations.xml", 'label="cat"', 'label="bird"')(tmp_path)
    text("annotations.xml", "top=", "bottom=")(tmp_path)
    text("annotations.xml", 'name="b.png"', 'name="c.png"')(tmp_path)
    content = read_content(path)
    assert [problem.kind for problem in content.problems] == ["bad-coordinates", "unknown-class", "missing-image"]
    assert (len(content.images), len(content.annotations), content.rejected, content.rejected_images) == (1, 2, 2, 1)
    with pytest.raises(
        DatasetError, match=r"annotations\.xml: 3 problems\. line 11, mask .*; line 11, pol.*; c\.png: there"
    ):
        load_dataset(path)
