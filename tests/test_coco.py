"""COCO files: every kind of segmentation, every kind of mistake, pycocotools as the judge of masks."""

import json

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask

from mrcnn.data.coco import CocoDataset
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import read_content
from mrcnn.data.mask_boxes import extract_bboxes
from mrcnn.data.segmentations import decode_segmentation, segmentation_crop

# pycocotools' own, under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 30, 40
BOX = np.zeros((HEIGHT, WIDTH), bool)
BOX[5:12, 8:20] = True
POLYGON = [[8, 5, 20, 5, 20, 12, 8, 12]]


def runs(mask):
    """Run lengths down the columns, the slow way."""
    counts, value, length = [], False, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    return [*counts, length]


def uncompressed(mask):
    return {"size": list(mask.shape), "counts": runs(mask)}


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def annotation(number, image_id=10, category_id=18, segmentation=POLYGON, **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "iscrowd": 0,
        **more,
    }


@pytest.fixture
def content():
    return {
        "images": [
            {"id": 10, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 7, "file_name": "sub/b.png", "height": HEIGHT, "width": WIDTH},
            {"id": 99, "file_name": "c.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            annotation(1),
            annotation(2, category_id=90, segmentation=uncompressed(BOX), iscrowd=1),
            annotation(3, category_id=3, segmentation=compressed(BOX)),
            annotation(4, image_id=7, segmentation=[*POLYGON, [30, 20, 38, 20, 38, 28]]),
        ],
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "c.png"):
        PIL.Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(tmp_path / "images" / name)
    return tmp_path


@pytest.fixture
def load(folder, content):
    def load(class_ids=None, dataset=None, **more):
        file = folder / "instances.json"
        file.write_text(json.dumps(content))
        dataset = CocoDataset() if dataset is None else dataset
        dataset.load_coco(file, folder / "images", class_ids, **more)
        dataset.prepare()
        return dataset

    return load


def test_images_classes_and_masks(load, capfd):
    dataset = load()
    assert dataset.class_names == ["BG", "car", "dog", "toothbrush"]
    assert [info["id"] for info in dataset.class_info[1:]] == [3, 18, 90]
    assert dataset.map_source_class_id("coco.90") == 3
    assert dataset.get_source_class_id(2, "coco") == 18
    assert [info["id"] for info in dataset.image_info] == [10, 7, 99]
    assert dataset.source_class_ids["coco"] == [0, 1, 2, 3]
    assert dataset.image_reference(1).endswith("b.png")
    assert dataset.load_image(1).shape == (HEIGHT, WIDTH, 3)

    masks, class_ids = dataset.load_mask(0)
    assert masks.dtype == bool
    assert class_ids.dtype == np.int32
    assert class_ids.tolist() == [2, -3, 1]
    for i in range(3):
        np.testing.assert_array_equal(masks[..., i], BOX)
    two_parts, class_ids = dataset.load_mask(1)
    assert class_ids.tolist() == [2]
    assert (two_parts[..., 0] & BOX).sum() == BOX.sum()
    assert two_parts[20:28, 30:38].sum() == two_parts.sum() - BOX.sum() > 20
    masks, class_ids = dataset.load_mask(2)
    assert masks.shape == (HEIGHT, WIDTH, 0)
    assert class_ids.shape == (0,)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("class_ids", [[18, 3], ["dog", "car"], ("dog", 3)])
def test_subset_keeps_all_images(load, class_ids):
    dataset = load(class_ids)
    assert dataset.class_names == ["BG", "car", "dog"]
    assert dataset.num_images == 3
    assert dataset.load_mask(0)[1].tolist() == [2, 1]


def test_subset_of_one_by_its_bare_name(load):
    assert load("dog").class_names == ["BG", "dog"]


def test_subset_of_unknown_categories(load):
    with pytest.raises(DatasetError, match=r"no category 'cat', 4\. It has: 90 \(toothbrush\); 18 \(dog\)"):
        load(["dog", "cat", 4])


def test_joined(load, content):
    dataset = load()
    content["images"] = [{**content["images"][0], "id": 11}]
    content["annotations"] = [annotation(1, image_id=11)]
    load(dataset=dataset)
    assert dataset.num_classes == 4
    assert dataset.num_images == 4
    assert dataset.load_mask(3)[1].tolist() == [2]
    content["categories"][1]["name"] = "cat"
    with pytest.raises(DatasetError, match=r"18 is 'cat' in .*instances\.json, but 'dog'"):
        load(dataset=dataset)
    load(dataset=dataset, source="other")
    assert dataset.num_classes == 7
    assert dataset.source_class_ids["other"] == [0, 4, 5, 6]
    assert dataset.load_mask(4)[1].tolist() == [5]


def test_other_images_can_stand_beside(load):
    dataset = load()
    dataset.add_image("mine", 0, dataset.image_info[0]["path"])
    dataset.prepare()
    assert dataset.load_image(3).shape == (HEIGHT, WIDTH, 3)
    with pytest.warns(UserWarning, match="leaves images to Dataset.load_mask: those have no objects"):
        dataset.load_mask(3)


@pytest.mark.parametrize("seed", range(10))
def test_run_lengths_match_pycocotools(seed):
    rng = np.random.default_rng(seed)
    if seed == 0:
        mask = np.zeros((3, 5), bool)
    elif seed == 1:
        mask = np.ones((3, 5), bool)
    else:
        small = rng.random(rng.integers(1, 12, 2)) < 0.5
        mask = np.repeat(np.repeat(small, rng.integers(1, 40), 0), rng.integers(1, 40), 1)
    for rle in (
        uncompressed(mask),
        compressed(mask),
        {**compressed(mask), "counts": compressed(mask)["counts"].encode()},
    ):
        np.testing.assert_array_equal(decode_segmentation(rle, *mask.shape), mask)


def test_polygons_match_pycocotools_and_a_simple_rule():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:50, :60] + 0.5
    for _ in range(20):
        triangle = rng.uniform(0, 50, (3, 2))
        mask = decode_segmentation([triangle.ravel().tolist()], 50, 60)
        wanted = coco_mask.decode(coco_mask.frPyObjects([triangle.ravel().tolist()], 50, 60))[..., 0]
        np.testing.assert_array_equal(mask, wanted)
        sides = np.stack(
            [
                (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
                for a, b in zip(triangle, triangle[[1, 2, 0]], strict=True)
            ]
        )
        inside = (sides >= 0).all(0) | (sides <= 0).all(0)
        outline = np.abs(triangle - triangle[[1, 2, 0]]).sum()
        assert (mask != inside).sum() <= outline


def test_crops_of_polygons_are_what_pycocotools_draws():
    """Parts over each other, over the border of the image, outside of it, too thin for a pixel."""
    rng, empty = np.random.default_rng(0), 0
    for _ in range(300):
        height, width = (int(side) for side in rng.integers(1, 50, 2))
        corners = rng.integers(3, 12, rng.integers(1, 4))
        scale, place = rng.choice([0.3, 5, 40, 90]), rng.uniform(-20, 60, 2)
        polygons = [(place + rng.normal(0, scale, (count, 2))).round(2).ravel().tolist() for count in corners]
        polygons = [np.clip(polygon, -9 * min(height, width), 9 * min(height, width)).tolist() for polygon in polygons]
        wanted = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)
        np.testing.assert_array_equal(decode_segmentation(polygons, height, width), wanted)
        crop, top, left = segmentation_crop(polygons, height, width)
        y1, x1, y2, x2 = extract_bboxes(wanted[..., None])[0].tolist()
        np.testing.assert_array_equal(crop, wanted[y1:y2, x1:x2])
        assert (top, left) == (y1, x1)
        empty += crop.size == 0
    assert 20 < empty < 200


def test_instances_without_a_pixel_are_left_out(load, content):
    content["annotations"] = [annotation(1, segmentation=[[50, 50, 60, 50, 60, 60]]), annotation(2, category_id=3)]
    masks, class_ids = load().load_mask(0)
    assert class_ids.tolist() == [1]
    assert masks.shape[2] == 1


LONG = {"size": [HEIGHT, WIDTH], "counts": [5, HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([8, 5, 20, 5, 20, 12], "flat list of numbers"),
        (None, "must be a list of polygons or a run-length dict. Received: None"),
        ([], "empty list"),
        ([[]], "polygon of 0 numbers"),
        ([[1, 2, 3, 4]], "polygon of 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "polygon of 7 numbers"),
        ([[1, 2, 3, "4", 5, 6]], "no list of finite numbers"),
        ([[1, 2, 3, float("nan"), 5, 6]], "no list of finite numbers"),
        ([[1, 2, 3, float("inf"), 5, 6]], "no list of finite numbers"),
        ([[[1, 2], [3, 4], [5, 6]]], "no list of finite numbers"),
        ([POLYGON[0], 3], "no list of finite numbers"),
        ([[1, 2, 3, 4, 5, 1e9]], "image sizes away"),
        ([[1, 2, 3, 4, -1e9, 6]], "image sizes away"),
        (LONG, "do not cover its image: they must be 0 or more and sum to 1200. Received: 2 of them, sum 1205"),
        ({**LONG, "counts": [-5, 1205]}, "do not cover"),
        ({**LONG, "counts": []}, "do not cover"),
        ({**LONG, "counts": "zzzz"}, "cannot be read"),
        ({**LONG, "counts": "999999"}, "do not cover"),
        ({**LONG, "counts": "oo"}, "break off"),
        ({**LONG, "counts": ""}, "do not cover"),
        ({**LONG, "counts": "é \n"}, "cannot be read"),
        ({**LONG, "counts": "o" * 60}, "cannot be read|break off"),
        ({**LONG, "counts": [1.5, 1198.5]}, "no list of whole numbers"),
        ({"counts": [1200]}, "for size None"),
        ({"size": [1200, 1], "counts": [1200]}, "for size \\[1200, 1\\]. Its image is \\[30, 40\\]"),
        ("text", "Received: 'text'"),
    ],
)
def test_malformed_segmentations(load, content, segmentation, message):
    content["annotations"].append(annotation(4711, segmentation=segmentation))
    with pytest.raises(
        DatasetError, match=rf"instances\.json: 1 of 5 .*annotation 4711: its segmentation .*({message})"
    ):
        load()


def test_box_without_segmentation(load, content):
    del content["annotations"][0]["segmentation"]
    with pytest.raises(DatasetError, match="annotation 1: its segmentation must be a list of polygons"):
        load()


def test_all_malformed_annotations_are_counted(load, content):
    content["annotations"] += [annotation(i, segmentation=[1, 2, 3]) for i in range(100, 120)]
    with pytest.raises(DatasetError, match=r"20 of 24 .*annotation 100.*annotation 104.* and 15 more\."):
        load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"].append(annotation(5, image_id=12345)), "annotation 5: its image_id 12345"),
        (lambda c: c["annotations"].append(annotation(5, category_id=1)), "annotation 5: its category_id 1"),
        (lambda c: c["annotations"].append(annotation(5, category_id=None)), "annotation 5: its category_id None"),
        (lambda c: c["annotations"].append(annotation(5, image_id=[10])), "annotation 5: its image_id \\[10\\]"),
        (lambda c: c["annotations"].append(3), "annotation 3: is no object"),
        (lambda c: c["images"].append(dict(c["images"][0])), "image id 10 is there twice"),
        (lambda c: c["images"][0].pop("height"), "needs 'id', 'file_name', 'height' and 'width'"),
        (lambda c: c["images"][0].update(width=0), "needs 'id'"),
        (lambda c: c["images"].append("a.png"), "needs 'id'"),
        (lambda c: c["categories"].append({"id": 18, "name": "cat"}), "category id 18 is there twice"),
        (lambda c: c["categories"].append({"id": "18"}), "category needs"),
        (lambda c: c.pop("images"), "not in the COCO format"),
        (lambda c: c.update(annotations={}), "'annotations' must be a list"),
    ],
)
def test_malformed_files(load, content, change, message):
    change(content)
    with pytest.raises(DatasetError, match=rf"instances\.json.*{message}"):
        load()


def test_sizes_that_are_not_known(load, content, folder):
    """As VIA 3 writes them: those of the images are taken."""
    content["images"][0].update(height=-1, width=-1)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "images" / "a.png", exif=exif)
    dataset = load()
    assert dataset.load_image(0).shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(dataset.load_mask(0)[0][..., 0], BOX)
    (folder / "images" / "a.png").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"a\.png: Cannot read the image file"):
        load()
    (folder / "images" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"a\.png: No such image file"):
        load()
    content["annotations"] = []
    with pytest.raises(FileNotFoundError, match=r"1 of the 3 images of .* are missing in .*: a\.png"):
        load()


def test_a_file_without_annotations(load, content):
    del content["annotations"]
    dataset = load()
    assert dataset.num_images == 3
    assert dataset.load_mask(0)[0].shape == (HEIGHT, WIDTH, 0)


@pytest.mark.parametrize("text", ["", "no JSON", '{"images": [', "[1, 2]", "\xff\xfe"])
def test_files_that_are_no_coco(folder, text):
    file = folder / "x.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=r"x\.json is not"):
        CocoDataset().load_coco(file, folder / "images")


def test_missing_files(load, content, folder):
    with pytest.raises(FileNotFoundError, match=r"No such annotation file: .*nothing\.json"):
        CocoDataset().load_coco(folder / "nothing.json", folder / "images")
    content["images"] += [{"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(100, 110)]
    with pytest.raises(FileNotFoundError, match=r"10 of the 13 images .*: 100\.jpg; .*104\.jpg and 5 more\."):
        load()
    with pytest.raises(FileNotFoundError, match="No such folder of images"):
        CocoDataset().load_coco(folder / "instances.json", folder / "pictures")


def test_nothing_is_added_when_a_file_is_refused(load, content):
    content["images"][2]["file_name"] = "gone.png"
    dataset = CocoDataset()
    with pytest.raises(FileNotFoundError):
        load(dataset=dataset)
    assert (len(dataset.class_info), len(dataset.image_info)) == (1, 0)


def test_orientation_is_that_of_the_annotations(load, content, folder):
    stored = np.random.default_rng(0).integers(0, 256, (WIDTH, HEIGHT, 3), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(stored).save(folder / "images" / "a.png", exif=exif)
    dataset = load()
    np.testing.assert_array_equal(dataset.load_image(0), np.rot90(stored, -1))
    content["images"][0].update(height=WIDTH, width=HEIGHT)
    content["annotations"] = []
    np.testing.assert_array_equal(load().load_image(0), stored)
    content["images"][0].update(height=WIDTH, width=WIDTH)
    with pytest.raises(DatasetError, match=r"a\.png is 30 pixels high and 40 wide.* for 40 x 40"):
        load().load_image(0)


@pytest.mark.parametrize("name", ["sub\\b.png", "C:/data/x/a.png", "C:\\data\\a.png", "/elsewhere/a.png"])
def test_names_of_another_machine(content, folder, name):
    target = content["images"][1 if "b.png" in name else 0]
    expected, target["file_name"] = target["file_name"], name
    (folder / "a.json").write_text(json.dumps(content))
    found = read_content(folder / "a.json", folder / "images")
    assert found.problems == [] and expected in [image["file_name"] for image in found.images]


def test_two_names_that_come_down_to_one_file(content, folder):
    content["images"][1]["file_name"] = "C:/data/a.png"
    (folder / "a.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="C:/data/a.png.*a.png, which it may mean, is that of 'a.png'"):
        read_content(folder / "a.json", folder / "images").require_sound()
