"""Augmentations: image and masks move together, chance comes from the generator, misfits are refused."""

import numpy as np
import pytest

from mrcnn.data.augmentation import (
    Affine,
    AugmentationError,
    Brightness,
    Compose,
    Contrast,
    Flip,
    Rotate90,
    Sometimes,
    as_augmentation,
    augment,
)


@pytest.fixture
def pair():
    """Smooth blobs: each channel of the image is the blob, each mask where it is over half."""
    y, x = np.mgrid[:50, :70]
    blobs = [np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 2 / 9**2) for cy, cx in ((20, 20), (35, 50), (15, 55))]
    image = np.stack([np.round(255 * b) for b in blobs], axis=-1).astype(np.uint8)
    return image, image >= 128


def follows(image, masks):
    """Share of pixels where the masks are where their blobs are."""
    return ((image >= 128) == masks).mean()


AUGMENTATIONS = {
    "flip": Flip(0.5, 0.5),
    "rotate90": Rotate90(),
    "affine": Affine(scale=(0.7, 1.4), rotate=(-45, 45)),
    "brightness": Brightness(0.2),
    "contrast": Contrast(0.3),
    "compose": Compose([Flip(), None, Rotate90(), Sometimes(0.5, Affine(rotate=10))]),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_same_seed_same_result_and_input_untouched(pair, name):
    image, masks = pair[0].copy(), pair[1].copy()
    augmentation = AUGMENTATIONS[name]
    outcomes = set()
    for seed in range(12):
        first = augment(augmentation, image, masks, np.random.default_rng(seed))
        again = augment(augmentation, image, masks, np.random.default_rng(seed))
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
        assert first[0].dtype == np.uint8
        assert first[1].dtype == bool
        outcomes.add(first[0].tobytes())
    assert len(outcomes) > 1
    np.testing.assert_array_equal(image, pair[0])
    np.testing.assert_array_equal(masks, pair[1])


@pytest.mark.parametrize("name", ["flip", "rotate90", "affine", "compose"])
def test_masks_follow_the_image(pair, name):
    for seed in range(12):
        image, masks = augment(AUGMENTATIONS[name], *pair, np.random.default_rng(seed))
        share = follows(image, masks)
        assert share > 0.99 if name in ("affine", "compose") else share == 1


def test_flip_directions(pair):
    image, masks = pair
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(Flip(1, 0)(image, masks, rng)[0], image[:, ::-1])
    np.testing.assert_array_equal(Flip(0, 1)(image, masks, rng)[1], masks[::-1])
    np.testing.assert_array_equal(Flip(1, 1)(image, masks, rng)[0], image[::-1, ::-1])
    np.testing.assert_array_equal(Flip(0, 0)(image, masks, rng)[0], image)
    flipped = sum((Flip()(image, masks, rng)[0] != image).any() for _ in range(400))
    assert 150 < flipped < 250


def test_rotate90_takes_all_turns(pair):
    shapes = {Rotate90()(*pair, np.random.default_rng(seed))[0].shape[:2] for seed in range(20)}
    assert shapes == {(50, 70), (70, 50)}


def test_affine_scales_and_rotates_about_the_center():
    masks = np.zeros((60, 60, 1), bool)
    masks[10:20, 25:35] = True
    image = np.repeat(masks.astype(np.uint8) * 255, 3, axis=-1)
    _, doubled = Affine(scale=2)(image, masks, np.random.default_rng(0))
    assert doubled.sum() == pytest.approx(400 * (20 - 10) / 20, rel=0.15)  # the upper half leaves the frame
    _, turned = Affine(rotate=90)(image, masks, np.random.default_rng(0))
    np.testing.assert_array_equal(turned[..., 0], np.rot90(masks[..., 0]))
    same = Affine()(image, masks, np.random.default_rng(0))
    np.testing.assert_array_equal(same[0], image)


def test_many_masks_and_channels_and_other_types(pair):
    masks = np.concatenate([pair[1]] * 4, axis=-1)
    image = np.concatenate([pair[0]] * 2, axis=-1)[..., :5].astype(np.uint16) * 200
    new_image, new_masks = augment(Affine(rotate=(20, 30)), image, masks, np.random.default_rng(0))
    assert new_image.shape == image.shape
    assert new_image.dtype == np.uint16
    np.testing.assert_array_equal(new_masks[..., :3], new_masks[..., 9:])
    np.testing.assert_array_equal(new_image[..., :2], new_image[..., 3:])


def test_without_instances(pair):
    none = np.zeros((50, 70, 0), bool)
    for augmentation in AUGMENTATIONS.values():
        image, masks = augment(augmentation, pair[0], none, np.random.default_rng(1))
        assert masks.shape == (*image.shape[:2], 0)


def test_brightness_and_contrast():
    masks = np.zeros((4, 4, 1), bool)
    flat = np.full((4, 4, 3), 250, np.uint8)
    values = [int(Brightness(0.2)(flat, masks, np.random.default_rng(s))[0][0, 0, 0]) for s in range(200)]
    assert min(values) >= 250 - 51
    assert min(values) < 210
    assert max(values) == 255  # cut off, not wrapped around
    half = np.zeros((4, 4, 1), np.uint8) + np.uint8(100)
    half[:2] = 200
    new = Contrast(1.0)(half, masks, np.random.default_rng(0))[0]
    assert abs(float(new.mean()) - 150) <= 1
    assert len(np.unique(new)) <= 2
    floats = Brightness(0.1)(np.full((2, 2, 1), 300, np.float32), masks, np.random.default_rng(0))[0]
    assert floats.dtype == np.float32
    assert abs(floats[0, 0, 0] - 300) <= 25.5
    np.testing.assert_array_equal(Brightness(0)(flat, masks, np.random.default_rng(0))[0], flat)


def test_sometimes(pair):
    rng = np.random.default_rng(0)
    changed = sum((Sometimes(0.25, Flip(1))(*pair, rng)[0] != pair[0]).any() for _ in range(400))
    assert 60 < changed < 140
    assert Sometimes(1, None)(*pair, rng)[0] is pair[0]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda i, m: i, "return \\(image, masks\\). Received: ndarray"),
        (lambda i, m: (i[..., :1], m), "image \\[H, W, 3\\]. Received shape: \\(50, 70, 1\\)"),
        (lambda i, m: (i[:40], m), "masks of shape \\(40, 70, 3\\).*Received shape: \\(50, 70, 3\\)"),
        (lambda i, m: (i, m[..., :2]), "3 instances. Received shape: \\(50, 70, 2\\)"),
        (lambda i, m: (i / 255, m), "keep the image's type uint8. Received: float64. .*Normalization"),
        (lambda i, m: (i[:0], m[:0]), "Received shape: \\(0, 70, 3\\)"),
    ],
)
def test_misfits_are_refused(pair, result, message):
    def faulty(image, masks, rng):
        return result(image, masks)

    with pytest.raises(AugmentationError, match=f"Augmentation faulty must .*{message}"):
        augment(faulty, *pair, np.random.default_rng(0))


def test_masks_of_numbers_become_bool(pair):
    _, masks = augment(lambda i, m, r: (i, m.astype(np.uint8)), *pair, np.random.default_rng(0))
    assert masks.dtype == bool


@pytest.mark.parametrize(
    "make",
    [
        lambda: Flip(1.5),
        lambda: Sometimes(-0.1, Flip()),
        lambda: Brightness(2),
        lambda: Affine(scale=0),
        lambda: Affine(rotate=(10, -10)),
    ],
)
def test_arguments_that_cannot_work(make):
    with pytest.raises(ValueError, match="Received"):
        make()


def test_as_augmentation():
    assert as_augmentation(None) is None
    flip = Flip()
    assert as_augmentation(flip) is flip
    with pytest.raises(TypeError, match=r"imgaug augmenter\. Received: 'flip'"):
        as_augmentation("flip")
    with pytest.raises(TypeError, match=r"Received: <class .*Flip'>"):  # the class, where an object is meant
        as_augmentation(Flip)
