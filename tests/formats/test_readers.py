"""Every format: the same square comes out of each, and each is recognized by itself."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

import mrcnn
from mrcnn.data.content import Kind
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import load_dataset, read_content
from tests.formats import samples

FORMATS = {name: name for name in samples.WRITERS} | {"via1": "via", "via_csv": "via", "label_images": "masks"}
# Where classes have an order of their own.
ORDER = {"via": ["dog", "cat"], "cvat": ["dog", "cat"], "masks": ["object"], "label_images": ["object"]}


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    return (mask & other).sum() / (mask | other).sum()


@pytest.mark.parametrize("name", samples.WRITERS)
def test_the_same_from_all_formats(tmp_path, name):
    path = samples.WRITERS[name](tmp_path)
    content = read_content(path)
    assert content.format == FORMATS[name] and content.problems == [] and content.path == path
    assert [image["height"] for image in content.images] == [samples.HEIGHT] * 2
    assert all(content.image_path(image).is_file() for image in content.images)
    assert all(annotation["iscrowd"] == 0 for annotation in content.annotations)

    dataset = mrcnn.load_dataset(str(path))
    names = dataset.class_names[1:]
    if name == "voc":
        assert names[7] == "cat" and names[11] == "dog" and len(names) == 20
    else:
        assert names == ORDER.get(name, ["cat", "dog"])
    assert dataset.num_images == 2 and dataset.load_image(1).shape == (samples.HEIGHT, samples.WIDTH, 3)
    np.testing.assert_array_equal(dataset.load_image(0), read_upright(dataset.image_info[0]["path"]))
    masks, class_ids = dataset.load_mask(0)
    np.testing.assert_array_equal(masks[..., 0], samples.SQUARE)
    if FORMATS[name] == "via":
        assert overlap(masks[..., 1], samples.disk(20, 12, 9, 4, 0.5)) > 0.9
    elif name != "yolo":
        np.testing.assert_array_equal(masks[..., 1], samples.RING)
    assert masks[16, 23, 1] and masks.shape[2] == 2
    told = [dataset.class_names[number] for number in class_ids]
    assert told == (["object"] * 2 if FORMATS[name] == "masks" else ["cat", "dog"])
    assert dataset.load_mask(1)[0].shape == (samples.HEIGHT, samples.WIDTH, 0)


def read_upright(path: str) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.array(image)


@pytest.mark.parametrize("name", samples.WRITERS)
def test_the_format_can_be_named_and_images_lie_elsewhere(tmp_path, name):
    path = samples.WRITERS[name](tmp_path / "set")
    if FORMATS[name] in ("coco", "via", "labelme", "cvat"):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        for image in list((tmp_path / "set").rglob("*.png")):
            image.rename(elsewhere / image.name)
        assert load_dataset(path, elsewhere, FORMATS[name]).num_images == 2
        with pytest.raises(FileNotFoundError, match=r"2 of the 2 images of .* are missing in .*: a\.png; b\.png\."):
            load_dataset(path)
    else:
        assert load_dataset(path, format=FORMATS[name]).num_images == 2
    with pytest.raises(FileNotFoundError, match="No such folder of images: .*gone"):
        load_dataset(path, tmp_path / "gone")
    with pytest.raises(DatasetError, match="There is no format 'paper'. There are: coco, via, labelme"):
        load_dataset(path, format="paper")


def test_folders_are_searched_for_their_annotation_file(tmp_path):
    for name in ("coco", "via", "via_csv", "yolo", "cvat", "labelme", "voc", "masks", "label_images"):
        samples.WRITERS[name](tmp_path / name)
        assert read_content(tmp_path / name).format == FORMATS[name]
        assert load_dataset(tmp_path / name).num_images == 2
    with pytest.raises(
        DatasetError, match=r"These folders in it are: coco; cvat; label_images; labelme; masks and 4 mor"
    ):
        read_content(tmp_path)


def test_what_is_of_no_format(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file or folder: .*gone"):
        read_content(tmp_path / "gone")
    with pytest.raises(DatasetError, match=r"is not in any format that is known\. Known are: COCO .*CVAT"):
        read_content(tmp_path)
    with pytest.raises(DatasetError, match=r"x\.json is not in any format .* It is an object of \['a', 'b'\]"):
        read_content(samples.write_json(tmp_path / "x.json", {"a": 1, "b": 2}))
    with pytest.raises(DatasetError, match=r"x\.zip is not in any format that is known\. Unpack it first"):
        read_content(samples.write_text(tmp_path / "x.zip", "PK"))
    with pytest.raises(DatasetError, match=r"is not in the format 'cvat'"):
        read_content(tmp_path, format="cvat")


def test_a_folder_of_several_datasets(tmp_path):
    samples.coco(tmp_path)
    samples.yolo(tmp_path)
    with pytest.raises(
        DatasetError, match=r"holds several datasets: .* \(yolo\); .*instances\.json \(coco\)\. Name one"
    ):
        read_content(tmp_path)
    assert read_content(tmp_path, format="yolo").format == "yolo"
    assert read_content(tmp_path, format="coco").format == "coco"


def test_a_damaged_file_in_a_folder(tmp_path):
    """It is told where there is nothing else, and no matter where there is."""
    samples.write_text(tmp_path / "set" / "x.json", "{")
    with pytest.raises(DatasetError, match=r"x\.json is not a JSON file"):
        read_content(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"is not in any format that is known"):
        read_content(tmp_path)
    samples.yolo(tmp_path / "set")
    assert read_content(tmp_path / "set").format == "yolo"


def test_parts_of_a_set(tmp_path):
    """A file, or a folder, for each part: which one is wanted can be told."""
    content = samples.coco(tmp_path / "train").read_text()
    for part in ("train2017", "val2017"):
        samples.write_text(tmp_path / "both" / "annotations" / f"instances_{part}.json", content)
        for name in ("a.png", "b.png"):
            samples.image(tmp_path / "both" / part / name)
    found = read_content(tmp_path / "both", split="val")
    assert found.path.name == "instances_val2017.json" and found.folder == tmp_path / "both" / "val2017"
    with pytest.raises(DatasetError, match="holds several datasets"):
        read_content(tmp_path / "both")
    samples.via(tmp_path / "valid")
    assert read_content(tmp_path, split="val").format == "via"
    assert read_content(tmp_path, split="train").format == "coco"
    assert read_content(tmp_path / "valid", split="train").format == "via"  # it has no parts


def test_classes_are_numbered_as_others_are(tmp_path):
    path = samples.labelme(tmp_path)
    samples.labelme_file(path / "a.json", [samples.labelme_shape("polygon", samples.CORNERS)], "a.png")
    dataset = load_dataset(path)
    assert dataset.class_names == ["BG", "dog"]
    dataset = load_dataset(path, class_names=["BG", "bird", "cat", "dog"])
    assert dataset.class_names == ["BG", "bird", "cat", "dog"] and dataset.load_mask(0)[1].tolist() == [3]
    with pytest.raises(DatasetError, match="has classes that class_names does not know: dog. It knows: bird"):
        load_dataset(path, class_names=["BG", "bird"])


@pytest.mark.parametrize("name", [name for name in samples.WRITERS if name != "coco"])
def test_an_image_is_not_taken_twice_and_must_be_one(tmp_path, name):
    path = samples.WRITERS[name](tmp_path)
    image = read_content(path)
    file = image.image_path(image.images[0])
    file.write_bytes(b"no image")
    (problem,) = read_content(path).problems
    assert problem.kind == Kind.UNREADABLE_IMAGE and str(file) in problem.message
    with pytest.raises(DatasetError, match=f"Cannot read the image file .*{file.name}"):
        load_dataset(path)


@pytest.mark.parametrize("name", ["labelme", "voc", "cvat"])
def test_images_of_another_size(tmp_path, name):
    path = samples.WRITERS[name](tmp_path)
    content = read_content(path)
    samples.image(content.image_path(content.images[0]), 10, 20)
    with pytest.raises(DatasetError, match=r"is for an image of 24 x 32 pixels \(height x width\), but .* 10 x 20"):
        load_dataset(path)


@pytest.mark.parametrize("name", [name for name in samples.WRITERS if name != "coco"])
def test_orientation(tmp_path, name):
    """Annotations are for the upright image; where the file tells a size that only the stored one has, for that."""
    path = samples.WRITERS[name](tmp_path)
    content = read_content(path)
    file = content.image_path(content.images[0])
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    samples.image(file, samples.WIDTH, samples.HEIGHT, exif=exif)
    dataset = load_dataset(path)
    assert (dataset.image_info[0]["height"], dataset.image_info[0]["width"]) == (samples.HEIGHT, samples.WIDTH)
    np.testing.assert_array_equal(dataset.load_mask(0)[0][..., 0], samples.SQUARE)
    upright = dataset.load_image(0)
    assert upright.shape == (samples.HEIGHT, samples.WIDTH, 3)
    samples.image(file, samples.HEIGHT, samples.WIDTH, exif=exif)
    if name in ("labelme", "voc", "cvat", "masks", "label_images"):
        np.testing.assert_array_equal(load_dataset(path).load_image(0), read_upright(str(file)))
    else:
        assert load_dataset(path).load_image(0).shape == (samples.WIDTH, samples.HEIGHT, 3)


def test_nothing_but_images(tmp_path):
    samples.write_json(tmp_path / "x.json", {"images": [], "annotations": [], "categories": []})
    with pytest.raises(DatasetError, match=r"x\.json lists no images"):
        load_dataset(tmp_path / "x.json")
    with pytest.raises(DatasetError, match="A class attribute is a thing of VIA, and .* is of the format 'coco'"):
        load_dataset(tmp_path / "x.json", class_attribute="kind")


@pytest.mark.parametrize("name", samples.WRITERS)
def test_folders_that_are_called_like_files_are_passed_over(tmp_path, name):
    path = samples.WRITERS[name](tmp_path / "data")
    folder = path if path.is_dir() else path.parent
    for suffix in ("json", "yaml", "csv", "xml"):
        (folder / f"x.{suffix}").mkdir()
    assert len(read_content(folder).images) == len(read_content(path).images)


def test_a_file_is_no_folder_of_masks(tmp_path):
    file = samples.image(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png is a file\. Masks .* folder"):
        load_dataset(file, format="masks")


def test_what_a_folder_of_voc_lacks(tmp_path):
    path = samples.voc(tmp_path)
    (path / "SegmentationObject").rename(tmp_path / "away")
    with pytest.raises(DatasetError, match="SegmentationClass but no SegmentationObject"):
        load_dataset(path)
    (path / "SegmentationClass").rename(tmp_path / "away too")
    samples.write_text(path / "Annotations" / "a.xml", "<annotation/>")
    with pytest.raises(DatasetError, match=r"boxes \(Annotations\) but no masks"):
        load_dataset(path)
