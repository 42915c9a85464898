"""What overlapping tiles tell, made one: cases whose answer is plain. The mosaics are in test_tiling.py."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn.data.crops import Crop
from mrcnn.merging import Detections, merge_tiles

# Two tiles beside each other, which both see columns 60 to 100.
SHAPE = (100, 160)
LEFT, RIGHT = (0, 0, 100, 100), (0, 60, 100, 160)


def detections(*found):
    """(box, score) or (box, score, class id) or (box, score, class id, mask [h, w] in the box)."""
    rows = [(*one, *(1, None)[len(one) - 2 :]) for one in found]
    boxes = np.array([box for box, *_ in rows], np.int32).reshape(-1, 4)
    filled = [np.ones((y2 - y1, x2 - x1), bool) for y1, x1, y2, x2 in boxes.tolist()]
    crops = [
        Crop.of(full if mask is None else mask, int(box[0]), int(box[1]))
        for (box, _, _, mask), full in zip(rows, filled, strict=True)
    ]
    return Detections(
        boxes,
        np.array([class_id for _, _, class_id, _ in rows], np.int32),
        np.array([score for _, score, _, _ in rows], np.float32),
        crops,
    )


def merge(left, right, **options):
    return merge_tiles([LEFT, RIGHT], [detections(*left), detections(*right)], SHAPE, **options)


def told(merged):
    return [
        (tuple(box), round(score, 4), class_id)
        for box, score, class_id in zip(
            merged.boxes.tolist(), merged.scores.tolist(), merged.class_ids.tolist(), strict=True
        )
    ]


def test_of_two_whole_views_the_better_stays_as_it_is():
    merged = merge([((20, 70, 40, 90), 0.7)], [((21, 71, 41, 91), 0.9)])
    assert told(merged) == [((21, 71, 41, 91), 0.9, 1)]
    assert merged.crops[0].box == (21, 71, 41, 91) and merged.crops[0].area == 400


def test_a_piece_gives_way_to_the_whole_whatever_it_scores():
    whole = ((20, 80, 40, 120), 0.6)  # columns 80 to 120; the left tile sees half of it
    assert told(merge([((20, 80, 40, 100), 0.99)], [whole])) == [(*whole, 1)]
    assert told(merge([((20, 80, 40, 96), 0.99)], [whole])) == [(*whole, 1)]  # that ends before the border
    assert told(merge([((20, 96, 40, 100), 0.99, 2)], [whole])) == [(*whole, 1)]  # or is taken for something else


def test_a_piece_is_left_to_the_tile_that_sees_all_of_it_even_if_that_finds_nothing():
    assert told(merge([((20, 80, 40, 100), 0.9)], [])) == []
    # Not so if the other tile has no room around it, or its border cuts it too.
    assert len(told(merge([((20, 61, 40, 100), 0.9)], []))) == 1
    # And nothing is cut at the image's own border.
    assert len(told(merge([((0, 0, 20, 20), 0.9)], [((80, 140, 100, 160), 0.9)]))) == 2


def test_pieces_of_an_object_larger_than_the_overlap_are_united():
    merged = merge([((20, 10, 40, 100), 0.9)], [((20, 60, 40, 150), 0.6)])
    assert told(merged) == [((20, 10, 40, 150), 0.75, 1)]
    assert merged.crops[0].area == 20 * 140 and merged.crops[0].mask().all()


def test_the_score_of_what_is_united_counts_pixels():
    merged = merge([((20, 40, 40, 100), 0.9)], [((20, 60, 40, 160), 0.5)])
    assert told(merged) == [((20, 40, 40, 160), round((60 * 0.9 + 100 * 0.5) / 160, 4), 1)]


def test_neighbors_that_touch_stay_two():
    """Both are larger than the overlap, and their masks blur into each other by a line."""
    left = [((20, 10, 41, 100), 0.9), ((40, 10, 60, 100), 0.8)]
    right = [((20, 60, 40, 150), 0.9), ((39, 60, 60, 150), 0.8)]
    assert told(merge(left, right)) == [((20, 10, 41, 150), 0.9, 1), ((39, 10, 60, 150), 0.8, 1)]
    # Side by side, the seam within the overlap.
    found = [((20, 20, 40, 80), 0.9), ((20, 79, 40, 100), 0.7)], [((20, 60, 40, 80), 0.8), ((20, 80, 40, 140), 0.95)]
    assert told(merge(*found)) == [((20, 80, 40, 140), 0.95, 1), ((20, 20, 40, 80), 0.9, 1)]


def test_what_one_tile_takes_for_two_and_the_other_for_one():
    two, one = [((20, 65, 40, 78), 0.9), ((20, 78, 40, 92), 0.7)], [((20, 66, 40, 92), 0.8)]
    assert [score for _, score, _ in told(merge(two, one))] == [0.9, 0.7]
    one = [((20, 66, 40, 92), 0.95)]
    assert [score for _, score, _ in told(merge(two, one))] == [0.95]


def test_views_of_one_tile_are_not_compared():
    twice = [((20, 70, 40, 90), 0.9), ((20, 71, 40, 91), 0.8)]
    assert len(told(merge(twice, []))) == 2
    assert len(told(merge([((20, 10, 40, 30), 0.9), ((20, 10, 40, 30), 0.8)], []))) == 2


def test_a_piece_that_seems_whole_gives_way_to_the_object_that_was_united():
    """The last tile sees only a part of the object, well inside; the pieces of the others show that there is more."""
    windows = [(0, 0, 100, 100), (0, 60, 100, 160), (0, 30, 100, 130)]
    found = [
        detections(((20, 10, 40, 100), 0.9)),
        detections(((20, 60, 40, 150), 0.9)),
        detections(((20, 65, 40, 95), 0.99)),
    ]
    assert told(merge_tiles(windows, found, SHAPE)) == [((20, 10, 40, 150), 0.9, 1)]


def test_classes_are_kept_apart_unless_told_otherwise():
    left, right = [((20, 70, 40, 90), 0.9, 1)], [((20, 70, 40, 90), 0.8, 2)]
    assert [class_id for *_, class_id in told(merge(left, right))] == [1, 2]
    assert told(merge(left, right, class_agnostic=True)) == [((20, 70, 40, 90), 0.9, 1)]
    left, right = [((20, 30, 40, 100), 0.9, 1)], [((20, 60, 40, 150), 0.8, 2)]
    assert len(told(merge(left, right))) == 2
    assert [class_id for *_, class_id in told(merge(left, right, class_agnostic=True))] == [2]  # of the larger piece


def test_masks_without_a_pixel_are_compared_by_their_boxes():
    nothing = np.zeros((20, 20), bool)
    merged = merge([((20, 70, 40, 90), 0.7, 1, nothing)], [((20, 70, 40, 90), 0.9, 1, nothing)])
    assert told(merged) == [((20, 70, 40, 90), 0.9, 1)]
    assert merged.crops[0].area == 0 and next(merged.masks())[0].shape == (0, 0)
    larger = np.zeros((20, 90), bool)
    assert len(told(merge([((20, 10, 40, 100), 0.7, 1, larger)], [((20, 60, 40, 150), 0.9, 1, larger)]))) == 2


def test_rings_are_compared_by_mask_and_not_by_box():
    ring = np.ones((40, 30), bool)
    ring[2:-2, 2:-2] = False
    merged = merge([((20, 64, 60, 94), 0.9, 1, ring)], [((30, 70, 50, 90), 0.8)])
    assert len(told(merged)) == 2


def test_around_a_corner_of_four_tiles():
    """The object is larger than what all four see; each has a quarter and more of it."""
    windows = [(0, 0, 60, 60), (0, 40, 60, 100), (40, 0, 100, 60), (40, 40, 100, 100)]
    y, x = np.mgrid[:100, :100]
    disk = np.hypot(y - 50, x - 50) < 35
    found = []
    for y1, x1, y2, x2 in windows:
        crop = Crop.of(disk[y1:y2, x1:x2], y1, x1)
        found.append(detections((crop.box, 0.9, 1, crop.mask())))
    merged = merge_tiles(windows, found, (100, 100))
    assert told(merged) == [((16, 16, 85, 85), 0.9, 1)]
    np.testing.assert_array_equal(merged.crops[0].mask(), disk[16:85, 16:85])
    for missing in range(4):  # three tiles are enough to know where most of it is
        rest = [one if tile != missing else detections() for tile, one in enumerate(found)]
        ((_, _, class_id),) = told(merge_tiles(windows, rest, (100, 100)))
        assert class_id == 1


def test_the_only_tile_that_sees_all_of_it_is_believed():
    """A small object beside a corner: two tiles see pieces that fit each other, a third sees it whole, but near its own
    border. United, the pieces would lack a corner."""
    windows = [(0, 0, 60, 60), (0, 40, 60, 100), (40, 0, 100, 60), (40, 40, 100, 100)]
    whole = np.zeros((100, 100), bool)
    whole[41:70, 35:59] = True
    found = []
    for y1, x1, y2, x2 in windows:
        crop = Crop.of(whole[y1:y2, x1:x2], y1, x1)
        found.append(detections((crop.box, 0.9 - 0.1 * len(found), 1, crop.mask())))
    assert [box for box, *_ in told(merge_tiles(windows, found, (100, 100)))] == [(41, 35, 70, 59)]


def test_nothing():
    for windows, found in (([], []), ([LEFT], [detections()]), ([LEFT, RIGHT], [detections(), detections()])):
        merged = merge_tiles(windows, found, SHAPE)
        assert merged.boxes.shape == (0, 4) and merged.class_ids.shape == merged.scores.shape == (0,)
        assert (merged.boxes.dtype, merged.class_ids.dtype, merged.scores.dtype) == (np.int32, np.int32, np.float32)
        assert list(merged.masks()) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_tiles_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    windows = [(y, x, y + 60, x + 60) for y in (0, 40) for x in (0, 40)]
    found = []
    for y1, x1, _, _ in windows:
        corners = rng.integers(0, 40, (12, 2))
        sides = rng.integers(5, 20, (12, 2))
        boxes = np.concatenate([corners, corners + sides], axis=1) + np.array([y1, x1, y1, x1])
        found.append(
            detections(*((box.tolist(), float(score)) for box, score in zip(boxes, rng.random(12), strict=True)))
        )
    expected = told(merge_tiles(windows, found, (100, 100)))
    order = rng.permutation(4)
    assert told(merge_tiles([windows[i] for i in order], [found[i] for i in order], (100, 100))) == expected
    assert 10 < len(expected) < 48
