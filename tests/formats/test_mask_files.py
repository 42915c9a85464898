"""Masks as image files: their layouts, stacks, and what a file may hold."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from mrcnn.data.content import Kind
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import load_dataset, read_content
from mrcnn.data.formats.label_images import binary_mask, label_values
from mrcnn.data.images import ImageError
from tests.formats import samples
from tests.formats.samples import HEIGHT, RING, SQUARE, WIDTH

LABELS = (np.where(SQUARE, 3, 0) + np.where(RING, 9, 0)).astype(np.uint8)


def save(path, values, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(values).save(path, **more)


def check(path, *images, **more):
    dataset = load_dataset(path, *images, **more)
    masks, class_ids = dataset.load_mask(0)
    np.testing.assert_array_equal(masks, np.stack([SQUARE, RING], -1))
    assert class_ids.tolist() == [1, 1] and dataset.class_names == ["BG", "object"]
    return dataset


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.png", "masks/a.png"),
        ("images/a.tif", "labels/a.tiff"),
        ("images/img_7.png", "masks/mask_7.png"),
        ("images/a.png", "masks/a_mask.png"),
        ("a.png", "a_mask.png"),
        ("a.jpg", "a_masks.png"),
        ("a.png", "a_cp_masks.png"),
        ("a_img.tif", "a_mask.tif"),
        ("img2d.tif", "mask2d.tif"),
        ("a.png", "a-label.png"),
        ("a b.png", "a b.seg.png"),
        ("raw_5.png", "label_5.png"),
    ],
)
def test_layouts_of_label_images(tmp_path, image, mask):
    samples.image(tmp_path / image)
    save(tmp_path / mask, LABELS)
    dataset = check(tmp_path)
    assert dataset.num_images == 1 and dataset.image_info[0]["path"].endswith(image)


def test_one_mask_a_file_in_a_folder_of_the_images_name(tmp_path):
    for name in ("a", "b"):
        samples.image(tmp_path / "images" / f"{name}.png")
        for number, mask in enumerate((SQUARE, RING)):
            save(tmp_path / "masks" / name / f"{number}.png", mask)
    assert check(tmp_path).num_images == 2


def test_one_image_of_the_bowl(tmp_path):
    assert check(samples.masks(tmp_path) / "0ab1").num_images == 1


def test_folders_apart(tmp_path):
    samples.image(tmp_path / "photos" / "a.png")
    save(tmp_path / "truth" / "a.png", LABELS)
    check(tmp_path / "truth", tmp_path / "photos", format="masks")


def test_images_without_masks_are_left_out(tmp_path):
    samples.label_images(tmp_path)
    samples.image(tmp_path / "c.png")
    assert load_dataset(tmp_path).num_images == 2


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_label_images_of_all_kinds(tmp_path, kind):
    samples.image(tmp_path / "a.tif")
    save(tmp_path / "a_mask.tif", LABELS.astype(kind))
    check(tmp_path)


def test_label_images_in_colors(tmp_path):
    samples.image(tmp_path / "a.png")
    save(tmp_path / "a_mask.png", np.repeat(LABELS[..., None], 3, -1))
    check(tmp_path)
    colors = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    colors[SQUARE], colors[RING], colors[..., 3] = (1, 2, 3, 0), (250, 0, 9, 0), 255
    save(tmp_path / "a_mask.png", colors)
    check(tmp_path)


def test_stacks(tmp_path):
    """A label image for each frame; or a page for each mask of one image."""
    frames = [PIL.Image.new("L", (WIDTH, HEIGHT), 40 * number) for number in range(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    pages = [PIL.Image.fromarray(values.astype(np.uint16)) for values in (LABELS, LABELS * 0, RING * 5)]
    pages[0].save(tmp_path / "a_mask.tif", save_all=True, append_images=pages[1:])
    dataset = check(tmp_path)
    assert [info["frame"] for info in dataset.image_info] == [0, 1, 2]
    assert [int(dataset.load_image(number)[0, 0, 0]) for number in range(3)] == [0, 40, 80]
    np.testing.assert_array_equal(dataset.load_mask(2)[0][..., 0], RING)
    assert dataset.load_mask(1)[0].shape[2] == 0
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:2])
    with pytest.raises(DatasetError, match=r"a_mask\.tif: has 3 pages. Its images, .*a\.tif, are 2"):
        load_dataset(tmp_path)
    frames[0].save(tmp_path / "a.tif")
    pages = [PIL.Image.fromarray(mask) for mask in (SQUARE, RING)]
    pages[0].save(tmp_path / "a_mask.tif", save_all=True, append_images=pages[1:])
    check(tmp_path)


def test_empty_masks_are_left_out_and_told(tmp_path):
    path = samples.masks(tmp_path)
    save(path / "0cd2" / "masks" / "x.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    (problem,) = read_content(path).problems
    assert problem.kind == Kind.EMPTY and not problem.is_error and problem.file.endswith("x.png")
    check(path)


def test_a_semantic_mask_is_told(tmp_path):
    samples.image(tmp_path / "a.png")
    save(tmp_path / "a_mask.png", ((SQUARE | RING) * 255).astype(np.uint8))
    (problem,) = read_content(tmp_path).problems
    assert not problem.is_error and "in 3 parts: all of them are taken for one instance" in problem.message


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "I", "F"])
@pytest.mark.parametrize("high", [1, 255])
def test_one_mask_in_all_modes(mode, high):
    if mode == "1":
        values = np.array(PIL.Image.fromarray(SQUARE))
    elif mode in ("I;16", "I", "F"):
        values = (SQUARE * high).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
    else:
        values = np.array(PIL.Image.fromarray((SQUARE * high).astype(np.uint8)).convert(mode, palette=0))
    np.testing.assert_array_equal(binary_mask(values, "x"), SQUARE)


def test_masks_with_shades(rng):
    """As JPEG leaves them."""
    soft = SQUARE * 255 + rng.integers(-40, 40, SQUARE.shape)
    np.testing.assert_array_equal(binary_mask(np.clip(soft, 0, 255).astype(np.uint8), "x"), SQUARE)
    with pytest.raises(ImageError, match="x holds more values than those of one mask"):
        binary_mask(np.arange(200, dtype=np.uint8).reshape(10, 20), "x")
    assert not binary_mask(np.zeros((0, 3)), "x").any() and not binary_mask(np.full((2, 2), -1.0), "x").any()
    assert not binary_mask(np.full((2, 2), np.nan), "x").any()


@pytest.mark.parametrize("values", [np.full((2, 2), 0.5), np.full((2, 2), np.nan), np.full((2, 2), 1e30),
                                    np.arange(12, dtype=np.uint16).reshape(2, 2, 3), np.zeros(3)])  # fmt: skip
def test_what_is_no_label_image(values):
    with pytest.raises(ImageError, match="x (holds|has|is)"):
        label_values(values, "x")


def problems_of(path, *images, **more):
    return [(problem.kind, problem.message) for problem in read_content(path, *images, **more).problems]


def test_broken_pairs_are_told(tmp_path):
    path = samples.label_images(tmp_path / "side by side")
    assert problems_of(path) == []
    samples.image(path / "c.png"), samples.image(path / "e.png")
    save(path / "d_mask.tif", LABELS)
    mask, image = read_content(path).problems
    assert mask.kind == Kind.MISSING_IMAGE and mask.file.endswith("d_mask.tif")
    assert image.message == "2 images have no masks and are left out: c.png; e.png."
    assert not mask.is_error and not image.is_error
    samples.image(tmp_path / "apart" / "images" / "a.png")
    for name in ("a", "b"):
        save(tmp_path / "apart" / "masks" / name / "0.png", SQUARE)
    ((kind, _),) = problems_of(tmp_path / "apart")
    assert kind == Kind.MISSING_IMAGE


def test_an_image_of_the_bowl_that_is_gone_is_told(tmp_path):
    path = samples.masks(tmp_path)
    assert problems_of(path) == []
    for file in (path / "0ab1" / "images").iterdir():
        file.unlink()
    problems = read_content(path).problems
    assert len(problems) == len(list((path / "0ab1" / "masks").iterdir()))
    assert {problem.kind for problem in problems} == {Kind.MISSING_IMAGE} and "0ab1" in problems[0].file
