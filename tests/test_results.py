"""Detections written in each format and read back by the tool that the format is for."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mrcnn.data.rle import encode_crops
from mrcnn.data.segmentations import decode_segmentation
from mrcnn.data.writing.yolo import yolo_line
from mrcnn.results.instances import Instances
from mrcnn.results.labels import label_image, save_labels
from mrcnn.results.measurements import COLUMNS, perimeter
from mrcnn.results.saving import FORMATS, save_results
from tests import labelme_tool
from tests.detections import NAMES, odd_masks, result_of

FORMS = ("bool", "rle", "polygons")
PLACES = {name: format.place for name, format in FORMATS.items()}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    """Images of one size in several modes and folders, two of one name, one with a name in other letters."""
    paths = []
    for name, mode in (("a/photo.png", "RGB"), ("b/photo.png", "RGBA"), ("細胞 №1.png", "L")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new(mode, (80, 60)).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def masks() -> np.ndarray:
    return odd_masks()


def save_all(folder, photos, results, names=NAMES) -> dict[str, list[str]]:
    return {name: save_results(folder / place, results, photos, names, format=name) for name, place in PLACES.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_all_forms_of_masks_are_written_alike(name, tmp_path, photos, masks):
    files = []
    for form in FORMS:
        folder = tmp_path / form
        folder.mkdir()
        save_results(folder / PLACES[name], [result_of(masks, form)] * 3, photos, NAMES, format=name)
        files.append(
            {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        )
    assert files[0] == files[1] == files[2] and len(files[0]) in (1, 3, 4)
    assert not any(path.name.endswith(".tmp") for path in files[0])


# COCO


def test_coco_is_read_by_pycocotools(tmp_path, photos, masks):
    from pycocotools.coco import COCO

    file = tmp_path / "found.json"
    results = [result_of(masks), None, result_of(masks[..., :1], "bool")]
    assert save_results(file, results, photos, NAMES) == []
    truth = COCO()
    images = [{"id": n, "height": 60, "width": 80} for n in (1, 2, 3)]
    categories = [{"id": n, "name": name} for n, name in enumerate(NAMES)]
    truth.dataset = {"images": images, "categories": categories, "annotations": []}
    truth.createIndex()
    found = truth.loadRes(str(file))
    assert [len(found.getAnnIds(imgIds=n)) for n in (1, 2, 3)] == [7, 0, 1]
    for n, entry in enumerate(found.imgToAnns[1]):
        np.testing.assert_array_equal(found.annToMask(entry), masks[..., n])
        assert entry["file_name"] == str(photos[0]) and entry["category_name"] == NAMES[entry["category_id"]]


# labelme


def test_labelme_reads_its_files_and_fills_the_same_masks(tmp_path, photos, masks):
    """Exactly: polygons run through the outermost pixels, holes are joined by seams, parts by a group."""
    none = result_of(masks[..., :0], "bool")
    rng = np.random.default_rng(0)
    noise = rng.random((60, 80, 5)) < [0.01, 0.2, 0.5, 0.8, 0.97]
    notes = save_results(tmp_path / "out", [result_of(masks), none, result_of(noise)], photos, NAMES, format="labelme")
    assert notes == []
    files = [tmp_path / "out" / name for name in ("photo.json", "photo_2.json", "細胞 №1.json")]
    assert sorted((tmp_path / "out").iterdir()) == sorted(files)
    of_masks, of_none, of_noise = labelme_tool.read(tmp_path, *files)
    np.testing.assert_array_equal(np.moveaxis(of_masks["masks"], 0, -1), masks)
    np.testing.assert_array_equal(np.moveaxis(of_noise["masks"], 0, -1), noise)
    assert of_none["shapes"] == [] and of_none["image_path"] == "../b/photo.png"
    groups = [shape["group_id"] for shape in of_masks["shapes"]]
    assert groups == [None, 2, 2, 2, None, None, None, None, None]
    assert [s["label"] for s in of_masks["shapes"][:2]] == [NAMES[1], NAMES[2]]
    assert of_masks["shapes"][0]["other_data"] == {"score": 0.99}
    assert json.loads(files[2].read_text(encoding="utf-8"))["imagePath"] == "../細胞 №1.png"


def test_labelme_leaves_empty_masks_out_and_says_so(tmp_path, photos, masks):
    masks[..., [1, 3]] = False
    for name in ("labelme", "yolo"):
        notes = save_results(tmp_path / name, [result_of(masks)], photos[:1], NAMES, format=name)
        assert notes[-1] == "2 objects without a pixel: left out."
    assert len(json.loads((tmp_path / "labelme/photo.json").read_text(encoding="utf-8"))["shapes"]) == 5
    assert len((tmp_path / "yolo/labels/photo.txt").read_text().splitlines()) == 5


# YOLO


def read_yolo(folder, images):
    import supervision

    dataset = supervision.DetectionDataset.from_yolo(str(images), str(folder / "labels"), str(folder / "data.yaml"))
    return dataset.classes, {Path(path).name: found for path, _, found in dataset}


def polygons_of(file) -> list[np.ndarray]:
    """In pixels of an image of 60 x 80."""
    lines = file.read_text().splitlines()
    return [np.array(line.split()[1:], np.float32).reshape(-1, 2) * np.float32([80, 60]) for line in lines]


def test_yolo_is_read_by_supervision(tmp_path, photos, masks):
    """Which rounds to whole pixels: what lies right and below grows by up to one of them."""
    folder = tmp_path / "out"
    results = [result_of(masks), result_of(masks[..., :0])]
    notes = save_results(folder, [results[0]], photos[:1], NAMES, format="yolo")
    assert notes == ["1 object of several parts: each joined to one polygon by lines."]
    classes, found = read_yolo(folder, photos[0].parent)
    assert classes == list(NAMES[1:])
    (found,) = found.values()
    assert found.class_id.tolist() == [n % 3 for n in range(7)]
    for n, again in enumerate(found.mask):
        grown = cv2.dilate(masks[..., n].astype(np.uint8), np.ones((3, 3))).astype(bool)
        assert (again & masks[..., n]).sum() >= 0.99 * masks[..., n].sum()
        assert (again & ~grown).sum() <= (20 if n == 1 else 0)  # lines between parts
    assert iou(found.mask[0], masks[..., 0]) > 0.9 and found.mask[5].all()
    save_results(folder, results[1:], photos[:1], NAMES, format="yolo")
    (found,) = read_yolo(folder, photos[0].parent)[1].values()
    assert len(found) == 0 and (folder / "labels" / "photo.txt").read_text() == ""


def test_yolo_polygons_filled_by_ultralytics_and_by_coco_are_the_masks(tmp_path, photos, masks):
    """The first cuts coordinates off to whole pixels and hands them to OpenCV; the second is what this package trains
    on. Exact, but for the lines between parts in the first."""
    save_results(tmp_path, [result_of(masks)], photos[:1], NAMES, format="yolo")
    for n, polygon in enumerate(polygons_of(tmp_path / "labels" / "photo.txt")):
        np.testing.assert_array_equal(decode_segmentation([polygon.ravel()], 60, 80), masks[..., n])
        again = cv2.fillPoly(np.zeros((60, 80), np.uint8), [polygon.astype(np.int32)], 1).astype(bool)
        if n == 1:
            assert 0.9 < iou(again, masks[..., 1]) < 1
        else:
            np.testing.assert_array_equal(again, masks[..., n])


@pytest.mark.parametrize("side", [1, 7, 640, 1333, 10_000, 65_535])
def test_yolo_coordinates_keep_their_pixels(side):
    pixels = np.arange(side) if side < 2000 else np.random.default_rng(0).integers(0, side, 3000)
    for quarter in (0.25, 0.75):
        line = yolo_line(3, np.stack([pixels, pixels], axis=1) + quarter, side, side)
        values = np.array(line.split()[1:], np.float32)
        assert line.startswith("3 ") and values.min() >= 0 and values.max() <= 1
        np.testing.assert_array_equal((values * np.float32(side)).astype(np.int32)[::2], pixels)


def test_yolo_names_classes_that_have_no_names(tmp_path, photos, masks):
    save_results(tmp_path / "out", [result_of(masks)], photos[:1], None, format="yolo")
    assert read_yolo(tmp_path / "out", photos[0].parent)[0] == ["class 1", "class 2", "class 3"]
    save_results(tmp_path / "out", [result_of(masks)], photos[:1], {1: "a", 2: "b", 3: "c", 5: "e"}, format="yolo")
    assert read_yolo(tmp_path / "out", photos[0].parent)[0] == ["a", "b", "c", "class 4", "e"]


# Label images


def test_label_images_hold_the_masks_the_better_score_on_top(tmp_path, photos, masks):
    """What measuring tools do: one label after the other is one object; those of one label are of one mask."""
    scores = [0.5, 0.9, 0.7, 0.7, 0.2, 0.1, 0.4]
    notes = save_results(tmp_path / "out", [result_of(masks, scores=scores)], photos[:1], NAMES, format="labels")
    labels = np.array(Image.open(tmp_path / "out" / "photo.png"))
    assert labels.dtype == np.uint8 and labels.shape == (60, 80)
    expected = np.zeros((60, 80), int)
    for n in sorted(range(7), key=lambda n: (scores[n], -n)):  # the earlier of two equals comes last
        expected[masks[..., n]] = n + 1
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out" / "photo.png"), cv2.IMREAD_UNCHANGED), labels)
    assert notes == []
    scores[5] = 0.95  # the whole image
    (note,) = save_results(tmp_path / "out", [result_of(masks, scores=scores)], photos[:1], NAMES, format="labels")
    assert note.startswith("6 objects without a pixel, or wholly below others")
    assert (np.array(Image.open(tmp_path / "out" / "photo.png")) == 6).all()


@pytest.mark.parametrize(("count", "kind", "suffix"), [(0, "u1", "png"), (255, "u1", "png"), (256, "u2", "png"),
                                                       (65_535, "u2", "png"), (65_536, "i4", "tif")])  # fmt: skip
def test_label_images_have_as_many_bits_as_they_need(count, kind, suffix, tmp_path):
    """A pixel an object: each finds its number in the file, which Pillow and OpenCV read alike."""
    where = np.random.default_rng(0).permutation(257 * 257)[:count]

    class Pixels(Instances):
        def crops(self):
            pixel = np.ones((1, 1), bool)
            return ((pixel, p // 257, p % 257) for p in where.tolist())

    found = Pixels(np.zeros((count, 4)), np.ones(count, int), np.linspace(1, 0.1, count), None, 257, 257)
    path = save_labels(tmp_path, "många", label_image(found))
    assert path.name == f"många.{suffix}"
    labels = np.array(Image.open(path))
    assert labels.shape == (257, 257) and cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype == np.dtype(kind)
    np.testing.assert_array_equal(labels.ravel()[where], np.arange(1, count + 1))
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), labels)
    assert np.count_nonzero(labels) == count


# CSV


def test_the_table_tells_the_measurements(tmp_path, photos, masks):
    file = tmp_path / "m.csv"
    masks[..., 3] = False
    assert save_results(file, [result_of(masks), None, result_of(masks[..., :0], "bool")], photos, NAMES) == []
    with open(file, encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 7
    for n, row in enumerate(rows):
        assert (row["image"], row["object"], row["class_id"]) == (str(photos[0]), str(n + 1), str(n % 3 + 1))
        assert row["class"] == NAMES[n % 3 + 1] and float(row["score"]) == pytest.approx(0.99 - n * 0.49 / 6, abs=1e-5)
        y, x = np.nonzero(masks[..., n])
        assert int(row["area"]) == len(y)
        if n == 3:
            assert row["centroid_x"] == row["centroid_y"] == "" and float(row["perimeter"]) == 0
            continue
        assert float(row["centroid_x"]) == pytest.approx(x.mean(), abs=1e-3)
        assert float(row["centroid_y"]) == pytest.approx(y.mean(), abs=1e-3)
        assert [int(row[key]) for key in ("x1", "y1", "x2", "y2")] == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert float(row["equivalent_diameter"]) == pytest.approx(2 * np.sqrt(len(y) / np.pi), abs=0.01)
        assert row["touches_border"] == str(int(n in (4, 5)))


def test_the_label_image_and_the_table_tell_of_the_same_objects(tmp_path, photos, masks):
    masks[..., 5] = False
    for n in range(1, 7):  # none below another
        masks[..., n] &= ~masks[..., :n].any(axis=-1)
    save_all(tmp_path, photos[:1], [result_of(masks)])
    areas = np.bincount(np.array(Image.open(tmp_path / "labels" / "photo.png")).ravel(), minlength=8)
    with open(tmp_path / "measurements.csv", encoding="utf-8", newline="") as opened:
        assert [int(row["area"]) for row in csv.DictReader(opened)] == areas[1:].tolist()
    assert (areas[1:] > 0).sum() == 6


def test_the_perimeter_is_right_for_disks():
    def disk(radius):
        y, x = np.mgrid[:81, :81]
        return np.hypot(y - 40.3, x - 39.8) < radius

    for radius in (8, 15.5, 36):
        assert perimeter(disk(radius)) == pytest.approx(2 * np.pi * radius, rel=0.02)
    ring = disk(36) & ~disk(15.5)
    assert perimeter(ring) == pytest.approx(perimeter(disk(36)) + perimeter(disk(15.5)), rel=1e-9)
    assert perimeter(np.ones((100, 100), bool)) == pytest.approx(400, rel=0.06)
    assert perimeter(np.zeros((0, 0), bool)) == 0


# All of them


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path, photos, masks):
    paths = [*photos, tmp_path / "c" / "PHOTO.jpg", tmp_path / "photo_2.png"]
    for name in ("labelme", "yolo", "labels"):
        save_results(tmp_path / name, [result_of(masks)] * 5, paths, NAMES, format=name)
        written = {path.stem for path in (tmp_path / name).rglob("*") if path.is_file()} - {"data"}
        assert written == {"photo", "photo_2", "細胞 №1", "PHOTO_3", "photo_2_2"}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_without_objects(form, tmp_path, photos, masks):
    result = result_of(masks[..., :0], form)
    notes = save_all(tmp_path / "out", photos, [result] * 3) if (tmp_path / "out").mkdir() is None else None
    assert set(map(len, notes.values())) == {0}
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == []
    assert (tmp_path / "out" / "measurements.csv").read_text() == ",".join(COLUMNS) + "\n"
    assert np.array(Image.open(tmp_path / "out" / "labels" / "photo.png")).tolist() == [[0] * 80] * 60
    told = json.loads((tmp_path / "out" / "labelme" / "photo_2.json").read_text())
    assert (told["shapes"], told["imageHeight"], told["imageWidth"]) == ([], 60, 80)


def test_results_may_come_one_by_one_and_an_error_leaves_no_file(tmp_path, photos, masks):
    def results():
        yield result_of(masks)
        raise RuntimeError("the accelerator is on fire")

    for name in ("coco", "csv"):
        with pytest.raises(RuntimeError, match="on fire"):
            save_results(tmp_path / "out", results(), photos, NAMES, format=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "細胞 №1.png"]
    with pytest.raises(RuntimeError, match="on fire"):
        save_results(tmp_path / "out", results(), photos, NAMES, format="yolo")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["labels", "photo.txt"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"masks": None}, "lacks masks"),
        ({"scores": [0.5]}, "differ in number"),
        ({"masks": np.zeros((60, 80))}, r"\[H, W, N\]"),
        ({"class_ids": [1, 2, 3, 1, 2, 3, 4]}, "none for class id 4"),
        ({"image": np.zeros((50, 80, 3))}, "must have one size. Received: 2 sizes"),
        ({"masks": [{"size": [60, 80], "counts": "5"}] * 7}, "sum to its image's"),
    ],
)
def test_a_result_that_cannot_be_written_is_refused(changes, told, tmp_path, photos, masks):
    with pytest.raises(ValueError, match=told):
        save_results(tmp_path / "m.csv", [{**result_of(masks), **changes}], photos[:1], NAMES)
    assert not (tmp_path / "m.csv").exists()


def test_arguments_that_cannot_be(tmp_path, photos, masks):
    result = result_of(masks)
    with pytest.raises(ValueError, match=r"one of coco, labelme, yolo, labels, csv. Received: 'voc'"):
        save_results(tmp_path / "x.json", [result], photos[:1], format="voc")
    with pytest.raises(ValueError, match="None, which goes for .json and .csv"):
        save_results(tmp_path / "x", [result], photos[:1])
    with pytest.raises(ValueError, match="a result for each of the 3 images"):
        save_results(tmp_path / "x.csv", [result], photos)
    with pytest.raises(ValueError, match="a single one"):
        save_results(tmp_path / "x.csv", result, photos)
    with pytest.raises(ValueError, match="Received: none"):
        save_results(tmp_path / "x.csv", [{**result_of(masks, "polygons"), "image": None}], ["gone.png"])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        save_results(tmp_path / "no" / "x.csv", [result], photos[:1])


def test_a_large_image_with_many_objects_takes_little_memory(tmp_path):
    """Of 2,500 x 2,500 pixels with 300 objects a [H, W, N] would take 1.9 GB."""
    rng = np.random.default_rng(0)
    spot = cv2.circle(np.zeros((61, 61), np.uint8), (30, 30), 30, 1, -1).astype(bool)
    corners = rng.integers(0, 2500 - 61, (300, 2)).tolist()
    result = {
        "rois": np.array([[y, x, y + 61, x + 61] for y, x in corners]),
        "class_ids": np.ones(300, int),
        "scores": np.linspace(1, 0.5, 300),
        "masks": encode_crops([(spot, *corner) for corner in corners], (2500, 2500)),
    }
    tracemalloc.start()
    save_all(tmp_path, ["large.png"], [result], ("BG", "spot"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000  # labels of 16 bits take 12.5
    labels = np.array(Image.open(tmp_path / "labels" / "large.png"))
    np.testing.assert_array_equal(labels, label_image(Instances.of(result, "it")))
    y, x = corners[0]
    np.testing.assert_array_equal(labels[y : y + 61, x : x + 61] == 1, spot)
