"""Pictures: what is drawn where, that inputs stay as they are, files, and every plotting function without a window."""

from __future__ import annotations

import colorsys
import subprocess
import sys
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from mrcnn import drawing, visualize
from mrcnn.colors import as_rgb, instance_colors
from mrcnn.data.masks import extract_bboxes
from mrcnn.matching import compute_ap
from mrcnn.visualize import draw_instances, save_instances
from tests.detections import result_of

NAMES = ["BG", "disk", "box"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def scene():
    """An image of noise with a disk, a box that touches the border, and a ring, and its result."""
    y, x = np.mgrid[:120, :160]
    masks = np.stack(
        [
            (y - 40) ** 2 + (x - 40) ** 2 < 25**2,
            (y >= 80) & (x >= 100),
            ((y - 40) ** 2 + (x - 120) ** 2 < 30**2) & ((y - 40) ** 2 + (x - 120) ** 2 > 18**2),
        ],
        axis=-1,
    )
    image = np.random.default_rng(0).integers(60, 90, (120, 160, 3), dtype=np.uint8)
    result = {
        "rois": extract_bboxes(masks),
        "class_ids": np.array([1, 2, 1], np.int32),
        "scores": np.array([0.98, 0.75, 0.6], np.float32),
        "masks": masks,
    }
    return image, result


def changed(before, after):
    return np.any(before != after, axis=-1)


def grown(box, by, shape):
    """Where a box grown by some pixels lies."""
    inside = np.zeros(shape, bool)
    y1, x1, y2, x2 = box
    inside[max(y1 - by, 0) : y2 + by, max(x1 - by, 0) : x2 + by] = True
    return inside


# Drawing onto arrays --------------------------------------------------------------------------------------------


def test_masks_are_filled_and_outlined(scene):
    image, result = scene
    kept = {key: value.copy() for key, value in result.items()}
    color = (1.0, 0.0, 0.5)
    drawn = draw_instances(image, result, NAMES, show_boxes=False, show_labels=False, alpha=0.5, colors=color)
    assert (drawn.dtype, drawn.shape) == (np.uint8, image.shape)
    assert np.array_equal(image, np.random.default_rng(0).integers(60, 90, (120, 160, 3), dtype=np.uint8))
    assert all(np.array_equal(result[key], kept[key]) for key in kept)
    expected = np.rint(image * 0.5 + np.array([255, 0, 127.5]) * 0.5)
    assert np.abs(drawn[40, 40].astype(int) - expected[40, 40]).max() <= 1  # inside the disk
    assert np.abs(drawn[110, 150].astype(int) - expected[110, 150]).max() <= 1  # inside the box
    assert np.array_equal(drawn[40, 120], image[40, 120])  # in the ring's hole
    assert drawn[100, 100, 0] > 200  # the outline, where the color is full
    near = np.any([grown(box, 2, image.shape[:2]) for box in result["rois"]], axis=0)
    assert not changed(image, drawn)[~near].any()


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_masks_of_all_forms_are_drawn_alike(scene, form):
    image, result = scene
    rois = [result["rois"], [[20, 20, 50, 60], [90, 110, 200, 300], [5, 100, 60, 101]], [[0, 0, 9, 9]] * 3]
    for boxes in rois:  # those of the masks; that cut them; with nothing in them
        whole = {**result, "rois": np.array(boxes)}
        small = {**whole, "masks": result_of(result["masks"], form)["masks"]}
        np.testing.assert_array_equal(draw_instances(image, small, NAMES), draw_instances(image, whole, NAMES))
    with pytest.raises(ValueError, match="3 rois, and masks for 2"):
        draw_instances(image, {**small, "masks": small["masks"][:2]}, NAMES)
    if form == "rle":
        with pytest.raises(ValueError, match=r"masks measure \(120, 160\), the image \(100, 160\)"):
            draw_instances(image[:100], small, NAMES)


def test_boxes_only(scene):
    image, result = scene
    drawn = draw_instances(image, result, show_masks=False, show_labels=False, line_width=2)
    inside = np.zeros(image.shape[:2], bool)
    for y1, x1, y2, x2 in result["rois"]:
        inside[y1:y2, x1:x2] = True
        inside[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] = False
    assert np.array_equal(changed(image, drawn), inside)
    only_boxes = {"rois": result["rois"]}
    assert np.array_equal(drawn, draw_instances(image, only_boxes, line_width=2))


def test_labels_of_large_instances_only(scene):
    image, result = scene
    bare = draw_instances(image, result, NAMES, show_labels=False)
    labeled = draw_instances(image, result, NAMES)
    assert changed(bare, labeled).any()
    tiny = np.zeros((120, 160, 1), bool)
    tiny[50:56, 50:58] = True
    small = {"rois": extract_bboxes(tiny), "class_ids": [1], "scores": [0.9], "masks": tiny}
    assert np.array_equal(draw_instances(image, small, NAMES), draw_instances(image, small, NAMES, show_labels=False))


def test_no_labels_in_a_crowd(scene):
    image, result = scene
    many = {"rois": np.tile(result["rois"], (30, 1)), "class_ids": np.tile(result["class_ids"], 30)}
    assert np.array_equal(draw_instances(image, many, NAMES), draw_instances(image, many, NAMES, show_labels=False))


def test_labels_do_not_cover_each_other(monkeypatch):
    places = []
    monkeypatch.setattr(drawing, "_draw_label", lambda canvas, place, *rest: places.append(place))
    rois = np.array([[100, 100, 180, 300], [102, 102, 180, 300], [104, 104, 180, 300], [0, 0, 400, 400]])
    draw_instances(
        np.zeros((400, 400, 3), np.uint8), {"rois": rois, "class_ids": [1, 1, 1, 2], "scores": [0.1, 0.2, 0.3, 0.4]}
    )
    assert len(places) == 4
    for i, (top, left, bottom, right) in enumerate(places):
        assert 0 <= top < bottom <= 400
        assert 0 <= left < right <= 400
        for other in places[:i]:
            assert bottom <= other[0] or other[2] <= top or right <= other[1] or other[3] <= left


def test_label_texts():
    assert drawing.label(1, 0.954, NAMES) == "disk 0.95"
    assert drawing.label(2, None, {2: "zwei"}) == "zwei"
    assert drawing.label(3, 0.5, None) == "class 3 0.50"
    assert drawing.label(-1, None, NAMES) == "disk (crowd)"
    with pytest.raises(ValueError, match="3 names and none for class id 7"):
        drawing.label(7, None, NAMES)


@pytest.mark.parametrize("empty_masks", [np.zeros((120, 160, 0)), np.zeros((0, 0, 0)), None])
def test_nothing_to_draw(scene, empty_masks):
    image, _ = scene
    nothing = {
        "rois": np.zeros((0, 4), np.int32),
        "class_ids": np.zeros(0, np.int32),
        "scores": np.zeros(0),
        "masks": empty_masks,
    }
    drawn = draw_instances(image, nothing, NAMES)
    assert np.array_equal(drawn, image)
    assert drawn is not image
    assert not np.shares_memory(drawn, image)


def test_rois_without_area_or_outside(scene):
    image, _ = scene
    masks = np.ones((120, 160, 4), bool)
    rois = np.array([[10, 10, 10, 40], [0, 0, 0, 0], [-20, -20, 20, 20], [500, 500, 600, 600]])
    drawn = draw_instances(image, {"rois": rois, "class_ids": [1] * 4, "scores": [0.5] * 4, "masks": masks}, NAMES)
    assert changed(image, drawn)[:20, :20].all()
    assert not changed(image, drawn)[24:].any()


def test_thin_instances_have_an_outline():
    for shape in ((1, 1), (1, 9), (9, 1)):
        (line,) = drawing.mask_outlines(np.ones(shape, bool))
        assert np.abs(line.mean(axis=0) - (np.array(shape[::-1]) - 1) / 2).max() < 0.3
    assert drawing.mask_outlines(np.zeros((5, 5), bool)) == []


@pytest.mark.parametrize("radius", [6, 30, 450, 900])  # all steps of magnification
def test_outline_of_a_disk_is_a_circle(radius):
    y, x = np.mgrid[-radius - 3 : radius + 4, -radius - 3 : radius + 4]
    (line,) = drawing.mask_outlines(y**2 + x**2 < radius**2)
    distance = np.linalg.norm(line - (radius + 3), axis=1)
    assert np.abs(distance - radius).max() < 1.5
    assert abs(distance.mean() - radius) < 0.8


def test_result_mistakes(scene):
    image, result = scene
    for part, value, message in (
        ("class_ids", [1, 2], "3 rois, and class_ids for 2"),
        ("scores", [0.5], "3 rois, and scores for 1"),
        ("masks", result["masks"][..., :2], "3 rois, and masks for 2"),
        ("masks", result["masks"][:100], r"masks measure \(100, 160\), the image \(120, 160\)"),
        ("class_ids", [1, 2, 9], "none for class id 9"),
        ("rois", np.zeros((3, 5)), r"rois must have the shape \[N, 4\]. Received: \(3, 5\)"),
        ("rois", None, "needs `rois`"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_instances(image, {**result, part: value}, NAMES)
    for option, message in (
        ({"alpha": 2}, "alpha must lie from 0 to 1. Received: 2"),
        ({"colors": [(255, 0, 0)] * 3}, "from 0 to 1"),
        ({"colors": [(1, 0, 0)] * 2}, "each of the 3 instances"),
        ({"line_width": 0}, "at least 1 pixel"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_instances(image, result, NAMES, **option)


# Pictures and colors --------------------------------------------------------------------------------------------


def test_any_kind_of_image_becomes_rgb():
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = np.repeat(gray[..., None], 3, axis=2)
    assert np.array_equal(as_rgb(gray), expected)
    assert np.array_equal(as_rgb(gray[..., None]), expected)
    assert np.array_equal(as_rgb(gray.astype(np.uint16)), expected)
    assert np.array_equal(as_rgb(gray.astype(np.float64) / 255), expected)
    assert np.array_equal(as_rgb(expected.astype(np.float32)), expected)
    rgba = np.dstack([expected, np.full((3, 4), 7, np.uint8)])
    assert np.array_equal(as_rgb(rgba), expected)
    assert as_rgb(gray > 5).max() == 255
    deep = np.array([[32978, 36863]], np.uint16)
    assert as_rgb(deep)[0, :, 0].tolist() == [0, 255]
    assert as_rgb(np.array([[-5.0, np.nan, np.inf, 5.0]]))[0, :, 1].tolist() == [0, 0, 0, 255]
    assert as_rgb(np.full((2, 2), 40000, np.uint16)).max() == 0
    assert as_rgb(np.full((2, 2), np.nan)).max() == 0
    for shape in ((4,), (4, 4, 2), (4, 4, 5), (0, 4, 3), (1, 4, 4, 3)):
        with pytest.raises(ValueError, match="Received shape"):
            as_rgb(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("kind", ["gray", "deep", "rgba", "read-only"])
def test_drawing_on_any_kind_of_image(scene, kind):
    image, result = scene
    odd = {
        "gray": image[..., 0],
        "deep": image[..., 0].astype(np.uint16) * 300,
        "rgba": np.dstack([image, image[..., :1]]),
        "read-only": np.broadcast_to(image[..., :1], image.shape),
    }[kind]
    before = odd.copy()
    drawn = draw_instances(odd, result, NAMES)
    assert (drawn.dtype, drawn.shape) == (np.uint8, image.shape)
    assert np.array_equal(odd, before)
    assert changed(as_rgb(odd), drawn).any()


def test_random_colors_use_no_global_randomness():
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    colors = visualize.random_colors(7, seed=1)
    assert np.array_equal(np.random.get_state()[1], state)
    assert colors == visualize.random_colors(7, seed=1)
    assert colors == visualize.random_colors(7, seed=np.random.default_rng(1))
    assert sorted(colors) == sorted(colorsys.hsv_to_rgb(i / 7, 1, 1) for i in range(7))
    assert max(max(c) for c in visualize.random_colors(5, bright=False)) == pytest.approx(0.7)
    assert visualize.random_colors(0) == []


def test_instance_colors_differ():
    colors = instance_colors(125)
    assert colors.shape == (125, 3)
    assert colors.min() >= 0
    assert colors.max() <= 1
    assert np.linalg.norm(np.diff(colors, axis=0), axis=1).min() > 0.3
    assert len(np.unique(colors.round(3), axis=0)) == 125
    assert instance_colors(0).shape == (0, 3)


def test_apply_mask_and_draw_box_change_the_image(scene):
    image, result = scene
    expected = image.copy()
    mask = result["masks"][..., 0]
    expected[mask] = np.rint(image[mask] * 0.5 + np.array([255, 127.5, 0]) * 0.5)
    work = image.copy()
    assert visualize.apply_mask(work, mask, (1, 0.5, 0)) is work
    assert np.abs(work.astype(int) - expected).max() <= 1
    floats = image.astype(np.float32)
    visualize.apply_mask(floats, mask, (1, 0.5, 0))
    assert np.abs(floats - expected).max() <= 0.5
    before = work.copy()
    visualize.apply_mask(work, np.zeros_like(mask), (1, 1, 1))
    assert np.array_equal(work, before)
    for wrong in (mask[:50], mask[None]):
        with pytest.raises(ValueError, match="must be"):
            visualize.apply_mask(work, wrong, (1, 1, 1))
    with pytest.raises(ValueError, match="must be"):
        visualize.apply_mask(work[..., :1], mask, (1, 1, 1))
    for transparent in (np.dstack([image, image[..., :1]]), np.dstack([image, image[..., :1]]).astype(np.float32)):
        visualize.apply_mask(transparent, mask, (1, 0.5, 0))
        assert np.abs(transparent[..., :3].astype(int) - expected).max() <= 1
        assert np.array_equal(transparent[..., 3], image[..., 0])

    work = np.zeros((20, 20, 3), np.uint8)
    assert visualize.draw_box(work, (5, 6, 15, 16), [10, 20, 30]) is work
    assert work[5, 6].tolist() == work[14, 15].tolist() == work[6, 10].tolist() == [10, 20, 30]
    assert not work[7:13, 8:14].any()
    assert np.count_nonzero(work[..., 0]) == 100 - 36
    visualize.draw_box(work, (-5, -5, 300, 300), 1)  # all of its outline lies outside
    assert np.count_nonzero(work[..., 0]) == 100 - 36
    gray = np.zeros((20, 20), np.float32)
    visualize.draw_box(gray, (5, 6, 15, 16), 0.5)
    assert np.count_nonzero(gray == 0.5) == 100 - 36


# Files ----------------------------------------------------------------------------------------------------------


def test_saving(scene, tmp_path):
    image, result = scene
    drawn = draw_instances(image, result, NAMES, alpha=0.3)
    path = save_instances(tmp_path / "out.png", image, result, NAMES, alpha=0.3)
    assert np.array_equal(np.asarray(Image.open(path)), drawn)
    save_instances(str(path), image, result, NAMES)  # over the old one
    jpeg = save_instances(tmp_path / "out.JPG", image, result, NAMES, alpha=0.3)
    with Image.open(jpeg) as picture:
        assert picture.format == "JPEG"
        assert np.abs(np.asarray(picture).astype(int) - drawn).mean() < 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.JPG", "out.png"]


def test_saving_mistakes(scene, tmp_path):
    image, result = scene
    with pytest.raises(ValueError, match=r"saved as .png, .jpg, .jpeg. Received: out.gif"):
        save_instances(tmp_path / "out.gif", image, result)
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        save_instances(tmp_path / "missing" / "out.png", image, result)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        save_instances(tmp_path / "folder.png", image, result)
    with pytest.raises(ValueError, match="masks for 1"):
        save_instances(tmp_path / "out.png", image, {**result, "masks": result["masks"][..., :1]})
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


# Figures --------------------------------------------------------------------------------------------------------


def rendered(figure):
    figure.set_dpi(40)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def test_display_instances(scene, capsys):
    image, result = scene
    before = image.copy()
    arguments = image, result["rois"], result["masks"], result["class_ids"], NAMES
    ax = visualize.display_instances(*arguments, result["scores"], title="hello")
    assert [text.get_text() for text in ax.texts] == ["disk 0.98", "box 0.75", "disk 0.60"]
    assert ax.get_title() == "hello"
    assert len(ax.patches) == 3 + 4  # boxes, and outlines of which the ring has two
    assert np.array_equal(image, before)
    rendered(ax.figure)
    own = plt.figure().add_subplot()
    bare = visualize.display_instances(
        *arguments, ax=own, show_mask=False, show_bbox=False, captions=["a", "", "c"], colors=["red", "#00f", (0, 1, 0)]
    )
    assert bare is own
    assert not bare.patches
    assert [text.get_text() for text in bare.texts] == ["a", "c"]
    assert capsys.readouterr().out == ""
    empty = visualize.display_instances(image, np.zeros((0, 4)), np.zeros((120, 160, 0)), [], NAMES)
    assert "No instances" in capsys.readouterr().out
    assert len(empty.images) == 1
    padded = visualize.display_instances(image, np.zeros((1, 4)), None, [0], NAMES)
    assert not padded.patches


def test_display_instances_mistakes(scene):
    image, result = scene
    with pytest.raises(ValueError, match="boxes 3, class_ids 2, masks 3"):
        visualize.display_instances(image, result["rois"], result["masks"], [1, 2], NAMES)
    few = {"colors": [(1, 0, 0)], "scores": [0.5, 0.4], "captions": []}
    with pytest.raises(ValueError, match="each of 3. Received: scores 2, captions 0, colors 1"):
        visualize.display_instances(image, result["rois"], result["masks"], [1, 2, 1], NAMES, **few)


def test_what_scripts_make_for_more_instances_than_they_show(scene):
    image, result = scene
    two = result["rois"][:2], result["masks"][..., :2], [1, 2]
    ax = visualize.display_instances(image, *two, NAMES, [0.9, 0.8, 0.7], captions="abc", colors=[(1, 0, 0)] * 9)
    assert [text.get_text() for text in ax.texts] == ["a", "b"]
    ax = visualize.draw_boxes(image, two[0], result["rois"], result["masks"], "abcd", visibilities=[1, 1, 7])
    assert [text.get_text() for text in ax.texts] == ["a", "b"]


def test_display_differences(scene):
    image, result = scene
    truth = [result["rois"], result["class_ids"], result["masks"]]
    order = [1, 2, 0]  # not by score
    moved = np.roll(result["masks"], 3, axis=1)[..., order]
    found = [extract_bboxes(moved), result["class_ids"][order], result["scores"][order], moved]
    ax = visualize.display_differences(image, *truth, *found, NAMES)
    captions = [text.get_text() for text in ax.texts]
    assert [caption[:4] for caption in captions] == ["0.98", "0.75", "0.60"]
    for caption, mask in zip(captions, np.moveaxis(result["masks"], -1, 0), strict=True):
        shifted = np.roll(mask, 3, axis=1)
        assert float(caption[7:]) == pytest.approx(np.sum(mask & shifted) / np.sum(mask | shifted), abs=0.006)
    alone = visualize.display_differences(
        image, np.zeros((0, 4)), np.zeros(0, int), np.zeros((120, 160, 0), bool), *found, NAMES
    )
    assert [text.get_text()[-4:] for text in alone.texts] == ["0.00"] * 3


def test_display_images(scene):
    image, _ = scene
    figure = visualize.display_images([image, image[..., 0], image[..., :1], image, image], ["a", "b", "c", "d", "e"])
    assert len(figure.axes) == 5
    assert figure.axes[4].get_title() == "e"
    rendered(figure)
    assert len(visualize.display_images([image], ["a", "b"]).axes) == 1
    with pytest.raises(ValueError, match="each of 2. Received: titles 1"):
        visualize.display_images([image, image], ["a"])
    assert not visualize.display_images([]).axes


def test_display_top_masks(scene):
    image, result = scene
    figure = visualize.display_top_masks(image, result["masks"], result["class_ids"], NAMES)
    assert [ax.get_title() for ax in figure.axes] == ["H x W = 120 x 160", "disk", "box", "-", "-"]
    assert figure.axes[1].images[0].get_array().max() == 2  # two disks, told apart
    figure = visualize.display_top_masks(image, np.zeros((120, 160, 0)), np.zeros(0, int), NAMES, limit=1)
    assert [ax.get_title() for ax in figure.axes] == ["H x W = 120 x 160", "-"]


def test_curves_and_overlaps(scene):
    _, result = scene
    parts = [result["rois"], result["class_ids"], result["masks"]]
    average, precisions, recalls, overlaps = compute_ap(*parts, *parts[:2], result["scores"], parts[2])
    ax = visualize.plot_precision_recall(average, precisions, recalls)
    assert "1.000" in ax.get_title()
    classes = np.array([1, 1, 1])
    ax = visualize.plot_overlaps(result["class_ids"], classes, result["scores"], overlaps, NAMES)
    texts = [text.get_text().split("\n") for text in ax.texts]
    assert len(texts) == 9
    assert [texts[i] for i in (0, 4, 8)] == [["1.000", "match"], ["1.000", "wrong"], ["1.000", "match"]]
    rendered(ax.figure)
    with pytest.raises(ValueError, match="rows_of_overlaps 3, pred_class_ids 2"):
        visualize.plot_overlaps(classes, classes[:2], [0.5, 0.5], overlaps, NAMES)


def test_draw_boxes(scene):
    image, result = scene
    boxes = result["rois"]
    ax = visualize.draw_boxes(image, boxes, boxes + 2, result["masks"], ["a", "b", "c"], [0, 1, 2], title="t")
    assert len(ax.lines) == 2  # the hidden one has not moved
    styles = [patch.get_linestyle() for patch in ax.patches if isinstance(patch, Rectangle)]
    assert styles == ["dashed", "dashed", "solid", "solid", "solid"]
    rendered(ax.figure)
    assert len(visualize.draw_boxes(image, refined_boxes=boxes).patches) == 3
    with pytest.raises(ValueError, match="Received neither"):
        visualize.draw_boxes(image)
    with pytest.raises(ValueError, match="each of 3. Received: captions 1, masks 2"):
        visualize.draw_boxes(image, boxes, captions=["a"], masks=result["masks"][..., :2])
    with pytest.raises(ValueError, match="0, 1 or 2. Received: 3"):
        visualize.draw_boxes(image, boxes, visibilities=[1, 2, 3])


def test_draw_rois(scene, capsys, rng):
    image, result = scene
    rois = np.concatenate([result["rois"], [[-10, -10, 30, 30], [100, 100, 100, 120]]])
    small = rng.random((5, 28, 28))
    before = image.copy()
    ax = visualize.draw_rois(image, rois, rois + 2, small, np.array([1, 2, 0, 1, 1]), NAMES, limit=5, seed=0)
    assert capsys.readouterr().out.split("\n")[:3] == ["Positive ROIs: 4", "Negative ROIs: 1", "Positive ratio: 0.80"]
    assert len(ax.patches) == 4 * 2 + 1
    assert np.array_equal(image, before)
    rendered(ax.figure)
    visualize.draw_rois(image, rois[:0], rois[:0], small[:0], np.zeros(0, int), NAMES)


def test_tables(capsys, monkeypatch):
    text = visualize.display_table([["name", "n"], ["long <name>", 5], ["short"]])
    assert text == "name         n\nlong <name>  5\nshort"
    assert capsys.readouterr().out == text + "\n"
    assert visualize.display_table([]) == ""
    shown = []
    shell = SimpleNamespace(kernel=1)
    fake = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=lambda h: h, display=shown.append))
    visualize.display_table([["<a>"]])
    assert shown == ["<table><tr><td>&lt;a&gt;</td></tr></table>"]


def test_weight_stats(capsys):
    def layer(name, **arrays):
        weights = [SimpleNamespace(name=key) for key in arrays]
        return SimpleNamespace(name=name, weights=weights, get_weights=lambda: list(arrays.values()))

    inner = SimpleNamespace(name="rpn", layers=[layer("conv", kernel=np.ones((2, 2)), bias=np.zeros(2))], weights=[])
    outer = SimpleNamespace(
        layers=[
            layer("input"),
            inner,
            layer("dense", kernel=np.array([[-3.0, 5000]]), bias=np.array([np.nan])),
            layer("good", kernel=np.array([[1.0, 3.0]])),
        ]
    )
    table = visualize.display_weight_stats(SimpleNamespace(keras_model=outer))
    assert [row[0] for row in table[1:]] == ["conv/kernel", "conv/bias", "dense/kernel", "dense/bias", "good/kernel"]
    assert [row[-1] for row in table[1:]] == ["all one value", "", "very large", "not finite", ""]
    assert table[5][1:5] == ["(1, 2)", "+1.0000", "+3.0000", "+1.0000"]
    assert "dense/kernel" in capsys.readouterr().out


def test_figures_are_shown_where_a_window_can_be(scene, monkeypatch):
    image, result = scene
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(1))
    visualize.draw_boxes(image, result["rois"])
    assert not calls
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    visualize.draw_boxes(image, result["rois"])
    assert len(calls) == 1
    visualize.draw_boxes(image, result["rois"], ax=plt.gca())  # the caller's figure is the caller's to show
    assert len(calls) == 1


def test_no_backend_is_forced():
    code = (
        "import os; os.environ['MPLBACKEND'] = 'svg'\n"
        "import mrcnn.visualize as v, numpy as np, matplotlib\n"
        "v.plot_precision_recall(0.5, [1.0, 0.5], [0.0, 1.0])\n"
        "print(matplotlib.get_backend())"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "svg"
    assert mpl.get_backend().lower() == "agg"  # of these tests
