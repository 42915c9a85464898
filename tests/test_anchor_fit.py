"""Anchors proposed from the data: against the anchors themselves, and against data whose best anchors are known."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data import anchor_fit
from mrcnn.data.anchor_fit import AnchorFit, Coverage, best_overlaps, coverage, fit_anchors
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import compute_overlaps


def config_of(**values):
    return type("AnchorConfig", (Config,), {"IMAGE_RECTANGLE": (256, 384), **values})()


def boxes_of(rng, count, low, high, ratios=(0.5, 2.0), size=(256, 384)):
    """Boxes anywhere in an image, their sides and ratios spread evenly in logarithms, and the image's size for each."""
    side, ratio = (np.exp(rng.uniform(*np.log(bounds), count)) for bounds in ((low, high), ratios))
    sizes = np.minimum(np.stack([side / np.sqrt(ratio), side * np.sqrt(ratio)], axis=1), size)
    corners = rng.uniform(0, np.array(size) - sizes)
    return np.concatenate([corners, corners + sizes], axis=1), np.tile(size, (count, 1))


@pytest.mark.parametrize(
    ("stride", "scales"), [(1, Config.RPN_ANCHOR_SCALES), (2, Config.RPN_ANCHOR_SCALES), (1, (16, 32, 64))]
)
def test_the_best_overlap_is_that_of_all_anchors_there_are(rng, stride, scales):
    config = config_of(RPN_ANCHOR_STRIDE=stride, RPN_ANCHOR_SCALES=scales)
    boxes, molded = boxes_of(rng, 100, 3, 250)
    anchors = pyramid_anchors(config, (256, 384))
    if stride == 2:  # of feature maps with an odd side
        boxes, molded = boxes_of(rng, 300, 3, 150, size=(192, 192))
        anchors = pyramid_anchors(config, (192, 192))
    np.testing.assert_allclose(
        best_overlaps(boxes, molded, config), compute_overlaps(anchors, boxes).max(axis=0), atol=1e-12
    )


def test_small_objects_get_small_anchors(rng):
    config = config_of()
    boxes, molded = boxes_of(rng, 1000, 8, 30)
    fit = fit_anchors(boxes, molded, config)
    assert fit.before == coverage(boxes, molded, config)
    assert fit.before.fair < 0.3 and fit.after.fair > 0.9 and fit.better
    assert fit.ratios == (0.5, 1.0, 2.0)  # not asked for
    assert fit.scales[0] < 16 and fit.scales == tuple(sorted(fit.scales))
    # What is proposed does what is promised, and no coarse level has a scale below twice its stride.
    proposed = config_of(RPN_ANCHOR_SCALES=fit.scales)
    assert coverage(boxes, molded, proposed) == fit.after
    assert all(scale >= 2 * stride for scale, stride in zip(fit.scales[1:], (8, 16, 32, 64), strict=True))


def test_as_many_scales_are_proposed_as_there_are(rng):
    boxes, molded = boxes_of(rng, 300, 8, 60)
    fit = fit_anchors(boxes, molded, config_of(RPN_ANCHOR_SCALES=(32, 64, 128)))
    assert len(fit.scales) == 3 and fit.better
    assert coverage(boxes, molded, config_of(RPN_ANCHOR_SCALES=fit.scales)) == fit.after


def test_ratios_are_those_of_the_objects(rng):
    boxes, molded = boxes_of(rng, 1000, 30, 60, ratios=(0.3, 0.4))  # upright
    scales_only, both = (fit_anchors(boxes, molded, config_of(), count) for count in (None, 3))
    assert both.after.good > 0.95 > 0.6 > scales_only.after.good
    assert len(both.ratios) == 3 and all(0.2 < ratio < 0.5 for ratio in both.ratios)
    assert coverage(
        boxes, molded, config_of(RPN_ANCHOR_SCALES=both.scales, RPN_ANCHOR_RATIOS=both.ratios)
    ) == both.after  # fmt: skip
    one = fit_anchors(boxes, molded, config_of(), 1)
    assert one.ratios[0] == pytest.approx(np.sqrt(0.3 * 0.4), abs=0.06)


def test_equal_objects_get_ratios_that_differ(rng):
    boxes, molded = boxes_of(rng, 200, 39, 41, ratios=(1, 1.0001))
    fit = fit_anchors(boxes, molded, config_of(), 3)
    assert fit.ratios == (0.87, 1.0, 1.15)
    assert fit.unused == (1, 2, 3, 4)
    assert fit.scales == tuple(fit.scales[0] * factor for factor in (1, 2, 4, 8, 16))


def test_anchors_that_fit_already_stay(rng):
    sides = rng.choice([32, 64, 128], 300)
    ratio = rng.choice([0.5, 1, 2], 300)
    sizes = np.stack([sides / np.sqrt(ratio), sides * np.sqrt(ratio)], axis=1)
    centers = rng.integers(1, 5, (300, 2)) * 64
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)
    fit = fit_anchors(boxes, np.tile((384, 384), (300, 1)), config_of())
    assert fit.before.good == 1.0 and not fit.better


def test_what_is_maximized_is_what_is_judged(rng):
    assert Coverage.of(np.array([0.95, 0.3])).mean_iou == pytest.approx(0.5)  # beyond 0.7 nothing is gained
    boxes, molded = boxes_of(rng, 300, 8, 60)
    config = config_of(RPN_ANCHOR_SCALES=(16, 32, 64))
    scales, ratios = (np.array(values, float) for values in (config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS))
    fit = anchor_fit._Fit(boxes, molded, np.array([4.0, 8.0, 16.0]), fit_ratios=False)
    assert fit.score(scales, ratios) == pytest.approx(coverage(boxes, molded, config).mean_iou)
    for _ in range(20):
        other = np.sort(scales * np.exp(rng.normal(0, 0.3, 3)))
        judged = AnchorFit(
            (), (), coverage(boxes, molded, config), Coverage.of(fit._overlaps(other, ratios).max(1)), ()
        )
        assert judged.better == (fit.score(other, ratios) >= fit.score(scales, ratios) + 0.01)


def test_better_is_a_hundredth():
    low, little, more = Coverage(0.5, 0.2, 0.6), Coverage(0.5, 0.2, 0.605), Coverage(0.4, 0.2, 0.62)
    assert not AnchorFit((), (), low, little, ()).better
    assert AnchorFit((), (), low, more, ()).better


def test_of_many_objects_some_are_drawn_by_a_seed(rng, monkeypatch):
    monkeypatch.setattr(anchor_fit, "_MOST_OBJECTS", 60)
    boxes, molded = boxes_of(rng, 400, 10, 200)
    first = fit_anchors(boxes, molded, config_of())
    assert first == fit_anchors(boxes, molded, config_of(), seed=0) != fit_anchors(boxes, molded, config_of(), seed=1)
    assert first.after == coverage(boxes, molded, config_of(RPN_ANCHOR_SCALES=first.scales))  # of all objects


def test_no_objects_are_no_data():
    with pytest.raises(ValueError, match="there are none"):
        fit_anchors(np.zeros((0, 4)), np.zeros((0, 2)), config_of())
    assert coverage(np.zeros((0, 4)), np.zeros((0, 2)), config_of()) == Coverage(0.0, 0.0, 0.0)
