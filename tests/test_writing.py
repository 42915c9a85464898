"""Datasets written as COCO, YOLO and labelme, and read back by pycocotools, supervision, labelme and this package."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mrcnn.data.content import Content
from mrcnn.data.formats import read_content
from mrcnn.data.rle import encode_masks
from mrcnn.data.segmentations import decode_segmentation
from mrcnn.data.writing.dataset import FORMATS, write_dataset
from mrcnn.data.writing.objects import one_line, part_lines
from tests import labelme_tool
from tests.detections import odd_masks

H, W = 60, 80
SQUARE = [[10.5, 10.25, 30.5, 10.25, 30.5, 30.5, 10.5, 30.5]]
APART = [[2, 2, 12, 2, 12, 12, 2, 12], [40, 30, 60, 30, 50, 50], [70, 2, 75, 2, 75, 9]]
OVERLAPPING = [[10, 10, 40, 10, 40, 40, 10, 40], [30, 30, 60, 30, 60, 50, 30, 50]]
OUTSIDE = [[-10, 20, 20, 20, 20, 70, -10, 70]]
NAMES = ("cell", 'naïve "x": 細胞 # y', "dog")


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def content_of(folder: Path, segmentations, crowds=(), names=("a.png",)) -> Content:
    """A dataset of images of one size; all objects in the first."""
    content = Content("via", folder / "via.json", folder)
    content.categories = [{"id": 10 * n, "name": name} for n, name in enumerate(NAMES, start=1)]
    for number, name in enumerate(names, start=5):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((H, W, 3), number, np.uint8)).save(path)
        content.images.append({"id": number, "file_name": str(name), "height": H, "width": W})
    for number, segmentation in enumerate(segmentations, start=1):
        if isinstance(segmentation, list):
            segmentation = [np.array(polygon, np.float64) for polygon in segmentation]
        content.annotations.append(
            {"id": number, "image_id": 5, "category_id": 10 * (1 + number % 3), "segmentation": segmentation,
             "iscrowd": int(number in crowds)}
        )  # fmt: skip
    return content


@pytest.fixture
def content(tmp_path) -> Content:
    """Polygons, and, as run lengths, odd masks, one of which is a crowd, and an empty one."""
    masks = np.concatenate([odd_masks(H, W), np.zeros((H, W, 1), bool)], axis=2)
    segmentations = [SQUARE, APART, OVERLAPPING, OUTSIDE, *encode_masks(masks)]
    names = ("a.png", "b/a.png", "b/a.bmp", "細胞.png")
    return content_of(tmp_path / "source", segmentations, crowds=(10,), names=names)


def truth(content) -> list[np.ndarray]:
    return [decode_segmentation(annotation["segmentation"], H, W) for annotation in content.annotations]


def files(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_coco_is_read_by_pycocotools(content, tmp_path):
    from pycocotools.coco import COCO

    content.annotations[0] |= {"area": 7.0, "bbox": [1, 2, 3, 4], "more": "stays"}
    ticks = []
    report = write_dataset(content, tmp_path / "out", "coco", tick=lambda: ticks.append(1))
    assert (report.images, report.objects, report.notes(), len(ticks)) == (4, 12, [], 4)
    assert files(tmp_path / "out") == {
        "annotations.json", "images/a.png", "images/b/a.png", "images/b/a_2.bmp", "images/細胞.png",
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "out" / "annotations.json"))
    assert {n: c["name"] for n, c in coco.cats.items()} == dict(zip((10, 20, 30), NAMES, strict=True))
    assert [i["file_name"] for i in coco.loadImgs([5, 6, 7, 8])] == ["a.png", "b/a.png", "b/a_2.bmp", "細胞.png"]
    for number, mask in enumerate(truth(content), start=1):
        (annotation,) = coco.loadAnns([number])
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert annotation["iscrowd"] == (number == 10) and annotation["image_id"] == 5
        if number == 1:
            assert (annotation["area"], annotation["bbox"], annotation["more"]) == (7.0, [1, 2, 3, 4], "stays")
        else:
            assert annotation["area"] == mask.sum()
            y, x = np.nonzero(mask)
            box = [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()] if len(x) else [0, 0, 0, 0]
            assert number in (3, 4) or annotation["bbox"] == box
    again = read_content(tmp_path / "out")
    again.require_sound()
    assert [str(again.image_path(image).relative_to(tmp_path / "out" / "images")) for image in again.images] == [
        "a.png", "b/a.png", "b/a_2.bmp", "細胞.png",
    ]  # fmt: skip


def test_coco_gets_ids_that_its_tools_take(content, tmp_path):
    for annotation in content.annotations:
        annotation["image_id"] = "five"
        annotation["id"] -= 1
    content.images[0]["id"] = "five"
    write_dataset(content, tmp_path / "out", "coco")
    written = json.loads((tmp_path / "out" / "annotations.json").read_text(encoding="utf-8"))
    assert [image["id"] for image in written["images"]] == [1, 2, 3, 4]
    assert [(a["id"], a["image_id"]) for a in written["annotations"]] == [(n, 1) for n in range(1, 13)]


def test_yolo_is_read_by_supervision(content, tmp_path):
    """Which rounds to whole pixels and fills the line's too: masks grow by up to one pixel, and by lines between
    parts."""
    import supervision

    folder = tmp_path / "out"
    report = write_dataset(content, folder, "yolo")
    assert report.notes() == [
        "4 objects of several parts or across the border, each made one polygon.", "1 crowd left out.",
        "1 object without a pixel left out.",
    ]  # fmt: skip
    assert report.objects == 10
    stems = ("a", "b_a", "b_a_2", "細胞")
    assert {name for name in files(folder) if name.startswith("labels")} == {f"labels/{stem}.txt" for stem in stems}
    assert [(folder / "labels" / f"{stem}.txt").read_text() for stem in stems[1:]] == [""] * 3
    read = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    assert read.classes == list(NAMES)
    found = read.annotations[str(folder / "images" / "a.png")]
    expected = [(n, mask) for n, mask in enumerate(truth(content), start=1) if n != 10 and mask.any()]
    assert found.class_id.tolist() == [n % 3 for n, _ in expected]
    for (n, mask), again in zip(expected, found.mask, strict=True):
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
        assert (again & mask).sum() >= 0.97 * mask.sum() and (again & ~grown).sum() <= (70 if n == 2 else 20), n
    assert iou(found.mask[0], expected[0][1]) > 0.85


def test_labelme_reads_its_files(content, tmp_path):
    folder = tmp_path / "out"
    report = write_dataset(content, folder, "labelme")
    assert report.notes() == ["1 crowd left out.", "1 object without a pixel left out."]
    assert files(folder) == {
        "a.png", "a.json", "b_a.png", "b_a.json", "b_a_2.bmp", "b_a_2.json", "細胞.png", "細胞.json",
    }  # fmt: skip
    first, second, third, fourth = labelme_tool.read(
        tmp_path, *(folder / name for name in ("a.json", "b_a.json", "b_a_2.json", "細胞.json"))
    )
    assert [one["image_path"] for one in (first, second, third, fourth)] == [
        "a.png",
        "b_a.png",
        "b_a_2.bmp",
        "細胞.png",
    ]
    assert second["shapes"] == third["shapes"] == fourth["shapes"] == []
    assert first["shapes"][0]["points"] == np.reshape(SQUARE, (-1, 2)).tolist()
    assert [shape["group_id"] for shape in first["shapes"][:6]] == [None, 2, 2, 2, 3, 3]
    expected = [mask for n, mask in enumerate(truth(content), start=1) if n != 10 and mask.any()]
    assert len(first["masks"]) == len(expected) == 10
    for again, mask in zip(first["masks"][4:], expected[4:], strict=True):
        np.testing.assert_array_equal(again, mask)
    for again, mask in zip(first["masks"][:4], expected[:4], strict=True):
        assert iou(again, mask) > 0.8


@pytest.mark.parametrize("format", FORMATS)
def test_this_package_reads_what_it_writes(format, content, tmp_path):
    """Polygons have the same points, to a hundredth of a pixel for YOLO's six decimals; run lengths give the same
    masks."""
    content.annotations = [a for a in content.annotations if not a["iscrowd"]][:-1]
    write_dataset(content, tmp_path / "out", format)
    again = read_content(tmp_path / "out")
    assert again.format == format
    assert {str(c["name"]) for c in again.categories} == set(NAMES) and len(again.images) == 4
    assert [problem for problem in again.problems if problem.is_error] == []
    assert len(again.annotations) == len(content.annotations) == 10
    for before, after in zip(content.annotations[:2], again.annotations[:2], strict=True):
        points = [part.reshape(-1, 2) for part in before["segmentation"]]
        if format == "yolo":
            points = [one_line(before["segmentation"], H, W)[0]]
        found = [np.reshape(part, (-1, 2)) for part in after["segmentation"]]
        for one, other in zip(points, found, strict=True):
            np.testing.assert_allclose(one, other, atol=0.01)
    for before, after in zip(content.annotations[4:], again.annotations[4:], strict=True):
        masks = [decode_segmentation(each["segmentation"], H, W) for each in (before, after)]
        np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("format", FORMATS)
def test_parts_of_a_set(format, tmp_path):
    parts = {
        "train": content_of(tmp_path / "one", [SQUARE], names=("a.png", "b.png")),
        "val": content_of(tmp_path / "two", [APART], names=("a.png",)),
    }
    report = write_dataset(parts, tmp_path / "out", format)
    assert (report.images, report.objects) == (3, 2)
    images = {name for name in files(tmp_path / "out") if name.endswith(".png")}
    folder = "" if format == "labelme" else "images/"
    assert images == {f"{folder}{name}.png" for name in ("train/a", "train/b", "val/a")}
    if format == "coco":
        content = read_content(tmp_path / "out" / "annotations" / "train.json")
    elif format == "yolo":
        content = read_content(tmp_path / "out" / "data.yaml", split="train")
    else:
        content = read_content(tmp_path / "out" / "train")
    content.require_sound()
    assert (len(content.images), len(content.annotations)) == (2, 1)
    assert all(content.image_path(image).is_file() for image in content.images)
    write_dataset(parts, tmp_path / "none", format, images="none")
    assert {name.rpartition(".")[0] for name in files(tmp_path / "none") if name.endswith((".txt", "a.json"))} == (
        set()
        if format == "coco"
        else {f"{'labels/' * (format == 'yolo')}{name}" for name in ("train/a", "val/a")}
        | ({"labels/train/b"} if format == "yolo" else set())
    )
    parts["val"].categories = parts["val"].categories[1:]
    with pytest.raises(ValueError, match="Those of val differ"):
        write_dataset(parts, tmp_path / "other", format)


def test_images_can_be_linked_or_left_where_they_are(content, tmp_path):
    write_dataset(content, tmp_path / "link", "labelme", images="link")
    assert (tmp_path / "link" / "b_a_2.bmp").is_symlink()
    (one,) = labelme_tool.read(tmp_path, tmp_path / "link" / "b_a_2.json")
    assert one["shape"][:2] == [H, W]

    for format in FORMATS:
        write_dataset(content, tmp_path / format, format, images="none")
        assert not [name for name in files(tmp_path / format) if name.endswith((".png", ".bmp"))]
    (one,) = labelme_tool.read(tmp_path, tmp_path / "labelme" / "b_a_2.json")
    assert one["image_path"] == "../source/b/a.bmp"
    written = json.loads((tmp_path / "coco" / "annotations.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in written["images"]] == [image["file_name"] for image in content.images]
    assert "train" not in (tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8")


def test_folders_that_all_images_are_in_are_left_out(tmp_path):
    for format, names in (("coco", {"1/x.png", "1/y.png", "2/x.png"}), ("yolo", {"1_x.png", "1_y.png", "2_x.png"})):
        content = content_of(tmp_path / "source", [], names=("p/q/1/x.png", "p/q/1/y.png", "p/q/2/x.png"))
        write_dataset(content, tmp_path / format, format)
        assert files(tmp_path / format / "images") == names
    content = content_of(tmp_path / "source", [], names=("p/x.png", "p\\y.png"))
    write_dataset(content, tmp_path / "labelme", "labelme", images="none")
    assert files(tmp_path / "labelme") == {"x.json", "y.json"}


def test_names_that_lead_out_of_the_folder_do_not(tmp_path):
    away = tmp_path / "away.png"
    content = content_of(tmp_path / "source", [], names=("a.png", "../a.png", str(away), "b/../../c.png"))
    write_dataset(content, tmp_path / "out", "yolo")
    assert {name for name in files(tmp_path / "out") if name.startswith("images")} == {
        "images/a.png", "images/a_2.png", "images/away.png", "images/c.png",
    }  # fmt: skip


def test_frames_of_a_stack_become_images(tmp_path):
    content = content_of(tmp_path, [SQUARE], names=("a.png",))
    frames = [Image.fromarray(np.full((H, W), 1000 * n, np.uint16)) for n in (1, 2, 3)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    content.images = [{**content.images[0], "id": 5 + n, "file_name": "stack.tif", "frame": n} for n in (0, 2)]
    for format in FORMATS:
        report = write_dataset(content, tmp_path / format, format)
        assert report.notes() == ["2 images written anew: frames of stacks, or turned as their annotations are."]
    assert (np.array(Image.open(tmp_path / "coco" / "images" / "stack_0002.tif")) == 3000).all()
    written = json.loads((tmp_path / "coco" / "annotations.json").read_text())["images"]
    assert [(image["file_name"], "frame" in image) for image in written] == [
        ("stack_0000.tif", False), ("stack_0002.tif", False),
    ]  # fmt: skip
    assert (tmp_path / "yolo" / "labels" / "stack_0002.txt").is_file()
    assert labelme_tool.read(tmp_path, tmp_path / "labelme" / "stack_0000.json")[0]["image_path"] == "stack_0000.tif"
    content.images[0]["frame"] = 7
    with pytest.raises(ValueError, match=r"frame 7 of the image file .*stack.tif"):
        write_dataset(content, tmp_path / "out", "yolo")


def test_an_orientation_that_annotations_ignore_is_taken_out(tmp_path):
    content = content_of(tmp_path, [SQUARE], names=("a.png", "b.jpg"))
    values = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "b.jpg"):
        Image.fromarray(values).save(tmp_path / name, exif=exif)
    content.images[1] |= {"height": W, "width": H}  # annotated as it is shown
    report = write_dataset(content, tmp_path / "out", "labelme")
    assert report.written_anew == 1
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out" / "a.png")), values)
    one, two = labelme_tool.read(tmp_path, tmp_path / "out" / "a.json", tmp_path / "out" / "b.json")
    assert one["shape"][:2] == [H, W] and two["shape"][:2] == [W, H]
    assert (tmp_path / "out" / "b.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


@pytest.mark.parametrize("format", FORMATS)
def test_an_error_leaves_nothing(format, content, tmp_path):
    (tmp_path / "source" / "細胞.png").unlink()
    for images in ("copy", "link"):
        with pytest.raises(FileNotFoundError, match=r"No such image file: .*細胞\.png"):
            write_dataset(content, tmp_path / "out", format, images)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_arguments_that_cannot_be(content, tmp_path):
    with pytest.raises(ValueError, match="one of coco, yolo, labelme. Received: 'voc'"):
        write_dataset(content, tmp_path / "out", "voc")
    with pytest.raises(ValueError, match="one of copy, link, none. Received: 'move'"):
        write_dataset(content, tmp_path / "out", "coco", "move")
    with pytest.raises(FileExistsError, match="is not empty"):
        write_dataset(content, tmp_path / "source", "coco")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_dataset(content, tmp_path / "no" / "out", "coco")
    (tmp_path / "out").mkdir()
    assert write_dataset(content, tmp_path / "out", "coco").images == 4


def test_one_line_of_an_object():
    points, changed = one_line([np.ravel(SQUARE)], H, W)
    assert points.tolist() == np.reshape(SQUARE, (-1, 2)).tolist() and not changed
    points, changed = one_line([np.array(p, float) for p in APART], H, W)
    assert changed and {tuple(p) for p in points.tolist()} == {
        (x, y) for p in APART for x, y in np.reshape(p, (-1, 2)).tolist()
    }
    for segmentation in (OVERLAPPING, OUTSIDE):
        points, changed = one_line([np.array(p, float) for p in segmentation], H, W)
        assert changed and points.min() >= 0 and points[:, 0].max() < W and points[:, 1].max() < H
    (empty,) = encode_masks(np.zeros((H, W, 1), bool))
    assert len(one_line(empty, H, W)[0]) == 0 and part_lines(empty) == []
