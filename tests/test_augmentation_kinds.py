"""Each augmentation alone: where pixels and masks go, what colors become, what is kept and what is left out."""

import cv2
import numpy as np
import pytest

from mrcnn.data.augmentation import (
    Affine,
    Brightness,
    Color,
    Compose,
    Contrast,
    Flip,
    RandomCrop,
    Rotate,
    Rotate90,
    ScaleJitter,
    augment,
)
from mrcnn.data.mask_boxes import extract_bboxes
from mrcnn.data.resizing import resize_mask
from tests.augmented import MOST, follows, painted

# Those that move pixels, and whether they move them whole.
MOVING = {
    "flip": (Flip(0.5, 0.5), True),
    "rotate90": (Rotate90(), True),
    "crop": (RandomCrop((0.3, 1.0)), True),
    "crop of pixels": (RandomCrop(size=(40, 200), keep_object=False), True),
    "affine": (Affine(scale=(0.7, 1.4), rotate=(-45, 45)), False),
    "rotate": (Rotate(), False),
    "rotate and grow": (Rotate((-90, 200), grow=True), False),
    "jitter": (ScaleJitter(), False),
    "jitter to a size": (ScaleJitter((0.5, 1.5), size=(64, 128)), False),
    "all": (Compose([Flip(), ScaleJitter((0.8, 1.25)), RandomCrop((0.7, 1)), Rotate90()]), False),
}
COLORS = {"color": Color(0.3, 0.3, 0.5, 0.1), "brightness": Brightness(), "contrast": Contrast()}


def frozen(*arrays):
    for array in arrays:
        array.flags.writeable = False  # what writes to its input fails
    return arrays


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (1, np.uint16), (4, np.float32), (5, np.uint8)])
def test_masks_go_where_the_image_goes(name, channels, dtype):
    augmentation, exact = MOVING[name]
    seen = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        size = (40, 90) if seed % 2 else (90, 50)
        image, masks = frozen(*painted(rng, *size, channels=channels, dtype=dtype))
        new_image, new_masks = augment(augmentation, image, masks, np.random.default_rng(seed))
        assert new_image.dtype == dtype and new_masks.dtype == bool
        assert follows(new_image, new_masks, exact)
        again = augment(augmentation, image, masks, np.random.default_rng(seed))
        np.testing.assert_array_equal(again[0], new_image)
        np.testing.assert_array_equal(again[1], new_masks)
        seen.add(new_image.tobytes())
    assert len(seen) > 5  # chance has a say


def test_follows_can_fail():
    image, masks = (np.pad(array, [(9, 9), (9, 9), (0, 0)]) for array in painted(np.random.default_rng(0)))
    assert follows(image, masks, exact=True)
    assert follows(image[:, 1:], masks[:, :-1], exact=False) and not follows(image[:, 1:], masks[:, :-1], exact=True)
    assert not follows(image[:, 2:], masks[:, :-2], exact=False)
    assert not follows(image, masks[..., ::-1], exact=False)


@pytest.mark.parametrize("name", [*MOVING, *COLORS])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (20, 30)])
def test_no_object_and_objects_of_one_pixel(name, shape):
    augmentation = COLORS.get(name) or MOVING[name][0]
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    one = np.zeros((*shape, 2), bool)
    one[-1, -1, 0] = one[0, 0, 1] = True
    for seed in range(6):
        for masks in (np.zeros((*shape, 0), bool), one):
            new_image, new_masks = augment(augmentation, *frozen(image, masks), np.random.default_rng(seed))
            assert new_masks.shape == (*new_image.shape[:2], masks.shape[2])
            assert extract_bboxes(new_masks).shape == (masks.shape[2], 4)


def test_a_pixel_is_not_lost_where_pixels_are_moved_whole():
    image, masks = np.zeros((20, 30, 1), np.uint8), np.zeros((20, 30, 1), bool)
    image[7, 19], masks[7, 19] = 255, True
    for seed in range(20):
        for augmentation in (Flip(0.5, 0.5), Rotate90(), RandomCrop(0.2)):
            new_image, new_masks = augment(augmentation, image, masks, np.random.default_rng(seed))
            np.testing.assert_array_equal(new_masks, new_image == 255)
            assert new_masks.sum() == 1


# Turning.


@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (5, np.uint16), (1, np.float32), (2, np.int64)])
def test_quarter_turns(channels, dtype):
    image, masks = painted(np.random.default_rng(0), 30, 50)
    image = np.arange(30 * 50 * channels).reshape(30, 50, channels).astype(dtype)
    found = set()
    for seed in range(20):
        new_image, new_masks = Rotate90()(image, masks, np.random.default_rng(seed))
        (turns,) = (t for t in range(4) if np.array_equal(new_image, np.rot90(image, t)))
        np.testing.assert_array_equal(new_masks, np.rot90(masks, turns))
        found.add(turns)
    assert found == {0, 1, 2, 3}


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3])
def test_rotate_by_right_angles_is_exact(turns):
    image, masks = painted(np.random.default_rng(1))
    found = Rotate(90 * turns, grow=True)(image, masks, np.random.default_rng(0))
    np.testing.assert_array_equal(found[0], np.rot90(image, turns))
    np.testing.assert_array_equal(found[1], np.rot90(masks, turns))


def test_rotate_and_grow_loses_no_corner():
    image, masks = np.zeros((40, 70, 1), np.uint8), np.zeros((40, 70, 4), bool)
    for n, (y, x) in enumerate(((slice(6), slice(6)), (slice(6), slice(-6, None)), (slice(-6, None), slice(6)),
                                (slice(-6, None), slice(-6, None)))):  # fmt: skip
        masks[y, x, n] = True
    for seed in range(10):
        new_image, new_masks = Rotate((0, 360), grow=True)(image, masks, np.random.default_rng(seed))
        assert np.abs(new_masks.sum(axis=(0, 1)) - 36).max() <= 7
        assert new_image.shape[0] * new_image.shape[1] >= 40 * 70
    shapes = {Rotate(30, grow=grow)(image, masks, np.random.default_rng(0))[0].shape[:2] for grow in (True, False)}
    # 40 cos 30 + 70 sin 30 = 69.6; 40 sin 30 + 70 cos 30 = 80.6
    assert shapes == {(70, 81), (40, 70)}
    assert Rotate(45)(image, masks, np.random.default_rng(0))[1].sum() < 0.7 * masks.sum()


# Scale jitter.


@pytest.mark.parametrize("factor", [0.5, 1, 2, 1.37])
def test_a_frame_that_just_fits_holds_the_scaled_image(factor):
    image, masks = painted(np.random.default_rng(0), 60, 90)
    size = (round(60 * factor), round(90 * factor))
    new_image, new_masks = ScaleJitter(1, size)(image, masks, np.random.default_rng(0))
    nothing = [(0, 0)] * 3
    np.testing.assert_array_equal(new_masks, resize_mask(masks, size[0] / 60, nothing, grid="image"))
    if factor == 1:
        np.testing.assert_array_equal(new_image, image)
    if factor == 0.5:
        np.testing.assert_allclose(new_image, image.reshape(30, 2, 45, 2, 3).mean(axis=(1, 3)), atol=1)
    if factor > 1:
        wanted = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        assert np.abs(new_image.astype(int) - wanted).max() <= 8  # OpenCV's maps have 32 steps a pixel


def test_jitter_crops_what_is_larger_and_places_what_is_smaller():
    image, masks = np.full((50, 80, 3), 200, np.uint8), np.ones((50, 80, 1), bool)
    shares, corners, rng = [], set(), np.random.default_rng(0)
    for _ in range(400):
        new_image, new_masks = ScaleJitter()(image, masks, rng)
        assert new_image.shape == image.shape
        y1, x1, y2, x2 = (int(v) for v in extract_bboxes(new_masks)[0])
        outside = new_image.copy()
        outside[y1:y2, x1:x2] = 0
        assert not outside.any() and (new_image[y1:y2, x1:x2] == 200).all() and new_masks[y1:y2, x1:x2].all()
        assert abs((x2 - x1) - (y2 - y1) * 1.6) <= 1.3
        shares.append((y2 - y1) / 50)
        corners |= {(y1, x1)} if y2 - y1 < 25 else set()
    assert min(shares) < 0.13 and max(shares) == 1
    assert 0.38 < np.mean(np.array(shares) < 1) < 0.56  # 0.1 to 1, of 0.1 to 2
    assert len(corners) > 50 and max(y for y, _ in corners) > 30 and max(x for _, x in corners) > 45
    # Another shape of frame: the image fits into it at 1, so it is half as high as the frame.
    new_image, new_masks = ScaleJitter(1, 160)(image, masks, np.random.default_rng(0))
    assert new_image.shape == (160, 160, 3) and new_masks.sum() == 100 * 160


def test_jitter_sees_all_parts():
    image, masks = np.zeros((40, 40, 1), np.uint8), np.zeros((40, 40, 0), bool)
    image[:20, :20], image[:20, 20:], image[20:, :20], image[20:, 20:] = 50, 100, 150, 200
    means = [ScaleJitter(2.0)(image, masks, np.random.default_rng(seed))[0].mean() for seed in range(60)]
    assert min(means) < 70 and max(means) > 180


# Crops.


def test_crop_keeps_an_object():
    image, masks = np.zeros((60, 100, 1), np.uint8), np.zeros((60, 100, 3), bool)
    masks[2:8, 90:98, 0] = True  # small
    masks[::3, ::3, 2] = True  # of the whole image, with gaps; object 1 has no pixel
    counts = np.zeros(3, int)
    for seed in range(200):
        found = RandomCrop((0.15, 0.4))(image, masks, np.random.default_rng(seed))[1]
        assert found.any() and found.shape[0] <= 24 and found.shape[1] <= 40
        counts += found.any(axis=(0, 1))
        if found[..., 0].any() and found[..., 0].sum() != 48:
            counts[1] += 1  # a part only, by chance
    assert 80 < counts[0] < 140 and counts[1] < 20
    small = masks[..., :1]
    kept = [RandomCrop(0.5)(image, small, np.random.default_rng(seed))[1].sum() for seed in range(50)]
    assert set(kept) == {48}
    lost = [RandomCrop(0.5, keep_object=False)(image, small, np.random.default_rng(s))[1].any() for s in range(50)]
    assert not all(lost)
    thin = np.zeros((60, 100, 1), bool)
    thin[np.arange(60), np.arange(60)] = True  # its box fits into no crop, and most crops within its box miss it
    assert all(RandomCrop(0.1)(image, thin, np.random.default_rng(seed))[1].any() for seed in range(50))


def test_crops_of_a_size_and_of_a_share():
    image, masks = np.zeros((60, 100, 1), np.uint8), np.zeros((60, 100, 1), bool)
    assert RandomCrop(size=32)(image, masks, np.random.default_rng(0))[0].shape == (32, 32, 1)
    assert RandomCrop(size=(80, 50))(image, masks, np.random.default_rng(0))[0].shape == (60, 50, 1)
    assert RandomCrop(1.0)(image, masks, np.random.default_rng(0))[0].shape == (60, 100, 1)
    shapes = {RandomCrop((0.5, 1))(image, masks, np.random.default_rng(s))[0].shape[:2] for s in range(100)}
    assert len(shapes) > 60 and min(h for h, _ in shapes) >= 30 and min(w for _, w in shapes) >= 50
    starts = np.arange(100)[None, :, None].repeat(60, axis=0).astype(np.uint8)
    firsts = {int(RandomCrop(size=(60, 99))(starts, masks, np.random.default_rng(s))[0][0, 0, 0]) for s in range(30)}
    assert firsts == {0, 1}


# Colors.


def spread(rng, dtype, channels):
    return (rng.uniform(0.3, 0.7, (20, 30, channels)) * MOST[dtype]).astype(dtype)


@pytest.mark.parametrize("dtype", MOST)
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_colors_leave_masks_alone_and_are_linear(dtype, channels):
    image, masks = frozen(spread(np.random.default_rng(0), dtype, channels), np.ones((20, 30, 1), bool))
    unit = MOST[dtype] if dtype is not np.float32 else 255.0
    whole = dtype is not np.float32
    changed = 0
    for seed in range(10):
        for augmentation in COLORS.values():
            new_image, new_masks = augment(augmentation, image, masks, np.random.default_rng(seed))
            assert new_masks is masks and new_image.dtype == dtype
            changed += (new_image != image).any()
        shifted = Brightness(0.1)(image, masks, np.random.default_rng(seed))[0].astype(float) - image
        assert np.ptp(shifted) <= (1 if whole else 1e-4) and np.abs(shifted).max() <= 0.1 * unit + 1
        stretched = Contrast(0.2)(image, masks, np.random.default_rng(seed))[0].astype(float)
        assert abs(stretched.mean() - image.mean()) < 0.01 * MOST[dtype]
        assert 0.79 < stretched.std() / image.std() < 1.21
    assert changed > 25  # of 30: a small change may round to none
    same = Color(0, 0, 0, 0)(image, masks, np.random.default_rng(0))[0]
    np.testing.assert_array_equal(same, image)


def luminance(image):
    return image.astype(float) @ (0.299, 0.587, 0.114)


def test_hue_and_saturation_keep_luminance_and_gray():
    rng = np.random.default_rng(0)
    masks = np.zeros((20, 30, 0), bool)
    image = spread(rng, np.uint8, 3)
    gray = np.repeat(image[..., :1], 3, axis=2)
    change = Color(0, 0, 0.5, 0.5)
    seen = set()
    for seed in range(30):
        colored = change(image, masks, np.random.default_rng(seed))[0]
        inside = ((colored > 0) & (colored < 255)).all(axis=2)  # what was not cut off
        np.testing.assert_allclose(luminance(colored)[inside], luminance(image)[inside], atol=1)
        np.testing.assert_allclose(change(gray, masks, np.random.default_rng(seed))[0], gray, atol=1)
        seen.add(tuple(np.argsort(colored.mean(axis=(0, 1)))))
    assert len(seen) > 3  # all colors turn into each other
    differences = np.ptp(image.astype(float), axis=2).mean()
    stretched = [np.ptp(Color(0, 0, 0.5, 0)(image, masks, np.random.default_rng(s))[0].astype(float), axis=2).mean()
                 for s in range(40)]  # fmt: skip
    assert min(stretched) < 0.6 * differences and max(stretched) > 1.35 * differences
    # Of other than three channels there is neither: what is left is brightness and contrast, the same of all.
    four = np.concatenate([image, image[..., :1]], axis=2)
    np.testing.assert_array_equal(change(four, masks, np.random.default_rng(0))[0], four)


def test_colors_are_cut_off_and_floats_are_not():
    masks = np.zeros((4, 4, 0), bool)
    values = [Color(1.0, 0, 0, 0)(np.full((4, 4, 3), 250, np.uint8), masks, np.random.default_rng(s))[0].max()
              for s in range(30)]  # fmt: skip
    assert max(values) == 255 and min(values) < 100
    floats = [Color(1.0, 0, 0, 0)(np.full((4, 4, 3), 250, np.float32), masks, np.random.default_rng(s))[0].max()
              for s in range(30)]  # fmt: skip
    assert max(floats) > 300


def test_types_that_opencv_does_not_have():
    image = np.random.default_rng(0).integers(0, 1000, (20, 30, 2)).astype(np.int32)
    masks = np.zeros((20, 30, 1), bool)
    for augmentation, _ in MOVING.values():
        new_image, _ = augment(augmentation, image, masks, np.random.default_rng(3))
        assert new_image.dtype == np.int32 and new_image.max() < 1001
    half = image.astype(np.float16)
    assert augment(Color(), half, masks, np.random.default_rng(0))[0].dtype == np.float16


@pytest.mark.parametrize(
    "make",
    [
        lambda: ScaleJitter(0),
        lambda: ScaleJitter((2, 1)),
        lambda: ScaleJitter(size=0),
        lambda: ScaleJitter(size=(1, 2, 3)),
        lambda: ScaleJitter(size=(64.5, 64)),
        lambda: RandomCrop((0.5, 1.5)),
        lambda: RandomCrop(0),
        lambda: Rotate((0, float("inf"))),
        lambda: Rotate("far"),
        lambda: Color(saturation=2),
        lambda: Color(hue=0.7),
        lambda: Color(hue=-0.1),
    ],
)
def test_arguments_that_cannot_work(make):
    with pytest.raises(ValueError, match="Received"):
        make()


def test_time_grows_with_the_objects_at_most():
    import time

    def seconds(count):
        image, masks = np.zeros((256, 256, 3), np.uint8), np.zeros((count, 256, 256), bool)
        for n in range(count):
            masks[n, n : n + 40, n : n + 30] = True
        masks = np.moveaxis(masks, 0, -1)
        best = []
        for name in ("affine", "jitter", "all"):
            times = []
            for seed in range(4):
                start = time.process_time()
                augment(MOVING[name][0], image, masks, np.random.default_rng(seed))
                times.append(time.process_time() - start)
            best.append(min(times[1:]))
        return sum(best)

    assert seconds(160) < 3 * 16 * seconds(10)
