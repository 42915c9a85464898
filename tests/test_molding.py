"""Molding: golden numbers, a slow oracle for resizing, kinds of images, the meta array, errors."""

from __future__ import annotations

import json
import random
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data import resizing
from mrcnn.data.image_meta import ImageMeta
from mrcnn.data.molding import (
    as_channels,
    check_molded_size,
    mold_image,
    mold_inputs,
    mold_one,
    place_boxes,
    place_masks,
    unmold_detections,
    unmold_image,
)
from mrcnn.data.resizing import resize, resize_image, resize_mask
from mrcnn.data.rle import encode_masks
from tests import golden

MOLDING = "golden_molding"
MEAN = np.array([123.7, 116.8, 103.9])


def make_config(**values):
    fields = {"NUM_CLASSES": 4, "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 128, **values}
    return type("TestConfig", (Config,), fields)()


def golden_cases(function, key):
    head, tail = f"{function}.", f".{key}"
    return [
        name[len(head) : -len(tail)] for name in golden.load(MOLDING) if name.startswith(head) and name.endswith(tail)
    ]


class PythonRandom:
    """The original's crops were drawn with Python's own generator; this has it stand in for numpy's."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def integers(self, high):
        return self.random.randint(0, high - 1)


def bilinear_oracle(image, height, width):
    """One pixel after the other, exactly as the formula says."""
    padded = np.pad(image.astype(float), 1)
    output = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = (i + 0.5) * image.shape[0] / height - 0.5
            x = (j + 0.5) * image.shape[1] / width - 0.5
            top, left = int(np.floor(y)), int(np.floor(x))
            for a, wy in ((top, 1 - (y - top)), (top + 1, y - top)):
                for b, wx in ((left, 1 - (x - left)), (left + 1, x - left)):
                    output[i, j] += wy * wx * padded[a + 1, b + 1]
    return np.clip(output, image.min(), image.max())


# Resizing


@pytest.mark.parametrize("case", golden_cases("resize", "in.image"))
def test_resize_golden(case):
    data = golden.part(MOLDING, f"resize.{case}")
    actual = resize(data["in.image"], data["in.output_shape"])
    assert actual.dtype == data["out.new"].dtype
    golden.check(f"resize {case}", actual, data["out.new"])


@pytest.mark.parametrize("case", golden_cases("resize_image", "in.image"))
def test_resize_image_golden(case):
    data = golden.part(MOLDING, f"resize_image.{case}")
    generator = PythonRandom(int(data["in.python_random_seed"]))
    image, window, scale, padding, crop = resize_image(
        data["in.image"], generator=generator, **json.loads(str(data["in.kwargs_json"]))
    )
    assert image.dtype == np.uint8
    assert isinstance(scale, float)
    golden.check(f"resize_image {case} image", image, data["out.image"])
    golden.check(f"resize_image {case} window", window, data["out.window"])
    golden.check(f"resize_image {case} scale", scale, data["out.scale"])
    golden.check(f"resize_image {case} padding", padding, data["out.padding"])
    golden.check(f"resize_image {case} crop", (-1, -1, -1, -1) if crop is None else crop, data["out.crop"])
    mask = golden.part(MOLDING, f"resize_mask.{case}")
    actual = resize_mask(mask["in.mask"], scale, padding, crop)
    assert actual.dtype == bool
    golden.check(f"resize_mask {case}", actual, mask["out"])


@pytest.mark.parametrize("shapes", [(7, 5, 15, 11), (15, 11, 7, 5), (9, 4, 3, 13), (1, 1, 4, 3), (6, 8, 1, 1)])
def test_resize_matches_the_oracle(shapes, rng):
    height, width, new_height, new_width = shapes
    image = rng.uniform(3, 200, (height, width))
    expected = bilinear_oracle(image, new_height, new_width)
    np.testing.assert_allclose(resize(image, (new_height, new_width)), expected, atol=1e-10)


def test_resize_is_the_same_for_any_layout_and_number_of_channels(rng):
    image = rng.integers(0, 256, (40, 30, 7), dtype=np.uint8)
    together = resize(image, (64, 80), np.uint8)
    alone = np.stack([resize(image[:, :, c], (64, 80), np.uint8) for c in range(7)], axis=-1)
    np.testing.assert_array_equal(together, alone)
    turned = resize(np.asfortranarray(image)[::-1], (64, 80))
    np.testing.assert_array_equal(turned, resize(np.ascontiguousarray(image[::-1]), (64, 80)))


@pytest.mark.parametrize(
    ("shape", "output", "exact"),
    [
        ((48, 64, 3), (77, 102, 3), False),
        ((40, 30), (64, 48), True),
        ((96, 160, 3), (60, 100, 3), False),
        ((300, 400, 2), (96, 128, 2), True),
        ((60, 80, 3), (128, 128, 3), True),
        ((128, 128), (32, 64), True),
        ((5, 5), (1024, 512), False),  # too many bits in both together
    ],
)
def test_resizing_in_float32_is_only_done_where_it_changes_nothing(shape, output, exact, rng, monkeypatch):
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    image[: shape[0] // 2] = 201  # flat: here the last bit would tell
    weights = [resizing._taps(side, wanted)[1] for side, wanted in zip(shape[:2], output[:2], strict=True)]
    assert resizing._exact_in_float32(image, *weights) == exact
    assert not resizing._exact_in_float32(image.astype(np.uint16), *weights)
    fast, fine = resize(image, output, np.uint8), resize(image, output)
    monkeypatch.setattr(resizing, "_exact_in_float32", lambda *_: False)
    np.testing.assert_array_equal(fast, resize(image, output, np.uint8))
    np.testing.assert_array_equal(fine, resize(image, output))
    assert fine.dtype == np.float64


@pytest.mark.parametrize("value", [0, 1, 10, 254, 255])
def test_flat_images_stay_flat(value):
    flat = np.full((37, 53, 3), value, np.uint8)
    assert (resize(flat, (91, 128), np.uint8) == value).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("mode", ["square", "pad64", "crop", "none"])
def test_resize_image_keeps_the_type(dtype, mode, rng):
    image = rng.integers(0, 200, (50, 70, 3)).astype(dtype)
    resized, window, _, _, _ = resize_image(image, 64, 128, mode=mode)
    assert resized.dtype == dtype
    assert resized.shape == {"square": (128, 128, 3), "pad64": (64, 128, 3), "crop": (64, 64, 3)}.get(mode, (50, 70, 3))
    outside = np.ones(resized.shape[:2], bool)
    outside[window[0] : window[2], window[1] : window[3]] = False
    assert (resized[outside] == 0).all()


def test_crop_is_central_without_a_generator_and_random_with_one(rng):
    image = rng.integers(0, 256, (100, 150, 3), dtype=np.uint8)
    cropped, _, _, _, crop = resize_image(image, 64, mode="crop")
    assert crop == (18, 43, 64, 64)
    np.testing.assert_array_equal(cropped, image[18:82, 43:107])
    crops = {resize_image(image, 64, mode="crop", generator=rng)[4] for _ in range(20)}
    assert len(crops) > 10
    assert all(0 <= y <= 36 and 0 <= x <= 86 for y, x, _, _ in crops)
    first, again = (resize_image(image, 64, mode="crop", generator=np.random.default_rng(3))[4] for _ in range(2))
    assert first == again


def test_bounds_that_are_none_or_zero():
    image = np.zeros((100, 150, 3), np.uint8)
    assert resize_image(image, None, 256)[2] == 1.0
    assert resize_image(image, 0, 256, 0)[2] == 1.0
    assert resize_image(image, None, 128)[2] == 128 / 150
    assert resize_image(image, 200, 1024, None)[2] == 2.0
    assert resize_image(image, mode="pad64")[0].shape == (128, 192, 3)
    assert resize_image(image, mode="none")[0].shape == (100, 150, 3)


def test_a_sliver_keeps_a_pixel():
    image, window, scale, padding, _ = resize_image(np.full((1, 3000, 3), 9, np.uint8), 64, 128)
    assert image.shape == (128, 128, 3)
    assert (window[2] - window[0], window[3] - window[1]) == (1, 128)
    assert resize_mask(np.ones((1, 3000, 2), bool), scale, padding).shape == (128, 128, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "squash"}, r"one of none, square, pad64, crop, shortest\. Received: 'squash'"),
        ({"mode": "pad64", "min_dim": 100}, r"multiple of 64\. Received: 100\. Nearest: 64, 128\."),
        ({"mode": "square", "min_dim": 64}, "needs max_dim"),
        ({"mode": "crop", "max_dim": 64}, "needs min_dim"),
        ({"mode": "square", "max_dim": 99.5}, r"max_dim must be a whole number.*99\.5"),
        ({"mode": "square", "max_dim": 64, "min_dim": -1}, r"min_dim must be a whole number.*-1"),
    ],
)
def test_resize_image_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        resize_image(np.zeros((50, 60, 3), np.uint8), **arguments)


@pytest.mark.parametrize("shape", [(5,), (0, 5, 3), (2, 5, 5, 3)])
def test_images_of_a_wrong_shape_are_refused(shape):
    image = np.zeros(shape, np.uint8)
    for call in (
        lambda: resize_image(image, 64, 64),
        lambda: resize(image, (4, 4)),
        lambda: as_channels(image, 3),
    ):
        with pytest.raises(ValueError, match="Received shape"):
            call()


def test_resize_refuses_an_empty_output():
    with pytest.raises(ValueError, match=r"at least \(1, 1\)"):
        resize(np.zeros((4, 4)), (0, 4))


# Masks follow their images


def test_resize_mask_on_the_grid_of_the_image(rng):
    mask = rng.random((50, 70, 3)) < 0.5
    for scale in (0.5, 1.0, 1.7, 3.0):
        actual = resize_mask(mask, scale, [(2, 1), (0, 3), (0, 0)], grid="image")
        height, width = round(50 * scale), round(70 * scale)
        assert actual.shape == (height + 3, width + 3, 3)
        for i, j in rng.integers(0, (height, width), (50, 2)):
            source = int((i + 0.5) * 50 / height), int((j + 0.5) * 70 / width)
            np.testing.assert_array_equal(actual[i + 2, j], mask[source])
        assert not actual[:2].any()
        assert not actual[-1].any()
        assert not actual[:, width:].any()


def test_resize_mask_legacy_grid_lays_corners_on_corners(rng):
    mask = rng.random((50, 70, 3)) < 0.5
    actual = resize_mask(mask, 2.0, [(0, 0), (0, 0), (0, 0)])
    np.testing.assert_array_equal(actual[::99, ::139], mask[::49, ::69])


def test_resize_mask_of_no_instances_and_other_types():
    assert resize_mask(np.zeros((10, 12, 0), bool), 2.0, [(1, 1), (0, 0), (0, 0)]).shape == (22, 24, 0)
    assert resize_mask(np.full((10, 12, 1), 7, np.uint8), 2.0, [(0, 0)] * 3).max() == 7


def test_resize_mask_errors():
    with pytest.raises(ValueError, match=r"\[H, W, N\]"):
        resize_mask(np.zeros((10, 12), bool), 1.0, [(0, 0)] * 3)
    with pytest.raises(ValueError, match="legacy, image"):
        resize_mask(np.zeros((10, 12, 1), bool), 1.0, [(0, 0)] * 3, grid="fine")


# Channels and values


def test_as_channels_of_every_kind(rng):
    gray = rng.integers(0, 256, (6, 5), dtype=np.uint8)
    rgba = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    for image in (gray, gray[:, :, None]):
        np.testing.assert_array_equal(as_channels(image, 3), np.stack([gray] * 3, axis=-1))
        np.testing.assert_array_equal(as_channels(image, 1), gray[:, :, None])
    np.testing.assert_array_equal(as_channels(rgba, 3), rgba[:, :, :3])
    np.testing.assert_array_equal(as_channels(rgba, 4), rgba)
    assert as_channels(np.zeros((6, 5, 7), np.uint16), 7).shape == (6, 5, 7)
    assert as_channels(np.zeros((6, 5, 3), np.float16), 3).dtype == np.float16


def test_color_becomes_luminance_for_a_network_of_one_channel(rng):
    gray = rng.integers(0, 256, (6, 5), dtype=np.uint8)
    for image in (np.stack([gray] * 3, axis=-1), np.stack([gray, gray, gray, 255 - gray], axis=-1)):
        found = as_channels(image, 1)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found[:, :, 0], gray)
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert as_channels(colors, 1).ravel().tolist() == [76, 150, 29]
    np.testing.assert_allclose(as_channels(colors / 255, 1).ravel(), [0.299, 0.587, 0.114])


@pytest.mark.parametrize(("channels", "count"), [(2, 3), (5, 3), (2, 1), (3, 4), (4, 6)])
def test_as_channels_refuses_other_counts(channels, count):
    with pytest.raises(ValueError, match=rf"IMAGE_CHANNEL_COUNT is {count}.*Received: {channels} channels"):
        as_channels(np.zeros((6, 5, channels), np.uint8), count)


@pytest.mark.parametrize("image", ["cat.jpg", None, np.zeros((4, 4, 3), bool), np.zeros((4, 4, 3), complex)])
def test_as_channels_refuses_what_is_no_image(image):
    with pytest.raises(TypeError, match="whole numbers or floats"):
        as_channels(image, 3)


def test_as_channels_refuses_nan():
    image = np.zeros((4, 4, 3), np.float32)
    image[1, 2] = np.nan, np.inf, 0
    with pytest.raises(ValueError, match="2 value"):
        as_channels(image, 3)


def test_mold_and_unmold_image_golden():
    data = golden.part(MOLDING, "mold_image.a")
    config = SimpleNamespace(MEAN_PIXEL=data["in.mean"])
    molded = mold_image(data["in.image"], config)
    assert molded.dtype == np.float32
    golden.check("mold_image", molded, data["out"], atol=1e-5)  # float32 of the original's float64
    np.testing.assert_array_equal(molded, data["out"].astype(np.float32))
    expected = golden.load(MOLDING)["unmold_image.a.out"]
    golden.check("unmold_image float64", unmold_image(data["out"], config), expected)
    golden.check("unmold_image float32", unmold_image(molded, config), expected)


def test_mold_image_of_a_batch_of_many_channels(rng):
    config = SimpleNamespace(MEAN_PIXEL=np.arange(5.0))
    images = rng.integers(0, 60000, (2, 6, 7, 5), dtype=np.uint16)
    np.testing.assert_array_equal(mold_image(images, config), (images - np.arange(5.0)).astype(np.float32))
    config = SimpleNamespace(MEAN_PIXEL=7)
    np.testing.assert_array_equal(mold_image(images[:, :, ::2], config), images[:, :, ::2].astype(np.float32) - 7)
    with pytest.raises(ValueError, match="3 numbers, 5 channels"):
        mold_image(images, SimpleNamespace(MEAN_PIXEL=MEAN))


# Meta


def test_image_meta_golden():
    data = golden.load(MOLDING)
    expected = data["compose_image_meta.a.out"]
    meta = ImageMeta(7, (100, 150, 3), (128, 128, 3), (21, 0, 107, 128), 0.8533, [1, 0, 1, 1])
    golden.check("ImageMeta.to_array", meta.to_array(), expected)
    assert len(expected) == ImageMeta.size(4) == make_config().IMAGE_META_SIZE
    fields = ImageMeta.parse(np.stack([expected, 2 * expected]))
    wanted = golden.part(MOLDING, "parse_image_meta.a.out")
    assert set(fields) == set(wanted)
    for name, value in fields.items():
        assert value.dtype == wanted[name].dtype
        golden.check(f"ImageMeta.parse {name}", value, wanted[name])


def test_image_meta_goes_there_and_back():
    meta = ImageMeta(3, (10, 20, 6), (64, 64, 6), (1, 2, 3, 4), 1.25, (0, 1))
    assert ImageMeta.from_array(meta.to_array()) == meta
    assert ImageMeta.from_array(meta.to_array().astype(np.float32)) == meta


def test_image_meta_is_float_even_for_whole_scales():
    array = ImageMeta(0, (64, 64, 3), (64, 64, 3), (0, 0, 64, 64), 1, [0]).to_array()
    assert array.dtype == np.float64


def test_image_meta_refuses_short_shapes():
    with pytest.raises(ValueError, match="original_image_shape must hold 3"):
        ImageMeta(0, (64, 64), (64, 64, 3), (0, 0, 64, 64), 1.0, [0]).to_array()


# All of it together


def test_mold_one_pads_before_the_mean_is_subtracted(rng):
    image = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    molded, meta, window = mold_one(image, make_config())
    assert molded.shape == (128, 128, 3)
    assert molded.dtype == np.float32
    np.testing.assert_array_equal(molded[0, 0], (-MEAN).astype(np.float32))
    parsed = ImageMeta.from_array(meta)
    assert parsed == ImageMeta(0, (50, 70, 3), (128, 128, 3), window, parsed.scale, (0, 0, 0, 0))
    assert parsed.scale == 64 / 50


@pytest.mark.parametrize(
    ("shape", "count"), [((50, 70), 3), ((50, 70, 1), 3), ((50, 70, 4), 3), ((50, 70), 1), ((50, 70, 6), 6)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_mold_one_takes_all_kinds_of_images(shape, count, dtype, rng):
    image = rng.integers(0, 256, shape).astype(dtype)
    config = make_config(IMAGE_CHANNEL_COUNT=count, MEAN_PIXEL=np.full(count, 100.0))
    molded, meta, _ = mold_one(image, config)
    assert molded.shape == (128, 128, count)
    assert ImageMeta.from_array(meta).original_image_shape == (50, 70, count)
    assert np.isfinite(molded).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(("shape", "mode"), [((50, 70), "square"), ((70, 50), "square"), ((90, 64), "pad64")])
def test_mold_one_is_padding_and_then_the_mean(dtype, count, shape, mode, rng):
    image = rng.integers(0, 256, (*shape, count)).astype(dtype)
    image = np.asfortranarray(image)[::-1] if count == 4 else image
    config = make_config(IMAGE_CHANNEL_COUNT=count, MEAN_PIXEL=np.arange(count) + 100.7, IMAGE_RESIZE_MODE=mode)
    molded, _, window = mold_one(image, config)
    padded, expected_window, *_ = resize_image(image, 64, 128, 0, mode)
    expected = (padded.astype(np.float64) - config.MEAN_PIXEL).astype(np.float32)
    np.testing.assert_array_equal(molded, expected)
    assert molded.dtype == np.float32
    assert window == expected_window


def test_mold_inputs_stacks_what_is_alike_and_lists_what_is_not(rng):
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((50, 70), (90, 60))]
    molded, metas, windows = mold_inputs(images, make_config())
    assert molded.shape == (2, 128, 128, 3)
    assert metas.shape == (2, 16)
    assert windows.shape == (2, 4)
    molded, metas, windows = mold_inputs(images, make_config(IMAGE_RESIZE_MODE="pad64"))
    assert [image.shape for image in molded] == [(64, 128, 3), (128, 64, 3)]
    np.testing.assert_array_equal(ImageMeta.parse(metas)["window"], windows)
    with pytest.raises(ValueError, match="At least one image"):
        mold_inputs([], make_config())


def test_sizes_that_the_network_cannot_halve_are_refused():
    config = make_config(IMAGE_RESIZE_MODE="none")
    assert mold_one(np.zeros((64, 192, 3), np.uint8), config)[0].shape == (64, 192, 3)
    with pytest.raises(ValueError, match=r"Width.*multiple of 64\. Received: 100 .*Nearest: 64, 128\..*pad64"):
        mold_one(np.zeros((64, 100, 3), np.uint8), config)
    with pytest.raises(ValueError, match=r"Height.*Nearest: 64\."):
        check_molded_size((32, 64, 3), "square")


def test_crop_mode_is_refused_for_inference():
    with pytest.raises(ValueError, match="for training"):
        mold_one(np.zeros((64, 64, 3), np.uint8), make_config(IMAGE_RESIZE_MODE="crop"))


# And back


def test_unmold_detections_golden():
    data = golden.part(MOLDING, "unmold_detections.a")
    shapes = data["in.original_image_shape"], data["in.image_shape"], data["in.window"]
    actual = unmold_detections(data["in.detections"], data["in.mrcnn_mask"], *shapes)
    for name, value in zip(("boxes", "class_ids", "scores", "full_masks"), actual, strict=True):
        assert value.dtype == data[f"out.{name}"].dtype
        golden.check(f"unmold_detections {name}", value, data[f"out.{name}"])

    nothing = np.zeros_like(data["in.detections"])
    expected = golden.part(MOLDING, "unmold_detections.none")
    boxes, class_ids, scores, masks = unmold_detections(nothing, data["in.mrcnn_mask"], *shapes)
    golden.check("unmold_detections none boxes", boxes, expected["out.boxes"])
    golden.check("unmold_detections none class_ids", class_ids, expected["out.class_ids"])
    golden.check("unmold_detections none scores", scores, expected["out.scores"])
    assert masks.shape == tuple(expected["out.full_masks_shape"])
    assert masks.dtype == bool


def test_unmold_detections_drops_boxes_without_area(rng):
    detections = np.array(
        [[0.1, 0.1, 0.5, 0.5, 1, 0.9], [0.2, 0.3, 0.19, 0.6, 2, 0.8], [0.4, 0.4, 0.9, 0.9, 3, 0.7], [0] * 6],
        np.float32,
    )
    masks = rng.random((4, 28, 28, 4)).astype(np.float32)
    boxes, class_ids, scores, pasted = unmold_detections(
        detections, masks, (128, 128, 3), (128, 128, 3), (0, 0, 128, 128)
    )
    np.testing.assert_array_equal(class_ids, [1, 3])
    np.testing.assert_allclose(scores, [0.9, 0.7])
    assert boxes.tolist() == [[13, 13, 64, 64], [51, 51, 115, 115]]
    assert pasted.shape == (128, 128, 2)


@pytest.mark.parametrize("mode", ["square", "pad64", "none"])
@pytest.mark.parametrize("shape", [(64, 128), (128, 64)])
def test_a_box_goes_into_the_molded_image_and_back(mode, shape):
    """Detections that fit a bright rectangle of the molded image come back as that of the original."""
    image = np.zeros((*shape, 3), np.uint8)
    image[20:50, 10:40] = 255
    molded, meta, window = mold_one(image, make_config(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=64, IMAGE_MAX_DIM=256))
    bright = np.argwhere(molded[:, :, 0] > 0)
    y1, x1, y2, x2 = *bright.min(axis=0), *(bright.max(axis=0) + 1)
    height, width = molded.shape[:2]
    normalized = np.array([y1, x1, y2 - 1, x2 - 1]) / np.array([height - 1, width - 1, height - 1, width - 1])
    detections = np.zeros((3, 6), np.float32)
    detections[0] = *normalized, 1, 0.9
    masks = np.ones((3, 28, 28, 2), np.float32)
    fields = ImageMeta.from_array(meta)
    boxes, _, _, pasted = unmold_detections(
        detections, masks, fields.original_image_shape, fields.image_shape, fields.window
    )
    assert fields.window == window
    assert np.abs(boxes - [[20, 10, 50, 40]]).max() <= 1
    assert pasted.sum() == np.prod(boxes[0, 2:] - boxes[0, :2])


def test_place_masks_in_each_form_is_the_same_mask(rng):
    detections = np.zeros((6, 6), np.float32)
    detections[:, :2], detections[:, 2:4] = np.sort(rng.random((2, 6, 2)), axis=0)
    detections[:, 4:] = 1, 0.9
    detections[2, 2] = detections[2, 0] - 0.3  # no area
    masks = rng.random((6, 28, 28)).astype(np.float32)
    masks[4] = 0.1  # none of its pixels belongs to it
    boxes, class_ids, scores, kept = place_boxes(detections, (90, 120, 3), (128, 128, 3), (16, 0, 112, 128))
    assert kept.tolist() == [0, 1, 3, 4, 5]
    assert len(boxes) == len(class_ids) == len(scores) == 5
    full = place_masks(masks[kept], boxes, (90, 120, 3))
    assert full.shape == (90, 120, 5)
    assert place_masks(masks[kept], boxes, (90, 120, 3), "rle") == encode_masks(full)
    polygons = place_masks(masks[kept], boxes, (90, 120, 3), "polygons")
    for n in range(5):
        image = np.zeros((90, 120), np.uint8)
        if polygons[n]:
            cv2.fillPoly(image, polygons[n], 1)
        np.testing.assert_array_equal(image.astype(bool), full[:, :, n])
    assert polygons[3] == []


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_compact_masks_make_nothing_of_the_images_size(form, rng):
    boxes = np.array([[9000, 9000, 9100, 9150], [0, 0, 40, 30]], np.int32)
    masks = np.stack([1 - np.hypot(*np.mgrid[-1:1:28j, -1:1:28j])] * 2)
    tracemalloc.start()
    found = place_masks(masks, boxes, (20000, 20000, 3), form)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 2
    assert peak < 2_000_000  # a full-size one takes 400


# Rectangles


@pytest.mark.parametrize(
    ("shape", "scale", "window"),
    [
        ((100, 200), 1.28, (0, 0, 128, 256)),  # the rectangle's own shape
        ((200, 100), 0.64, (0, 96, 128, 160)),  # its height stops it
        ((50, 400), 0.64, (48, 0, 80, 256)),  # its width does
        ((300, 300), 128 / 300, (0, 64, 128, 192)),
    ],
)
def test_images_are_fitted_into_a_rectangle(rng, shape, scale, window):
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    found, *told = resize_image(image, 800, None, 0, "square", size=(128, 256))
    assert found.shape == (128, 256, 3)
    assert told == [window, pytest.approx(scale), [(window[0], 128 - window[2]), (window[1], 256 - window[3]), (0, 0)],
                    None]  # fmt: skip
    top, left, bottom, right = window
    np.testing.assert_array_equal(found[top:bottom, left:right], resize(image, (bottom - top, right - left), np.uint8))
    assert not found[:top].any() and not found[:, right:].any()
    assert resize_mask(np.ones((*shape, 1), bool), told[1], told[2]).shape == (128, 256, 1)


def test_a_square_given_as_a_rectangle_is_the_square(rng):
    for shape in ((100, 200), (201, 99), (900, 700)):
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        for min_dim in (64, 800):
            square = resize_image(image, min_dim, 256, 0, "square")
            found = resize_image(image, min_dim, None, 0, "square", size=(256, 256))
            np.testing.assert_array_equal(found[0], square[0])
            assert found[1:] == square[1:]


def test_crops_of_a_rectangle(rng):
    image = rng.integers(0, 256, (100, 300, 3), dtype=np.uint8)
    found, window, scale, _, crop = resize_image(image, mode="crop", generator=rng, size=(64, 192))
    assert (window, scale) == ((0, 0, 64, 192), 1.0)
    np.testing.assert_array_equal(found, image[crop[0] :, crop[1] :][:64, :192])
    found, _, scale, _, crop = resize_image(image, mode="crop", size=(128, 64))  # too low: it is scaled up
    assert (found.shape, scale, crop) == ((128, 64, 3), 1.28, (0, 160, 128, 64))


def test_an_image_is_molded_into_a_rectangle(rng):
    config = type("Wide", (Config,), {"IMAGE_RECTANGLE": (128, 256), "NUM_CLASSES": 2})()
    molded, meta, window = mold_one(rng.integers(0, 256, (50, 120, 3), dtype=np.uint8), config)
    assert molded.shape == (128, 256, 3)
    assert window == tuple(ImageMeta.from_array(meta).window) == (10, 0, 117, 256)
    np.testing.assert_allclose(molded[:10], np.broadcast_to(-config.MEAN_PIXEL, (10, 256, 3)), rtol=1e-6)
