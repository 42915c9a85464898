"""Mirror images: found at the same places, averaged, and no object twice."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn.data.molding import mold_inputs
from mrcnn.flips import FLIPS, FlippingEngine, flip_names
from mrcnn.inference import Detector
from tests.fake_engine import FakeEngine
from tests.oracle_engine import OracleConfig, OracleEngine, mosaic, paint, truth


def config(**values):
    return OracleConfig.from_dict({**OracleConfig().to_dict(), **values})


class Views(FakeEngine):
    """Gives what it is told to, view after view, for each image of the batch the same."""

    def __init__(self, *views):
        super().__init__()
        self.views, self.seen = list(views), []

    def run(self, molded, metas, anchors):
        self.seen.append((molded, metas))
        return [self.views[len(self.seen) - 1]] * len(molded)


def raw(*found, side=4):
    """(box, class id, score, value of the mask)."""
    rows = np.array([[*box, class_id, score] for box, class_id, score, _ in found], np.float32).reshape(-1, 6)
    return rows, np.array([np.full((side, side), value) for *_, value in found], np.float32).reshape(-1, side, side)


def as_one(*views, **values):
    """What becomes of an image's views, given as if they were not mirrored."""
    engine = FlippingEngine(Views(), (), config(**values))
    return engine._as_one(views)


@pytest.mark.parametrize("flips", [("horizontal",), ("vertical",), ("both",), ("horizontal", "vertical", "both")])
@pytest.mark.parametrize("mode", ["pad64", "square"])
def test_objects_are_found_where_they_are(flips, mode):
    """Also in images that are padded, by an odd number of pixels and unevenly."""
    own = config(IMAGE_RESIZE_MODE=mode, IMAGE_MAX_DIM=256)
    for shape in ((128, 192), (101, 77), (131, 255)):
        image = mosaic(shape, 25, seed=3)
        plain = Detector(OracleEngine(), own).detect([image])[0]
        found = Detector(OracleEngine(), own, flips=flips).detect([image])[0]
        assert len(plain["rois"]) == len(truth(image)) > 6
        order, own_order = (np.lexsort(result["rois"].T) for result in (plain, found))
        np.testing.assert_array_equal(found["rois"][own_order], plain["rois"][order])
        np.testing.assert_array_equal(found["class_ids"][own_order], plain["class_ids"][order])
        np.testing.assert_allclose(found["scores"][own_order], plain["scores"][order], atol=1e-6)
        np.testing.assert_array_equal(found["masks"][:, :, own_order], plain["masks"][:, :, order])


def test_what_the_network_is_shown():
    engine = Views(*[raw()] * 4)
    molded, metas, _ = mold_inputs([mosaic((70, 100), 25), mosaic((100, 80), 25)], config())
    assert len({image.shape for image in molded}) == 1 and metas[0, 7:11].tolist() == [29, 14, 99, 114]
    FlippingEngine(engine, tuple(FLIPS), config()).run(np.stack(list(molded)), metas.astype(np.float32), metas)
    (image, meta), *mirrored = engine.seen
    for (other, other_meta), (rows, columns) in zip(mirrored, FLIPS.values(), strict=True):
        expected = np.flip(image, [axis for axis, is_flipped in ((1, rows), (2, columns)) if is_flipped])
        np.testing.assert_array_equal(other, expected)
        assert other.flags.c_contiguous and other_meta.dtype == np.float32
        for one, other_one, picture, other_picture in zip(meta, other_meta, image, other, strict=True):
            y1, x1, y2, x2 = one[7:11].astype(int)
            own = picture[y1:y2, x1:x2][:: -1 if rows else 1, :: -1 if columns else 1]
            y1, x1, y2, x2 = other_one[7:11].astype(int)
            np.testing.assert_array_equal(other_picture[y1:y2, x1:x2], own)
            np.testing.assert_array_equal(np.delete(one, slice(7, 11)), np.delete(other_one, slice(7, 11)))


def test_views_are_averaged_by_score():
    box, other = [0.2, 0.2, 0.6, 0.6], [0.22, 0.2, 0.6, 0.62]
    rows, masks = as_one(raw((box, 1, 0.9, 1.0)), raw((other, 1, 0.3, 0.6)))
    np.testing.assert_allclose(rows, [[0.205, 0.2, 0.6, 0.605, 1, 0.6]], atol=1e-6)
    assert rows.dtype == masks.dtype == np.float32
    np.testing.assert_allclose(masks[0, 1:-1, 1:-1], 0.9, atol=1e-6)


def test_masks_are_brought_to_the_averaged_box():
    """Halves of two boxes of which one is moved by half its width: where they lie in the image, they are averaged."""
    half = np.zeros((1, 40, 40), np.float32)
    half[:, :, :20] = 1
    left, right = ([[0.2, x, 0.6, x + 0.4, 1, 0.8]] for x in (0.2, 0.3))
    ((*box, _, score),), (mask,) = as_one((np.array(left, np.float32), half), (np.array(right, np.float32), half))
    np.testing.assert_allclose(box, [0.2, 0.25, 0.6, 0.65], atol=1e-6)
    assert score == pytest.approx(0.8)
    centers = 0.25 + (np.arange(40) + 0.5) / 40 * 0.4
    expected = ((centers > 0.2) & (centers < 0.4)) / 2 + ((centers > 0.3) & (centers < 0.5)) / 2
    away = np.abs(centers[:, None] - [0.2, 0.3, 0.4, 0.5]).min(axis=1) > 0.011  # from edges, which are blurred
    assert away.sum() >= 30 and set(expected[away]) == {0, 0.5, 1}
    np.testing.assert_allclose(mask[:, away], np.tile(expected, (40, 1))[:, away], atol=1e-6)


def test_a_view_that_has_not_found_it_counts_as_what_it_can_be_at_most():
    found = ([0.2, 0.2, 0.6, 0.6], 1, 0.8, 1.0)
    rows, masks = as_one(raw(found), raw(), raw(found))
    assert rows[0, 5] == pytest.approx(1.6 / 3) and masks.shape == (1, 4, 4)
    assert as_one(raw(found), raw(), DETECTION_MIN_CONFIDENCE=0.7)[0][0, 5] == pytest.approx(0.75)
    assert as_one(raw(found), raw(), DETECTION_CLASS_CONFIDENCE=[0, 0.3, 0.9, 0.9])[0][0, 5] == pytest.approx(0.55)
    assert len(as_one(raw(), raw())[0]) == 0


def test_no_object_is_there_twice():
    box = [0.2, 0.2, 0.6, 0.6]
    # Another class is another object, unless classes are not told apart.
    views = raw((box, 1, 0.9, 1.0)), raw((box, 2, 0.8, 1.0))
    assert as_one(*views)[0][:, 4].tolist() == [1, 2]
    assert as_one(*views, DETECTION_NMS_CLASS_AGNOSTIC=True)[0][:, 4].tolist() == [1]
    # Two of one view never become one; what is left over of the other gives way as ever.
    near = [0.2, 0.2, 0.6, 0.5]
    rows, _ = as_one(raw((box, 1, 0.9, 1.0), (near, 1, 0.7, 1.0)), raw((box, 1, 0.8, 1.0)))
    np.testing.assert_allclose(rows, [[*box, 1, 0.85]], atol=1e-6)
    rows, _ = as_one(raw((box, 1, 0.9, 1.0)), raw((box, 1, 0.8, 1.0)), DETECTION_MAX_INSTANCES=1)
    assert len(rows) == 1
    apart = [([0.1 * n, 0, 0.1 * n + 0.05, 0.1], 1, 0.9 - n / 100, 1.0) for n in range(8)]
    rows, _ = as_one(raw(*apart), raw(*apart), DETECTION_MAX_INSTANCES=5)
    np.testing.assert_allclose(rows[:, 5], [0.9, 0.89, 0.88, 0.87, 0.86], atol=1e-6)


def test_engine_and_detector_tell_who_they_are():
    engine = OracleEngine()
    detector = Detector(engine, OracleConfig(), flips=True)
    assert detector.flips == ("horizontal",) and detector.engine.name == "oracle" and detector.engine.threads is None
    detector.detect([mosaic((64, 64), 20)] * 3)
    assert engine.runs == 6
    assert Detector(engine, OracleConfig()).engine is engine and Detector(engine, OracleConfig()).flips == ()


def test_flips_and_tiles_together():
    image = np.zeros((200, 300, 3), np.uint8)
    paint(image, np.ones((30, 120), bool), 1, 60, 60)
    paint(image, np.ones((50, 20), bool), 2, 100, 110)
    (result,) = Detector(OracleEngine(), OracleConfig(), flips=("horizontal", "vertical")).detect([image], tile=128)
    assert sorted(result["rois"].tolist()) == [[60, 60, 90, 180], [100, 110, 150, 130]]


@pytest.mark.parametrize("flips", ["sideways", ("horizontal", "horizontal"), ("both", "up"), 3])
def test_flips_that_cannot_be(flips):
    with pytest.raises((ValueError, TypeError), match="flips|iterable"):
        Detector(OracleEngine(), OracleConfig(), flips=flips)
    assert flip_names(None) == flip_names(False) == flip_names(()) == ()
    assert flip_names("vertical") == ("vertical",)
