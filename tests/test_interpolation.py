"""Resizing and padding as torchvision and detectron2 do it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mrcnn.config import Config
from mrcnn.data.interpolation import interpolate
from mrcnn.data.molding import mold_image, mold_one, unmold_image
from mrcnn.data.resize_rules import Rules
from mrcnn.data.resizing import fit_image, resize_image, resize_mask


def of(base, **values):
    return type("MyConfig", (base,), values)()


def slow_bilinear(image, height, width):
    """Two taps an axis, the border goes on: pixel by pixel."""
    output = np.zeros((height, width, image.shape[2]))
    for i in range(height):
        for j in range(width):
            y = max((i + 0.5) * image.shape[0] / height - 0.5, 0)
            x = max((j + 0.5) * image.shape[1] / width - 0.5, 0)
            top, left = int(y), int(x)
            down, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
            lower = image[down, left] * (1 - x + left) + image[down, right] * (x - left)
            output[i, j] = upper * (1 - y + top) + lower * (y - top)
    return output


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("shape", [(7, 9), (31, 5), (12, 12)])
def test_two_taps_and_no_rounding(rng, channels, shape):
    image = rng.integers(0, 256, (12, 10, channels)).astype(np.uint8)
    found = interpolate(image, shape)
    assert found.dtype == np.float32 and found.shape == (*shape, channels)
    np.testing.assert_allclose(found, slow_bilinear(image.astype(float), *shape), atol=1e-2)


def test_antialias_is_pillows(rng):
    image = rng.integers(0, 256, (40, 30, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((11, 13), Image.Resampling.BILINEAR))
    found = interpolate(image, (13, 11), antialias=True)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    many = rng.random((40, 30, 5)).astype(np.float32)
    found = interpolate(many, (13, 11), antialias=True)
    assert found.shape == (13, 11, 5) and found.dtype == np.float32
    assert abs(float(found.mean()) - float(many.mean())) < 0.02  # all pixels count


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((480, 640), (800, 1066)), ((640, 480), (1066, 800)), ((300, 1000), (399, 1333)), ((1600, 1200), (1066, 800)),
     ((800, 800), (800, 800)), ((427, 640), (800, 1199))],
)  # fmt: skip
def test_sizes_of_the_shortest_side(shape, expected):
    rules = Rules("bilinear", "down", 32, True)
    image = np.zeros((*shape, 3), np.uint8)
    fitted = fit_image(image, 800, 1333, None, "shortest", rules=rules)
    assert fitted.image.shape[:2] == expected
    assert fitted.shape == tuple(-(-side // 32) * 32 for side in expected)
    assert fitted.window == (0, 0, *expected)
    masks = resize_mask(np.zeros((*shape, 1), bool), fitted.scale, fitted.padding, None, "image", rules)
    assert masks.shape[:2] == fitted.shape


def test_a_half_goes_up_in_detectron2():
    """520 x 800 / 512 = 812.5."""
    image = np.zeros((512, 520, 3), np.uint8)
    for rounding, side in (("up", 813), ("down", 812), ("even", 812)):
        fitted = fit_image(image, 800, 1333, None, "shortest", rules=Rules(rounding=rounding, corner=True))
        assert fitted.window == (0, 0, 800, side)


def test_the_canvas_of_training():
    image = np.zeros((100, 200, 3), np.uint8)
    rules = Rules("bilinear", "down", 32, True, canvas=(160, 320))
    padded, window, *_ = resize_image(image, 100, 300, None, "shortest", rules=rules)
    assert padded.shape == (160, 320, 3) and window == (0, 0, 100, 200)
    with pytest.raises(ValueError, match="128 x 224 does not fit into the 160 x 192.*IMAGE_RECTANGLE"):
        resize_image(image, 100, 300, None, "shortest", rules=Rules(multiple=32, canvas=(160, 192)))
    with pytest.raises(ValueError, match="Mode 'shortest' needs min_dim and max_dim. Received: None and 300"):
        resize_image(image, None, 300, None, "shortest")


def test_molding_by_mean_and_deviation(rng):
    config = of(Config.torchvision_v1(), IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=200)
    image = rng.integers(0, 256, (32, 50, 3)).astype(np.uint8)
    molded, meta, window = mold_one(image, config)
    assert molded.shape == (64, 128, 3) and window == (0, 0, 64, 100)
    assert (molded[:, 100:] == 0).all()
    resized = slow_bilinear(image.astype(float), 64, 100)
    expected = (resized / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(molded[:, :100], expected, atol=1e-3)
    assert meta[11] == 2
    for value in (image, image.astype(np.float32), image[None].astype(np.float64)):
        standard = mold_image(value, config)
        assert standard.dtype == np.float32
        np.testing.assert_array_equal(unmold_image(standard, config), value.astype(np.uint8))


def test_a_deviation_needs_no_other_recipe(rng):
    """Padding is black before the mean is subtracted, as it always was."""
    config = of(Config, STD_PIXEL=np.array([2.0, 4.0, 8.0]), IMAGE_MAX_DIM=64, IMAGE_MIN_DIM=32)
    molded, _, window = mold_one(np.full((20, 64, 3), 200, np.uint8), config)
    assert window == (22, 0, 42, 64)
    np.testing.assert_allclose(molded[0, 0], -config.MEAN_PIXEL / [2, 4, 8], rtol=1e-6)
    np.testing.assert_allclose(molded[30, 30], (200 - config.MEAN_PIXEL) / [2, 4, 8], rtol=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_blue_comes_first_where_a_network_wants_it(rng, kind):
    from mrcnn.legacy import functions  # which imports Keras

    rgb = of(Config, STD_PIXEL=np.array([2.0, 4.0, 8.0]), IMAGE_MAX_DIM=64, IMAGE_MIN_DIM=32)
    bgr = of(type(rgb), IMAGE_CHANNEL_ORDER="bgr")
    image = rng.integers(0, 256, (40, 64, 3)).astype(kind)
    expected, meta, _ = mold_one(image, rgb)
    molded, other_meta, _ = mold_one(image, bgr)
    np.testing.assert_array_equal(molded, expected[..., ::-1])
    np.testing.assert_array_equal(meta, other_meta)
    standard = mold_image(image[None], bgr)
    np.testing.assert_array_equal(standard, mold_image(image[None], rgb)[..., ::-1])
    np.testing.assert_array_equal(unmold_image(standard, bgr), image[None].astype(np.uint8))
    legacy = functions.mold_image(image, bgr)
    np.testing.assert_allclose(legacy, standard[0], rtol=1e-6)
