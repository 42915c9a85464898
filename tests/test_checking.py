"""Each kind of finding, planted in a sound dataset, is found, and nothing else is."""

from __future__ import annotations

import inspect
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mrcnn.config import Config
from mrcnn.data.checking import check
from mrcnn.data.findings import KEPT, KINDS, Findings, Level
from mrcnn.data.formats import read_content
from tests.formats import samples
from tests.planted import HEIGHT, WIDTH, Planted, rectangle

TURNED = Image.Exif()
TURNED[0x0112] = 6
UPSIDE_DOWN = Image.Exif()
UPSIDE_DOWN[0x0112] = 3


def config_of(**values):
    fields = {"NUM_CLASSES": 3, "IMAGE_RESIZE_MODE": "none", "RPN_ANCHOR_SCALES": (16, 24, 64, 128, 256)}
    return type("CheckConfig", (Config,), {**fields, **values})()


def checked(planted, config=None, **options):
    return check(read_content(planted.save(), planted.folder), config or config_of(), **options)


def kinds(found):
    return {kind: count for level in Level for kind, count, _ in found.findings.of_level(level)}


def test_a_sound_dataset_has_no_findings(tmp_path):
    found = checked(Planted(tmp_path))
    assert kinds(found) == {} and found.troubled == {} and found.decoded == 4
    seen = found.survey
    assert seen.class_names == ("BG", "cat", "dog") and seen.per_class.tolist() == [0, 4, 4]
    assert seen.boxes[:2].tolist() == [[8, 4, 24, 24], [8, 34, 24, 54]] and seen.owners.tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]


# What is planted, and in the findings, the image or entry that has to be named.
def missing(planted):
    planted.path(1).unlink()
    return {"missing-image": "1.png"}


def truncated(planted):
    planted.write(1, planted.read(1), "1.jpg", quality=95)
    data = planted.path(1).read_bytes()
    planted.path(1).write_bytes(data[: len(data) // 2])
    return {"unreadable-image": "1.jpg"}


def no_image(planted):
    planted.path(1).write_text("no image")
    return {"unreadable-image": "1.png"}


def empty_files(planted):
    for image in (1, 2):
        planted.path(image).write_bytes(b"")
    return {"unreadable-image": "1.png"}


def other_size(planted):
    planted.write(1, planted.read(1).resize((WIDTH, HEIGHT - 1)))
    return {"wrong-size": "1.png: it is 39 pixels high and 60 wide, its annotations are for 40 x 60"}


def sides_exchanged(planted):
    planted.write(1, planted.read(1).transpose(Image.Transpose.ROTATE_90))
    return {"wrong-size": "1.png: it is 60 pixels high and 40 wide"}


def rotation_ignored(planted):
    planted.write(1, planted.read(1), "1.jpg", exif=TURNED)
    return {"rotation-ignored": "1.jpg"}


def rotation_heeded(planted):
    planted.write(1, planted.read(1).transpose(Image.Transpose.ROTATE_90), "1.jpg", exif=TURNED)
    return {}


def rotation_of_a_square(planted):
    planted.images[1] |= {"height": 50, "width": 50}
    planted.write(1, planted.read(1).resize((50, 50)), "1.jpg", exif=TURNED)
    planted.of(1)[1]["segmentation"] = [rectangle(26, 12)]
    return {"rotation-unclear": "1.jpg"}


def upside_down(planted):
    planted.write(1, planted.read(1), "1.jpg", exif=UPSIDE_DOWN)
    return {"rotation-unclear": "1.jpg"}


def no_orientation(planted):
    exif = Image.Exif()
    exif[0x0112] = 77
    planted.write(1, planted.read(1), "1.jpg", exif=exif)
    return {}


def blank(planted):
    planted.write(1, np.full((HEIGHT, WIDTH, 3), 7, np.uint8))
    return {"blank-image": "1.png"}


def gray(planted):
    planted.write(1, planted.read(1).convert("L"))
    return {"grayscale": "1.png"}


def transparent(planted):
    planted.write(1, planted.read(1).convert("RGBA"))
    return {"transparency": "1.png"}


def deep(planted):
    planted.write(1, np.asarray(planted.read(1).convert("L")).astype(np.uint16) * 257)
    return {"16-bit": "1.png", "grayscale": "1.png"}


def dim(planted):
    planted.write(1, np.asarray(planted.read(1).convert("L")).astype(np.uint16) * 16)
    return {"dim-16-bit": "1.png", "16-bit": "1.png", "grayscale": "1.png"}


def too_deep(planted):
    planted.write(1, np.asarray(planted.read(1).convert("L")).astype(np.int32) * 1000, "1.tif")
    return {"unreadable-image": "1.tif: Cannot bring the values of 1.tif"}


def stack(planted):
    pages = [planted.read(1), planted.read(2)]
    planted.write(1, pages[0], "1.tif", save_all=True, append_images=pages[1:])
    return {"several-frames": "1.tif: 2 frames"}


def same_content(planted):
    shutil.copy(planted.path(0), planted.path(2))
    return {"same-content": "2.png: the same as 0.png"}


def listed_twice(planted):
    planted.images.append({**planted.images[1], "id": "again"})
    planted.annotate("again", [rectangle(4, 4)])
    return {"image-listed-twice": "1.png: as 1 and as 'again'"}


def unlisted(planted):
    planted.read(0).rotate(90).save(planted.folder / "other.png")
    (planted.folder / "notes.txt").write_text("no image")
    return {"unlisted-image": "other.png"}


def unlisted_gif(planted):
    planted.read(0).rotate(90).save(planted.folder / "other.gif")
    (planted.folder / "._other.png").write_text("what macOS puts beside a file")
    return {"unlisted-image": "other.gif"}


def duplicate_image_id(planted):
    planted.images.append({**planted.images[1], "file_name": "0.png"})
    return {"duplicate-id": "image id 1"}


def few_points(planted):
    planted.annotate(1, [[1, 1, 9, 9]])
    return {"too-few-points": "annotation 8"}


def not_a_number(planted):
    planted.annotate(1, [[1, 1, float("nan"), 9, 9, 9]])
    return {"bad-coordinates": "annotation 8"}


def huge(planted):
    planted.annotate(1, [[1, 1, 1e30, 9, 9, 9]])
    return {"bad-coordinates": "annotation 8"}


def unknown_class(planted):
    planted.annotate(1, [rectangle(4, 28, 9, 9)], 77)
    return {"unknown-class": "annotation 8"}


def no_pixel(planted):
    planted.annotate(1, [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]])
    return {"empty-mask": "1.png: annotation 8: covers no pixel"}


def no_pixel_of_runs(planted):
    planted.annotate(1, {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]})
    return {"empty-mask": "1.png: annotation 8: covers no pixel"}


def all_outside(planted):
    planted.annotate(1, [rectangle(100, 8)])
    return {"object-outside": "1.png: annotation 8: lies in rows 8 to 24 and columns 100 to 120"}


def half_outside(planted):
    planted.annotate(1, [rectangle(4, 30)])
    return {"reaches-outside": "1.png: annotation 8: reaches 6 pixels outside"}


def box_elsewhere(planted):
    planted.of(1)[0]["bbox"] = [30, 8, 20, 16]
    return {"box-disagrees": "1.png: annotation 2: its bbox is [30, 8, 20, 16], its mask's"}


def box_of_corners(planted):
    planted.of(1)[0]["bbox"] = [4, 9, 24, 25]
    return {"box-disagrees": "The bbox looks like [x1, y1, x2, y2]."}


@pytest.mark.parametrize("box", ["none", [1, 2], [1, 2, None, 4], [1, 2, -3, 4], {"x": 1}, [float("nan")] * 4, 7])
def test_a_box_that_is_none(box, tmp_path):
    planted = Planted(tmp_path)
    planted.of(1)[0]["bbox"] = box
    found = checked(planted)
    assert kinds(found) == {"box-disagrees": 1}
    assert "its bbox must be [x, y, width, height]" in found.troubled[1].message


def boxes_of_other_tools(planted):
    planted.of(1)[0]["bbox"] = [5, 8, 20, 17]  # a pixel off
    planted.of(1)[1]["bbox"] = []
    planted.of(2)[0]["bbox"] = None
    return {}


def drawn_twice(planted):
    planted.annotate(1, [rectangle(4, 9.4)], 1)
    return {"object-twice": "1.png: annotation 8: covers what annotation 2 does (cat, IoU 1.00)"}


def drawn_as_both(planted):
    x, y = 34, 9
    planted.annotate(1, [rectangle(x, y, 10), rectangle(x + 10, y, 10)], 1)
    return {"object-twice": "1.png: annotation 8: covers what annotation 3 does (dog and cat, IoU 1.00)"}


def one_inside_the_other(planted):
    planted.annotate(1, [rectangle(6, 11, 16, 14)], 1)
    planted.annotate(1, [rectangle(4, 9)], 1, iscrowd=1)
    return {}


def no_objects_in_an_image(planted):
    planted.annotations = [one for one in planted.annotations if one["image_id"] != 1]
    return {"image-without-objects": "1.png"}


def no_objects_of_a_class(planted):
    planted.categories.append({"id": 7, "name": "bird"})
    return {"class-without-objects": "bird"}


def similar_classes(planted):
    planted.categories[1]["name"] = "Cat "
    return {"similar-classes": "'cat' and 'Cat '"}


PLANTS = [missing, truncated, no_image, other_size, sides_exchanged, rotation_ignored, rotation_heeded,
          rotation_of_a_square, upside_down, no_orientation, blank, gray, transparent, deep, dim, too_deep, stack,
          same_content, listed_twice, unlisted, unlisted_gif, duplicate_image_id, few_points, not_a_number, huge,
          unknown_class, no_pixel, no_pixel_of_runs, all_outside, half_outside, box_elsewhere, box_of_corners,
          boxes_of_other_tools, drawn_twice, drawn_as_both, one_inside_the_other, no_objects_in_an_image,
          no_objects_of_a_class, similar_classes]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_what_is_planted_is_found_and_nothing_else(plant, tmp_path):
    planted = Planted(tmp_path)
    expected = plant(planted)
    found = checked(planted)
    assert kinds(found) == dict.fromkeys(expected, 1)
    for level in Level:
        for kind, _, (finding,) in found.findings.of_level(level):
            assert expected[kind] in str(finding)
            assert level == KINDS[kind][0]


def test_annotations_of_one_id_are_a_warning(tmp_path):
    planted = Planted(tmp_path)
    planted.annotate(1, [rectangle(4, 24)], 1)["id"] = 0
    ((kind, count, (finding,)),) = checked(planted).findings.of_level(Level.WARNING)
    assert (kind, count) == ("duplicate-id", 1) and "annotation 0: another has the same id" in str(finding)
    assert kinds(checked(planted)) == {"duplicate-id": 1}


def test_what_stands_below_a_picture(tmp_path):
    planted = Planted(tmp_path)
    blank(planted)
    assert checked(planted).troubled[1].message == "All its pixels are alike."
    upside_down(planted)
    assert checked(planted).troubled[1].message.startswith("EXIF orientation 3: do the objects lie")


def test_images_over_pillows_limit_of_pixels_are_sound(tmp_path, monkeypatch):
    planted = Planted(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 3)
    assert kinds(checked(planted)) == {} and checked(planted).decoded == 4


@pytest.mark.parametrize("name", ["via", "via_csv", "yolo"])
def test_formats_without_sizes_do_not_tell_how_a_photo_was_turned(name, tmp_path):
    path = samples.WRITERS[name](tmp_path)
    content = read_content(path)
    assert "rotation-unclear" not in kinds(check(content, config_of()))
    samples.image(content.image_path(content.images[0]), exif=TURNED)
    assert kinds(check(read_content(path), config_of()))["rotation-unclear"] == 1


def test_files_without_content_are_not_compared(tmp_path):
    planted = Planted(tmp_path)
    empty_files(planted)
    assert kinds(checked(planted)) == {"unreadable-image": 2}


def test_every_kind_is_planted():
    """But for those that readers of other formats find, and those that have a test of their own below."""
    planted = {kind for plant in PLANTS for kind in re.findall(r'"([\w-]+)":', inspect.getsource(plant))} & set(KINDS)
    of_readers = {"unreadable-file", "malformed-image", "malformed-category", "malformed-annotation", "bad-run-lengths",
                  "unsupported-shape"}  # fmt: skip
    below = {"no-images", "no-objects", "crowded-image", "anchors-do-not-fit"}
    assert set(KINDS) - planted == of_readers | below


def test_more_objects_than_training_takes(tmp_path):
    found = checked(Planted(tmp_path), config_of(MAX_GT_INSTANCES=1))
    assert kinds(found) == {"crowded-image": 4}
    assert found.troubled[0].message.startswith("2 objects, of which training draws 1 each time")


def test_anchors_that_do_not_fit(tmp_path):
    found = checked(Planted(tmp_path), config_of(RPN_ANCHOR_SCALES=(64, 128, 256, 256, 512)))
    assert kinds(found) == {"anchors-do-not-fit": 1}
    ((_, _, (finding,)),) = found.findings.of_level(Level.WARNING)
    assert finding.message.startswith("100% (8 of 8) overlap no anchor by an IoU of 0.5.")


def test_nothing_there(tmp_path):
    planted = Planted(tmp_path, count=0)
    assert kinds(checked(planted)) == {"no-images": 1, "class-without-objects": 2}
    planted = Planted(tmp_path)
    planted.annotations.clear()
    assert kinds(checked(planted)) == {"no-objects": 1, "class-without-objects": 2, "image-without-objects": 4}
    planted.categories.clear()
    found = checked(planted)
    assert kinds(found) == {"no-objects": 1, "image-without-objects": 4} and found.survey.class_names == ("BG",)


def test_objects_annotated_twice_are_those_of_a_comparison_of_all_pixels(tmp_path):
    planted, rng = Planted(tmp_path, count=1), np.random.default_rng(0)
    planted.annotations.clear()
    masks = np.zeros((600, HEIGHT, WIDTH), bool)
    for number, mask in enumerate(masks):
        x, y, width, height = rng.integers([0, 0, 8, 8], [24, 12, 24, 24]).tolist()
        mask[y : y + height, x : x + width] = True
        planted.annotate(0, [rectangle(x, y, width, height)], number % 2 + 1)
    flat = masks.reshape(600, -1).astype(np.float32)
    shared = flat @ flat.T
    overlaps = np.tril(shared / (flat.sum(axis=1)[:, None] + flat.sum(axis=1) - shared), -1)
    twice = np.flatnonzero(overlaps.max(axis=1) >= 0.9)
    ((_, count, kept),) = [
        found for found in checked(planted).findings.of_level(Level.WARNING) if found[0] == "object-twice"
    ]
    assert 20 < count == len(twice) and [one.entry for one in kept] == [f"annotation {number}" for number in twice]


def test_several_things_in_one_image_the_gravest_first(tmp_path):
    planted = Planted(tmp_path)
    half_outside(planted)
    all_outside(planted)
    trouble = checked(planted).troubled[1]
    assert trouble.level == Level.ERROR and trouble.count == 2 and "annotation 9" in trouble.message


def test_frames_of_a_stack_are_images_of_their_own(tmp_path):
    planted = Planted(tmp_path)
    pages = [planted.read(1), planted.read(2)]
    planted.write(1, pages[0], "stack.tif", save_all=True, append_images=pages[1:])
    planted.path(2).unlink()
    planted.images[1]["frame"] = 0
    planted.images[2] |= {"file_name": "stack.tif", "frame": 1}
    assert kinds(checked(planted)) == {}
    planted.images[2]["frame"] = 2
    found = checked(planted)
    assert kinds(found) == {"unreadable-image": 1} and list(found.troubled) == [2]
    planted.images[2]["frame"] = 0
    assert kinds(checked(planted)) == {"image-listed-twice": 1, "several-frames": 1}


def test_when_the_time_is_over_objects_are_looked_at_still(tmp_path):
    planted = Planted(tmp_path)
    missing(planted)
    all_outside(planted)
    found = checked(planted, seconds=1e-9)
    assert found.decoded == 0 and kinds(found) == {"missing-image": 1, "object-outside": 1}
    assert len(found.survey.boxes) == 8


def test_order_and_threads_change_nothing(tmp_path):
    planted = Planted(tmp_path, count=30)
    for image in range(0, 30, 3):
        planted.write(image, np.zeros((HEIGHT, WIDTH, 3), np.uint8) + np.uint8(image))
    progress = []
    one = checked(planted, workers=1, progress=lambda done, total: progress.append((done, total)))
    many = checked(planted, workers=5)
    assert kinds(one) == {"blank-image": 10} and one.findings == many.findings and one.troubled == many.troubled
    assert progress == [(done, 30) for done in range(1, 31)]


def test_findings_are_counted_beyond_those_kept():
    findings = Findings()
    for number in range(KEPT + 5):
        findings.add("grayscale", f"{number}.png")
    ((kind, count, kept),) = findings.of_level(Level.NOTE)
    assert (kind, count, len(kept)) == ("grayscale", KEPT + 5, KEPT) and findings.count(Level.NOTE) == KEPT + 5


def test_an_outline_without_end_is_refused_before_it_is_filled(tmp_path):
    planted = Planted(tmp_path)
    planted.annotate(1, [np.tile([-500, -300, 500, 300], 4000).tolist()])
    found = checked(planted)
    assert kinds(found) == {"bad-coordinates": 1} and "pixels long" in found.troubled[1].message
