"""Augmenters of other libraries: masks follow what moves pixels, and what they cannot follow is refused by name.

The classes here stand in for imgaug's and albumentations': the same methods, arguments and class names.
"""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest

from mrcnn.data.augmentation import AugmentationError, Compose, Flip, as_augmentation, augment
from mrcnn.data.augmentation_adapters import ImgaugAugmentation, KeywordAugmentation
from mrcnn.data.samples import load_image_gt
from tests.shapes import Shapes, ShapesConfig


@pytest.fixture
def pair():
    """Three blobs, one in each channel of the image, and their masks: brighter than half."""
    y, x = np.mgrid[:50, :70]
    blobs = [np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 2 / 9**2) for cy, cx in ((20, 20), (35, 50), (15, 55))]
    image = np.stack([np.round(255 * b) for b in blobs], axis=-1).astype(np.uint8)
    return image, image >= 128


def follows(image, masks):
    return ((image >= 128) == masks).all()


class Augmenter:
    """As imgaug's: a random state of its own, and hooks that say which augmenters touch an array."""

    def __init__(self, *children, p=1.0):
        self.children, self.p, self.state = list(children), p, np.random.default_rng(0)

    def to_deterministic(self):
        copy = type(self)(*[child.to_deterministic() for child in self.children], p=self.p)
        copy.state = int(self.state.integers(2**31))
        return copy

    def seed_(self, seed, deterministic_too=False):
        assert deterministic_too
        self.state = seed
        for index, child in enumerate(self.children):
            child.seed_(10 * seed + index, deterministic_too=True)

    def augment_image(self, image, hooks=None, parents=()):
        assert isinstance(self.state, int)  # to_deterministic was called
        active = np.random.default_rng(self.state).random() < self.p
        if hooks is not None:
            image = hooks.preprocess(image, self, parents)
            active = hooks.is_activated([image], self, parents, True) and active
        if active:
            image = self.change(image)
            if hooks is None or hooks.is_propagating([image], self, parents, True):
                for child in self.children:
                    image = child.augment_image(image, hooks=hooks, parents=[*parents, self])
        return image if hooks is None else hooks.postprocess(image, self, parents)

    def change(self, image):
        return image


class Sequential(Augmenter):
    pass


class Sometimes(Augmenter):
    pass


class WithChannels(Augmenter):
    pass


class Fliplr(Augmenter):
    def change(self, image):
        return image[:, ::-1]


class Affine(Augmenter):
    """A shift by ten pixels; white comes in from outside, as with cval=255."""

    def change(self, image):
        image = np.roll(image, 10, axis=1)
        image[:, :10] = 255
        return image


class Rot90(Augmenter):
    def change(self, image):
        return np.rot90(image)


class Invert(Augmenter):
    def change(self, image):
        return 255 - image


class CropAndPad(Augmenter):
    def change(self, image):
        return image[5:-5, 5:-5]


class Rotate(Affine):
    """Derived, as imgaug derives its own."""

    __module__ = Affine.__module__ = "imgaug.augmenters.geometric"


class Jitter(Rotate):
    """A user's own, derived from one of imgaug's."""


class Reseeded(Augmenter):
    """Releases before 0.4 have no seed_."""

    seed_ = property()  # which cannot be read: hasattr says no

    def reseed(self, seed, deterministic_too=False):
        self.state = seed

    def change(self, image):
        return image[:, ::-1]


Reseeded.__name__ = "Fliplr"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fliplr(p=0.5),
        lambda: Reseeded(p=0.5),
        lambda: Sequential(Sometimes(Fliplr(), p=0.5), Sequential(Fliplr(p=0.3))),
        lambda: Sequential(Fliplr(), CropAndPad(), p=0.5),
    ],
    ids=["one", "older", "nested", "another size"],
)
def test_masks_follow_imgaug_geometry(pair, make):
    augmentation = as_augmentation(make())
    changed = 0
    for seed in range(40):
        image, masks = augment(augmentation, *pair, np.random.default_rng(seed))
        again = augment(augmentation, *pair, np.random.default_rng(seed))
        np.testing.assert_array_equal(image, again[0])
        np.testing.assert_array_equal(masks, again[1])
        assert masks.dtype == bool
        assert follows(image, masks)
        changed += image.shape != pair[0].shape or (image != pair[0]).any()
    assert 10 < changed < 32
    image, masks = augment(augmentation, pair[0], pair[1][..., :0], np.random.default_rng(0))
    assert masks.shape == (*image.shape[:2], 0)


def test_masks_do_not_follow_imgaug_colors(pair):
    image, masks = augment(as_augmentation(Sequential(Invert(), Fliplr())), *pair, np.random.default_rng(0))
    np.testing.assert_array_equal(image, 255 - pair[0][:, ::-1])
    np.testing.assert_array_equal(masks, pair[1][:, ::-1])


@pytest.mark.parametrize("kind", [Affine, Rotate, Jitter], ids=lambda kind: kind.__name__)
def test_white_from_outside_is_no_object(pair, kind):
    image, masks = augment(as_augmentation(kind()), *pair, np.random.default_rng(0))
    assert (image[:, :10] == 255).all()
    assert not masks[:, :10].any()
    np.testing.assert_array_equal(masks[:, 10:], pair[1][:, :-10])


def test_more_masks_than_opencv_has_channels(pair):
    many = np.tile(pair[1], 200)
    assert many.shape[2] == 600
    _, masks = augment(as_augmentation(Fliplr()), pair[0], many, np.random.default_rng(0))
    np.testing.assert_array_equal(masks, many[:, ::-1])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Rot90(), "Rot90"),
        (lambda: Sequential(Fliplr(), Sometimes(Rot90())), "Rot90"),
        (lambda: Sequential(WithChannels(Sequential(Fliplr()))), "Fliplr inside WithChannels"),
        (lambda: type("PerspectiveTransform", (Augmenter,), {})(), "PerspectiveTransform"),
        (lambda: type("Crop", (Fliplr,), {})(), "Crop"),  # not imgaug's Crop, which is derived from its CropAndPad
        (lambda: type("Own", (type("Resize", (Augmenter,), {"__module__": "imgaug"}),), {})(), "Own"),
    ],
)
def test_what_masks_cannot_follow_is_refused_by_name(make, named):
    with pytest.raises(AugmentationError, match=rf"^Masks cannot follow {named}: .*They follow Affine, .*Rotate90"):
        as_augmentation(make())


@pytest.mark.parametrize("holder", ["list", "tuple", "dict", "attribute", "itself a list"])
def test_parts_are_found_however_they_are_kept(holder):
    whole, part = Sequential(), Rot90()
    if holder == "itself a list":
        whole.then = type("Sequential", (Sequential, list), {})()
        whole.then.append(part)
    else:
        whole.kept = {"list": [part], "tuple": (part,), "dict": {"a": part}, "attribute": part}[holder]
    part.around = whole  # a circle must not hang
    with pytest.raises(AugmentationError, match="cannot follow Rot90"):
        as_augmentation(whole)


def test_without_hooks_masks_go_through_all(pair):
    class Own:
        def to_deterministic(self):
            return self

        def augment_image(self, image):
            return (200 - 0.5 * image[:, ::-1]).astype(np.uint8)

    image, masks = augment(as_augmentation(Own()), *pair, np.random.default_rng(0))
    assert image.max() == 200
    np.testing.assert_array_equal(masks, pair[1][:, ::-1])


def test_an_augmenter_without_augment_image_is_refused():
    class Half:
        def to_deterministic(self):
            return self

    with pytest.raises(TypeError, match=r"must have augment_image\(image, hooks=\.\.\.\).*Half object"):
        as_augmentation(Half())


def test_imgaug_sees_the_resized_image_and_others_the_loaded_one():
    config, dataset = ShapesConfig(), Shapes(1, size=100)
    seen = []

    class Look(Fliplr):
        def change(self, image):
            seen.append(image.shape)
            return image[:, ::-1]

    Look.__name__ = "Fliplr"

    def look(image, masks, rng):
        seen.append(image.shape)
        return image, masks

    plain = load_image_gt(dataset, config, 0, use_mini_mask=False)
    flipped = load_image_gt(dataset, config, 0, Look(), use_mini_mask=False)
    load_image_gt(dataset, config, 0, look)
    count = len(plain[2])
    assert seen == [(128, 128, 3), (128, 128, count + 2), (100, 100, 3)]
    np.testing.assert_array_equal(flipped[0], plain[0][:, ::-1])
    np.testing.assert_array_equal(flipped[4], plain[4][:, ::-1])
    with pytest.raises(AugmentationError, match="Sequential must keep the size.*Received: 118 x 118 for 128 x 128"):
        load_image_gt(dataset, config, 0, Sequential(CropAndPad()))


class Transform:
    """As albumentations': one random state that can be set, arguments by name."""

    def __init__(self, change):
        self.change, self.random = change, random.Random(0)

    def set_random_seed(self, seed):
        self.random = random.Random(seed)

    def __call__(self, *args, force_apply=False, **data):
        assert not args
        return self.change(self.random.random() < 0.5, **data)


def flip(chance, image, masks):
    assert isinstance(masks, list)
    assert all(mask.dtype == np.uint8 and mask.shape == image.shape[:2] for mask in masks)
    step = slice(None, None, -1 if chance else 1)
    result = {"image": image[:, step].copy(), "masks": [mask[:, step] for mask in masks], "replay": None}
    image[:] = 0  # it was given a copy
    return result


def test_a_transform_by_names(pair):
    augmentation = as_augmentation(Transform(flip))
    assert isinstance(augmentation, KeywordAugmentation)
    before = pair[0].copy()
    flipped = 0
    for seed in range(40):
        image, masks = augment(augmentation, *pair, np.random.default_rng(seed))
        again, _ = augment(augmentation, *pair, np.random.default_rng(seed))
        np.testing.assert_array_equal(image, again)
        assert follows(image, masks)
        assert masks.dtype == bool
        flipped += (image != pair[0]).any()
    assert 10 < flipped < 30
    np.testing.assert_array_equal(pair[0], before)
    _, masks = augment(augmentation, pair[0], pair[1][..., :0], np.random.default_rng(0))
    assert masks.shape == (50, 70, 0)


def test_transforms_mix_with_our_own(pair):
    both = Compose([Flip(1.0), Transform(lambda chance, **data: flip(True, **data))])
    image, masks = augment(both, *pair, np.random.default_rng(0))
    np.testing.assert_array_equal(image, pair[0])
    np.testing.assert_array_equal(masks, pair[1])


def test_which_form_a_callable_is_of():
    keyword = [
        lambda image, masks: {},
        lambda image, masks, p=0.5: {},
        lambda *args, **data: {},
        lambda *, image, masks: {},
        lambda **data: {},
    ]
    ours = [
        lambda image, masks, rng: (image, masks),
        lambda image, masks, rng=None: (image, masks),
        lambda i, m, r: (i, m),
        lambda *args: args[:2],
        lambda image, masks, rng, **options: (image, masks),
        min,  # tells no signature
    ]
    assert all(isinstance(as_augmentation(function), KeywordAugmentation) for function in keyword)
    assert all(as_augmentation(function) is function for function in ours)
    assert isinstance(as_augmentation(Fliplr()), ImgaugAugmentation)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda image, masks: (image, masks), "must return a dict of these names. Received: tuple"),
        (lambda image, masks: {"image": image, "mask": masks}, "must return a dict.*Received: keys image, mask"),
        (lambda image, masks: {"image": image, "masks": masks[:2]}, r"must return 3 masks.*2 of \(50, 70\)"),
        (
            lambda image, masks: {"image": image, "masks": [masks[0], masks[1][:9], masks[2]]},
            r"one size. Received: 3 of \(9, 70\) and \(50, 70\)",
        ),
        (lambda image, masks: {"image": image[:9], "masks": masks}, r"masks of shape \(9, 70, 3\)"),
        (lambda image, masks: {"image": image / 255, "masks": masks}, "keep the image's type uint8.*Normalization"),
    ],
)
def test_misfits_of_a_transform_are_refused(pair, result, message):
    def faulty(image, masks):
        return result(image, masks)

    with pytest.raises(AugmentationError, match=f"Augmentation faulty .*{message}"):
        augment(as_augmentation(faulty), *pair, np.random.default_rng(0))


def test_a_transform_that_wants_boxes_is_refused():
    transform = Transform(flip)
    transform.processors = {"bboxes": object()}
    with pytest.raises(AugmentationError, match="this Transform wants bboxes. Make it without bbox_params"):
        as_augmentation(transform)


@pytest.mark.parametrize("make", [lambda: Sequential(Fliplr(p=0.5)), lambda: flip_by_words])
def test_they_go_into_pickles_alone_and_inside_of_others(pair, make):
    augmentation = Compose([make(), Flip()])
    again = pickle.loads(pickle.dumps(augmentation))
    for seed in range(5):
        found, wanted = (augment(a, *pair, np.random.default_rng(seed)) for a in (again, augmentation))
        np.testing.assert_array_equal(found[0], wanted[0])
        assert follows(*found)


def flip_by_words(image, masks):
    return {"image": image[:, ::-1], "masks": [mask[:, ::-1] for mask in masks]}
