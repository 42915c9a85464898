"""Splits: each class has its share, groups stay together, and the same images go the same way."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from mrcnn.data.content import Content
from mrcnn.data.content_parts import evenness, farthest, group_names, split_content
from mrcnn.data.dataset import DatasetError
from mrcnn.data.splitting import deal

SHARES = ([0.8, 0.2], [0.7, 0.15, 0.15], [0.5, 0.5], [0.9, 0.05, 0.05])


def single_class(count, classes, seed=0):
    """Images of one class each, the first class the most frequent."""
    weights = 1 / np.arange(1, classes + 1)
    chosen = np.random.default_rng(seed).choice(classes, count, p=weights / weights.sum())
    return [{int(class_id): 1} for class_id in chosen]


def multi_class(count, classes, seed=0, objects=3.0):
    """Images of some objects, of which many have several classes and some none."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, classes + 1)
    return [
        dict(Counter(rng.choice(classes, rng.poisson(objects), p=weights / weights.sum()).tolist()))
        for _ in range(count)
    ]


def names_of(count):
    return [f"photos/{number:05}.jpg" for number in range(count)]


def unevenness(parts, counts, shares):
    """By how many images each class, and the number of images, is off in a part, at most; images of each class."""
    classes = sorted({class_id for one in counts for class_id in one})
    has = np.array([[1, *(class_id in one for class_id in classes)] for one in counts])
    held = np.stack([has[parts == part].sum(axis=0) for part in range(len(shares))])
    return np.abs(held - np.outer(shares, has.sum(axis=0))).max(axis=0), has.sum(axis=0)


@pytest.mark.parametrize("shares", SHARES, ids=str)
@pytest.mark.parametrize("count,classes", [(40, 2), (300, 5), (3000, 30)])
def test_images_of_one_class_are_dealt_to_a_single_image(count, classes, shares):
    counts = single_class(count, classes)
    off, total = unevenness(deal(names_of(count), counts, shares), counts, shares)
    assert (off[1:] <= np.maximum(1.5, 0.02 * total[1:])).all() and off[0] <= 0.5 + 1e-9


@pytest.mark.parametrize("shares", SHARES, ids=str)
@pytest.mark.parametrize("count,classes", [(60, 3), (400, 10), (1500, 40)])
def test_images_of_several_classes_are_dealt_nearly_as_evenly(count, classes, shares):
    counts = multi_class(count, classes)
    parts = deal(names_of(count), counts, shares)
    off, total = unevenness(parts, counts, shares)
    assert (off[1:] <= np.maximum(1.5, 0.02 * total[1:])).all() and off[0] <= 0.5 + 1e-9
    by_chance, _ = unevenness(np.random.default_rng(0).choice(len(shares), count, p=shares), counts, shares)
    assert off.sum() < by_chance.sum() * (0.5 if count > 100 else 0.8)


def test_objects_are_dealt_evenly_too():
    """Where few images have most of the objects."""
    counts = [{0: 100 if number % 10 == 0 else 1} for number in range(200)]
    parts = deal(names_of(200), counts, [0.8, 0.2])
    objects = np.array([one[0] for one in counts])
    assert abs(objects[parts == 1].sum() / objects.sum() - 0.2) < 0.03


def test_the_same_images_go_the_same_way_in_any_order():
    names, counts = names_of(300), multi_class(300, 8)
    parts = deal(names, counts, [0.8, 0.2], seed=3)
    order = np.random.default_rng(1).permutation(300)
    again = deal([names[i] for i in order], [counts[i] for i in order], [0.8, 0.2], seed=3)
    np.testing.assert_array_equal(again, parts[order])
    assert 0.2 < (deal(names, counts, [0.8, 0.2], seed=4) != parts).mean() < 0.45  # 2 x 0.8 x 0.2 by chance


@pytest.mark.parametrize("more", [1, 20, 200])
def test_more_images_move_few_of_the_others(more):
    names, counts = names_of(2000), multi_class(2000, 20)
    parts = deal(names, counts, [0.8, 0.2])
    new_names, new_counts = [f"new/{i}.jpg" for i in range(more)], multi_class(more, 20, seed=1)
    again = deal([*new_names, *names], [*new_counts, *counts], [0.8, 0.2])[more:]
    assert (again != parts).mean() < 0.03 + 0.1 * more / 2000


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_groups_stay_together(shares):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 12, 150)
    groups = np.repeat([f"patient {n}" for n in range(150)], sizes).tolist()
    counts = multi_class(len(groups), 6)
    parts = deal(names_of(len(groups)), counts, shares, groups)
    for group in set(groups):
        assert len(set(parts[np.array(groups) == group])) == 1
    off, total = unevenness(parts, counts, shares)
    assert (off <= np.maximum(8.0, 0.03 * total)).all()


def test_images_of_one_name_stay_together():
    names = ["a.jpg", "b.jpg"] * 20 + names_of(10)
    parts = deal(names, [{}] * 50, [0.5, 0.5])
    assert len(set(parts[:40:2])) == len(set(parts[1:40:2])) == 1
    with pytest.raises(ValueError, match=r"The image a.jpg is there twice, in the groups 'x' and 'y'"):
        deal(["a.jpg", "a.jpg"], [{}] * 2, [0.5, 0.5], ["x", "y"])


def test_few_images():
    assert deal([], [], [0.8, 0.2]).tolist() == []
    assert deal(["a"], [{1: 2}], [0.8, 0.2]).tolist() == [0]  # the larger part
    assert deal(["a"], [{1: 2}], [0.2, 0.8]).tolist() == [1]
    assert sorted(deal(["a", "b"], [{1: 2}, {}], [0.95, 0.05]).tolist()) == [0, 1]  # none is left empty
    assert sorted(deal(["a", "b", "c"], [{}] * 3, [0.98, 0.01, 0.01]).tolist()) == [0, 1, 2]
    assert deal(["a", "b"], [{}] * 2, [1.0]).tolist() == [0, 0]
    assert len(set(deal(["a", "b", "c"], [{}] * 3, [0.5, 0.5], ["g"] * 3).tolist())) == 1


def test_a_class_of_a_single_image_is_learned_from():
    names, counts = names_of(101), [{1: 1}] * 100 + [{1: 1, 2: 1}]
    for seed in range(5):
        assert deal(names, counts, [0.2, 0.8], seed=seed)[100] == 1


@pytest.mark.parametrize("shares", [[], [0.8], [0.8, 0.3], [1.2, -0.2], [0.5, 0.5, 0.0], [float("nan"), 1.0]])
def test_shares_that_are_none(shares):
    with pytest.raises(ValueError, match="Shares must be above 0 and sum to 1"):
        deal(["a"], [{}], shares)


def content_of(count=60, **fields):
    images = [
        {"id": n, "file_name": f"{'ab'[n % 2]}/p{n // 6:02}_{n}.jpg", "height": 9, "width": 9, "patient": n // 6}
        for n in range(count)
    ]
    annotations = [
        {"id": n, "image_id": n // 2, "category_id": n % 2 + 1, "segmentation": [], "iscrowd": int(n % 20 == 1)}
        for n in range(2 * count)
        if n % 6
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "bird"}]
    return Content("coco", "file.json", "folder", images, categories, annotations, **fields)


def test_a_content_is_split_without_loss():
    content = content_of()
    before = json.dumps([content.images, content.annotations])
    split = split_content(content, {"train": 0.75, "val": 0.25})
    assert json.dumps([content.images, content.annotations]) == before
    train, val = split.parts["train"], split.parts["val"]
    assert (len(train.images), len(val.images)) == (45, 15) and split.groups is None
    assert sorted([*train.images, *val.images], key=lambda one: one["id"]) == content.images
    assert sorted([*train.annotations, *val.annotations], key=lambda one: one["id"]) == content.annotations
    for part in (train, val):
        assert {one["image_id"] for one in part.annotations} <= {image["id"] for image in part.images}
        assert part.categories == content.categories and part.folder == content.folder
    rows = evenness(split.parts)
    assert rows[0] == ("images", [45, 15]) and [name for name, _ in rows[-1:]] == ["bird"]
    expected = Counter(one["category_id"] for one in content.annotations if not one["iscrowd"])
    assert {name: sum(numbers) for name, numbers in rows if name in ("cat", "dog")} == {
        "cat": expected[1],
        "dog": expected[2],
    }
    name, part, share = farthest(rows, [0.75, 0.25])
    assert name in ("cat", "dog") and abs(share - [0.75, 0.25][part]) < 0.05


@pytest.mark.parametrize("group,count", [("folder", 2), ("patient", 10), (r"p(\d+)_", 10), (r"p\d", 1)])
def test_what_groups_share(group, count):
    content = content_of()
    names = group_names(content, group)
    assert len(set(names)) == count and None not in names
    split = split_content(content, {"train": 0.5, "val": 0.5}, group)
    assert (split.groups, split.largest, split.alone) == (count, 60 // count, 0)
    for part in split.parts.values():
        ids = {image["id"] for image in part.images}
        assert all(len({n in ids for n in range(60) if names[n] == name}) == 1 for name in set(names))


def test_images_without_the_group_go_alone():
    content = content_of()
    del content.images[3]["patient"]
    assert group_names(content, "patient")[3] is None
    split = split_content(content, {"train": 0.5, "val": 0.5}, r"a/(p0\d)_")
    assert split.alone == 30 and split.groups == 10
    with pytest.raises(
        DatasetError, match=r"'site' is no field of the images of file.json, and no image's name matches"
    ):
        group_names(content, "site")
    with pytest.raises(DatasetError, match=r"'p\(' is no regular expression .* which have: file_name, height, id"):
        group_names(content, "p(")
    content.images.clear()
    assert group_names(content, "site") == []


def test_frames_of_a_file_are_images_of_their_own():
    content = content_of(8)
    for n, image in enumerate(content.images):
        image |= {"file_name": "stack.tif", "frame": n}
    parts = split_content(content, {"train": 0.5, "val": 0.5}).parts
    assert [len(part.images) for part in parts.values()] == [4, 4]
    assert [len(p.images) for p in split_content(content, {"train": 0.5, "val": 0.5}, "folder").parts.values()] in (
        [8, 0],
        [0, 8],
    )


def test_parts_do_not_count_what_the_whole_had_to_leave_out():
    content = content_of(4)
    content.rejected, content.rejected_images = 3, 2
    for part in split_content(content, {"train": 0.5, "val": 0.5}).parts.values():
        assert (part.rejected, part.rejected_images) == (0, 0)


def test_evenness_of_parts_with_nothing():
    parts = split_content(content_of(0), {"train": 0.5, "val": 0.5}).parts
    rows = evenness(parts)
    assert rows[0] == ("images", [0, 0]) and farthest(rows, [0.5, 0.5]) is None
