"""Pictures of datasets: masks are colored where they are, and training's pictures show what training gets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mrcnn.config import Config
from mrcnn.data.augmentation import Flip
from mrcnn.data.checking import check
from mrcnn.data.coco import CocoDataset
from mrcnn.data.formats import read_content
from mrcnn.data_pictures import annotated_picture, check_sheet, class_colors, training_picture, training_sheet
from tests.planted import HEIGHT, WIDTH, Planted, rectangle

# pycocotools' own, under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BLUE, RED = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
COLORS = {1: BLUE, 2: RED}


def dataset_of(planted):
    content = read_content(planted.save(), planted.folder)
    dataset = CocoDataset()
    dataset.add_content(content)
    dataset.prepare()
    return content, dataset


def gray(planted, image, **options):
    planted.write(image, np.full((HEIGHT, WIDTH, 3), 100, np.uint8), **options)


def blue_is_stronger(picture):
    return picture[..., 2].astype(int) > picture[..., 0].astype(int) + 30


def red_is_stronger(picture):
    return picture[..., 0].astype(int) > picture[..., 2].astype(int) + 30


def inside_and_around(mask, picture):
    """Shares of the pixels well inside the mask and well outside it that are colored."""
    from cv2 import dilate, erode

    kernel = np.ones((9, 9), np.uint8)
    inside, near = erode(mask.astype(np.uint8), kernel) > 0, dilate(mask.astype(np.uint8), kernel) > 0
    return picture[inside].mean(), picture[~near].mean()


def truth(x, y, width, height, scale):
    mask = np.zeros((HEIGHT * scale, WIDTH * scale), bool)
    mask[y * scale : (y + height) * scale, x * scale : (x + width) * scale] = True
    return mask


@pytest.mark.parametrize("as_runs", [False, True], ids=["polygon", "run lengths"])
def test_objects_are_colored_where_they_are(as_runs, tmp_path):
    planted = Planted(tmp_path)
    gray(planted, 1)
    if as_runs:
        mask = truth(4, 9, 20, 16, 1)
        runs = np.diff(
            np.flatnonzero(np.diff(mask.T.ravel().astype(int), prepend=0)), prepend=0, append=None or mask.size
        )
        planted.of(1)[0]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": runs.tolist()}
    _, dataset = dataset_of(planted)
    picture = annotated_picture(dataset, 1, WIDTH * 4, COLORS)
    assert picture.shape == (HEIGHT * 4, WIDTH * 4, 3)
    assert inside_and_around(truth(4, 9, 20, 16, 4), blue_is_stronger(picture)) == (1.0, 0.0)
    assert inside_and_around(truth(34, 9, 20, 16, 4), red_is_stronger(picture)) == (1.0, 0.0)


def test_a_small_picture_shows_small_objects_too(tmp_path):
    planted = Planted(tmp_path)
    gray(planted, 1)
    planted.annotations = [one for one in planted.annotations if one["image_id"] != 1]
    planted.annotate(1, [rectangle(30, 20, 1, 1)])
    planted.annotate(1, {"size": [HEIGHT, WIDTH], "counts": [5 * HEIGHT + 5, 1, HEIGHT * WIDTH - 5 * HEIGHT - 6]}, 2)
    _, dataset = dataset_of(planted)
    picture = annotated_picture(dataset, 1, 15, COLORS)
    assert picture.shape == (10, 15, 3) and blue_is_stronger(picture).any() and red_is_stronger(picture).any()


def test_pictures_of_what_is_wrong(tmp_path):
    """Of an image that is missing, damaged, of another size or turned."""
    planted = Planted(tmp_path, count=5)
    planted.path(0).unlink()
    planted.path(1).write_bytes(planted.path(1).read_bytes()[:-200])
    gray(planted, 2)
    planted.read(2).resize((WIDTH, HEIGHT // 2)).save(planted.path(2))
    turned = Image.Exif()
    turned[0x0112] = 6
    gray(planted, 3, name="3.jpg", exif=turned)
    planted.annotate(4, [rectangle(500, 500)])
    content, dataset = dataset_of(planted)
    for image in (0, 1, 3):
        picture = annotated_picture(dataset, image, WIDTH * 2, COLORS)
        assert picture.shape == (HEIGHT * 2, WIDTH * 2, 3)
        assert inside_and_around(truth(4, 8 + image, 20, 16, 2), blue_is_stronger(picture)) == (1.0, 0.0)
    squeezed = annotated_picture(dataset, 2, WIDTH, COLORS)  # the pixels that the annotations name
    assert squeezed.shape == (HEIGHT // 2, WIDTH, 3) and blue_is_stronger(squeezed)[14:18, 8:20].all()

    found = check(content, config_of())
    first = check_sheet(content, found, 2)
    everything = check_sheet(content, found, 100)
    assert first.shape[1] < everything.shape[1] and everything.dtype == np.uint8
    content.images.clear()
    assert check_sheet(content, found, 2) is None


def config_of(**values):
    fields = {"NUM_CLASSES": 3, "IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 128, "MINI_MASK_SHAPE": (28, 28)}
    return type("PictureConfig", (Config,), {**fields, **values})()


@pytest.mark.parametrize("mini", [True, False], ids=["mini-masks", "whole masks"])
def test_training_sees_resized_images_and_masks(mini, tmp_path):
    planted = Planted(tmp_path)
    gray(planted, 1)
    _, dataset = dataset_of(planted)
    config = config_of(USE_MINI_MASK=mini)
    picture, count = training_picture(dataset, config, 1, None, np.random.default_rng(0), 256, COLORS)
    assert picture.shape == (256, 256, 3) and count == 2
    scale, top = 256 / WIDTH, (256 - 256 * HEIGHT / WIDTH) / 2
    mask = np.zeros((256, 256), bool)
    mask[round(top + 9 * scale) : round(top + 25 * scale), round(4 * scale) : round(24 * scale)] = True
    assert inside_and_around(mask, blue_is_stronger(picture)) == (1.0, 0.0)
    assert (picture[: int(top) - 1] == 0).all()  # what was padded
    flipped, _ = training_picture(dataset, config, 1, Flip(1.0), np.random.default_rng(0), 256, COLORS)
    assert inside_and_around(mask[:, ::-1], blue_is_stronger(flipped))[0] == 1.0


def test_a_sheet_of_training(tmp_path):
    planted = Planted(tmp_path)
    planted.path(0).unlink()
    _, dataset = dataset_of(planted)
    sheet = training_sheet(dataset, config_of(MAX_GT_INSTANCES=1), None, 3, draws=2, name="data")
    same = training_sheet(dataset, config_of(MAX_GT_INSTANCES=1), None, 3, draws=2, name="data")
    np.testing.assert_array_equal(sheet, same)
    assert sheet.shape[0] > sheet.shape[1]  # three rows of two
    assert training_sheet(dataset, config_of(IMAGE_RESIZE_MODE="crop"), Flip(), 100).ndim == 3


def test_colors_of_classes():
    assert class_colors([1]) == {} and class_colors(range(1, 50)) == {} and class_colors([]) == {}
    assert list(class_colors([2, 7])) == [2, 7]
