"""Copy-paste: every pixel of what comes out is told by the images that went in."""

import numpy as np
import pytest

from mrcnn.data.augmentation import AugmentationError, Compose, CopyPaste, Flip, Sometimes, recipe
from mrcnn.data.augmentation import augment_labeled as apply
from mrcnn.data.batches import BatchError, BatchLoader
from mrcnn.data.dataset import DatasetError
from mrcnn.data.samples import load_image_gt
from tests.augmented import painted
from tests.test_batches import ArrayDataset, config_of, same, shapes


def coded(rng, first, height=60, width=90, count=5):
    """An image of one channel in which object n has the value first + n, on a background of first - 1; masks; class ids
    that are these values."""
    _, masks = painted(rng, height, width, count)
    image = np.full((height, width, 1), first - 1, np.uint8)
    for n in range(count):
        image[masks[..., n]] = first + n
    for array in (image, masks):
        array.flags.writeable = False
    return image, masks, np.arange(first, first + count, dtype=np.int32)


def paste(mine, other, rng, **options):
    return apply(CopyPaste(1.0, **options), *mine, rng, lambda rng: other)


@pytest.mark.parametrize("size", [(60, 90), (30, 40), (100, 70), (61, 200)])
def test_masks_are_where_their_objects_are_seen(size):
    pasted, covered, places = 0, 0, set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        mine, other = coded(rng, 50), coded(rng, 100, *size)
        image, masks, ids = paste(mine, other, rng)
        assert image.shape == mine[0].shape and masks.shape[2] == len(ids) == len(set(ids.tolist()))
        for n, value in enumerate(ids):
            np.testing.assert_array_equal(masks[..., n], image[..., 0] == value)
        new = image >= 100
        np.testing.assert_array_equal(image[~new], mine[0][~new])
        assert not (image == 99).any()  # nothing of its background
        for value in mine[2]:
            left, before = (image == value).sum(), (mine[0] == value).sum()
            assert (value in ids) == (left > 0 and left >= 0.1 * before)
            covered += left < before
        pasted += (ids >= 100).sum()
        places |= {int(np.argmax(new.any(axis=(1, 2))))}
    assert pasted > 40 and covered > 15 and len(places) > 15


def test_equal_sizes_lie_on_each_other_and_any_number_is_pasted():
    counts = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        mine, other = coded(rng, 50, count=1), coded(rng, 100, count=4)
        image, _, ids = paste(mine, other, rng)
        new = image >= 100
        np.testing.assert_array_equal(image[new], other[0][new])
        counts.add(int((ids >= 100).sum()))
        assert (paste(mine, other, rng, most=2)[2] >= 100).sum() <= 2
    assert counts == {1, 2, 3, 4}


def test_what_is_nearly_covered_is_dropped():
    mine_masks = np.zeros((20, 30, 2), bool)
    mine_masks[:10, :10, 0] = mine_masks[10:, 20:, 1] = True
    other_masks = np.zeros((20, 30, 1), bool)
    other_masks[:10, 1:10] = True  # a tenth of object 0 is left
    mine = np.zeros((20, 30, 3), np.uint8), mine_masks, np.array([1, -2], np.int32)
    other = np.ones((20, 30, 3), np.uint8), other_masks, np.array([3], np.int32)
    rng = np.random.default_rng(0)
    for min_visible, ids in ((0.1, [1, -2, 3]), (0.11, [-2, 3]), (0, [1, -2, 3])):
        found = paste(mine, other, rng, min_visible=min_visible)
        assert found[2].tolist() == ids and found[2].dtype == np.int32 and found[1].shape == (20, 30, len(ids))
    other_masks[:10, :10] = True
    assert paste(mine, other, rng, min_visible=0)[2].tolist() == [-2, 3]
    other_masks[:] = True
    assert paste(mine, other, rng, min_visible=0)[2].tolist() == [3]
    # Of one that reaches out of the frame too little is no object.
    other_masks[:] = False
    other_masks[:, 0] = True
    small = np.zeros((20, 10, 3), np.uint8), np.zeros((20, 10, 0), bool), np.zeros(0, np.int32)
    numbers = [len(paste(small, other, np.random.default_rng(seed))[2]) for seed in range(50)]
    assert 0 < sum(numbers) < 10  # of 21 places in one that is seen


def test_crowds_and_empty_masks_are_not_pasted_and_crowds_are_covered():
    masks = np.zeros((10, 10, 3), bool)
    masks[:5, :, 0] = masks[5:, :, 1] = True
    mine = np.zeros((10, 10, 1), np.uint8), masks[..., :1], np.array([-1], np.int32)
    other = np.ones((10, 10, 1), np.uint8), masks, np.array([-1, 2, 2], np.int32)
    image, new_masks, ids = paste(mine, other, np.random.default_rng(0))
    assert ids.tolist() == [-1, 2] and image[5:].all() and not image[:5].any()
    np.testing.assert_array_equal(new_masks, masks[..., :2])
    for nothing in ((other[0], masks[..., :1], other[2][:1]), (other[0], masks[..., :0], other[2][:0])):
        for found, given in zip(paste(mine, nothing, np.random.default_rng(0)), mine, strict=True):
            assert found is given
    none = mine[0], masks[..., :0], mine[2][:0]
    assert paste(none, other, np.random.default_rng(0))[2].tolist() == [2]


def test_chance():
    mine, other = coded(np.random.default_rng(0), 50), coded(np.random.default_rng(1), 100)
    rng = np.random.default_rng(0)
    calls = [len(apply(CopyPaste(0.25), *mine, rng, lambda rng: other)[2]) for _ in range(200)]
    assert 25 < sum(count > 5 for count in calls) < 75
    never = Sometimes(0, CopyPaste(1.0))
    assert apply(never, *mine, rng, lambda rng: pytest.fail("asked for another"))[0] is mine[0]
    inside = Compose([Flip(1.0), None, Sometimes(1, CopyPaste(1.0, other=Flip(1.0)))])
    image, masks, ids = apply(inside, *mine, rng, lambda rng: other)
    new = image >= 100
    assert new.any() and (image[new] == other[0][:, ::-1][new]).all() and (image[~new] == mine[0][:, ::-1][~new]).all()
    assert len(ids) == masks.shape[2] and masks.any(axis=(0, 1)).all()


def test_images_that_cannot_be_pasted_from():
    mine = np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10, 1), bool), np.array([1])
    for other, found in (((10, 10, 3), np.uint16), "uint16 with 3"), (((10, 10, 1), np.uint8), "uint8 with 1"):
        image = np.zeros(*other)
        with pytest.raises(AugmentationError, match=f"one type.* Received: uint8 with 3 and {found}"):
            paste(mine, (image, mine[1], mine[2]), np.random.default_rng(0))
    with pytest.raises(AugmentationError, match=r"CopyPaste needs class ids.*BatchLoader"):
        CopyPaste()(mine[0], mine[1], np.random.default_rng(0))
    for wrong in ({"most": 0}, {"most": 1.5}, {"p": 2}, {"min_visible": -1}):
        with pytest.raises(ValueError, match="Received"):
            CopyPaste(**wrong)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda i, m, c: (i, m), r"must return \(image, masks, class_ids\)"),
        (lambda i, m, c: (i, m, c[:1]), r"masks of shape \(10, 10, 1\).*Received shape: \(10, 10, 2\)"),
        (lambda i, m, c: (i, m, c / 2), r"class_ids as whole numbers \[N\]. Received: float64, shape \(2,\)"),
        (lambda i, m, c: (i, m, c[:, None]), r"Received: int32, shape \(2, 1\)"),
        (lambda i, m, c: (i / 2, m, c), "keep the image's type uint8"),
    ],
)
def test_misfits_are_refused(result, message):
    class Faulty:
        def with_classes(self, image, masks, class_ids, rng, another):
            return result(image, masks, class_ids)

    mine = np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10, 2), bool), np.array([1, 2], np.int32)
    with pytest.raises(AugmentationError, match=f"Faulty {message}" if "must" in message else message):
        apply(Faulty(), *mine, np.random.default_rng(0), None)


# In samples and batches.


@pytest.mark.parametrize("name", ["standard", "strong"])
def test_batches_do_not_depend_on_the_threads(name):
    dataset, runs = shapes(7, empty=[2]), []
    for workers in (0, 1, 3):
        with BatchLoader(dataset, config_of(), augmentation=recipe(name), seed=3, workers=workers) as loader:
            runs.append([next(loader) for _ in range(8)])
    for other in runs[1:]:
        for batch, its in zip(runs[0], other, strict=True):
            same(batch, its)
    counts = [int((batch["input_gt_class_ids"] > 0).sum()) for batch in runs[0]]
    with BatchLoader(dataset, config_of(), seed=3) as loader:
        plain = [int((next(loader)["input_gt_class_ids"] > 0).sum()) for _ in range(8)]
    assert (sum(counts) > sum(plain)) == (name == "strong")


def two_sources(count=40):
    """One image in ten is of the source "rare", and of class 3."""
    dataset = shapes(count)
    dataset.add_class("rare", 9, "rare")
    for image_id in range(0, count, 10):
        info = dataset.image_info[image_id]
        image, masks, _ = info["parts"]
        info["source"], info["parts"] = "rare", (image, masks, [4] * masks.shape[2])
    dataset.prepare()
    return dataset


def test_objects_come_from_images_of_the_same_source(monkeypatch):
    dataset, config = two_sources(), config_of(NUM_CLASSES=5)
    asked = []
    load = dataset.load_image
    monkeypatch.setattr(dataset, "load_image", lambda image_id: asked.append(image_id) or load(image_id))
    for guesses in (20, 0):  # by chance, and from the list
        monkeypatch.setattr("mrcnn.data.samples._GUESSES", guesses)
        for image_id, wanted in ((10, {4}), (11, {1, 2, 3})):
            asked.clear()
            found = set()
            for seed in range(60):
                ids = load_image_gt(dataset, config, image_id, CopyPaste(1.0), np.random.default_rng(seed))[2]
                found |= set(ids.tolist())
            assert found == wanted
            others = set(asked[1::2])
            assert {i % 10 == 0 for i in others} == {image_id % 10 == 0}
            assert len(others) > (3 if image_id == 10 else 20)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_both_images(workers):
    class Failing(ArrayDataset):
        def load_mask(self, image_id):
            if image_id == 1:
                raise RuntimeError("no such polygon")
            return super().load_mask(image_id)

    dataset = Failing(*zip(*(info["parts"] for info in shapes(2).image_info), strict=True))
    options = {"augmentation": CopyPaste(1.0), "batch_size": 1, "shuffle": False, "workers": workers}
    message = r"Image 0 .*Another image .*1 \(arrays.id1\): RuntimeError: no such polygon"

    def first_batches():
        for seed in range(20):  # image 0 may be its own other
            with BatchLoader(dataset, config_of(), seed=seed, **options) as loader:
                next(loader)

    with pytest.raises(BatchError, match=message) as error:
        first_batches()
    assert error.value.image_id == 0 and isinstance(error.value.__cause__, DatasetError)
