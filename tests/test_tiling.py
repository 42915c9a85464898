"""Images tile by tile: mosaics whose truth is known come out whole, each object once."""

from __future__ import annotations

import tracemalloc

import cv2
import h5py
import numpy as np
import pytest

from mrcnn.data.rle import decode_crop
from mrcnn.inference import Detector
from mrcnn.tiling import Tiling, tile_progress
from tests.oracle_engine import OracleConfig, OracleEngine, ellipse, mosaic, paint, truth


def detector(**options):
    return Detector(OracleEngine(**options), OracleConfig())


def matched(result, expected, least=0.99):
    """Assert that each object of `expected` was found once, with this IoU at least, and nothing else."""
    shape = next(iter(expected.values())).shape if expected else (1, 1)
    numbers = np.zeros(shape, int)
    for number, mask in expected.items():
        numbers[mask] = number
    found = []
    for box, class_id, rle in zip(result["rois"].tolist(), result["class_ids"].tolist(), result["masks"], strict=True):
        crop, top, left = decode_crop(rle)
        counts = np.bincount(numbers[top : top + crop.shape[0], left : left + crop.shape[1]][crop])
        number = int(counts.argmax())
        assert number in expected, (box, number)
        shared, area = int(counts[number]), int(expected[number].sum())
        assert shared / (crop.sum() + area - shared) >= least, (box, number)
        assert class_id == 1 + number % 3
        found.append(number)
    assert sorted(found) == sorted(expected)


def scene():
    """Objects of every kind that tiles of 128 pixels with 26 in common make trouble for."""
    image = np.zeros((360, 500, 3), np.uint8)
    shapes = [
        (ellipse(90, 80), 10, 60),  # larger than what tiles have in common
        (ellipse(200, 260), 110, 200),  # larger than a tile, over many
        (np.ones((30, 30), bool), 100, 100),  # where four tiles meet
        (np.ones((20, 300), bool), 320, 90),  # long: over four tiles
        (np.ones((15, 300), bool), 340, 90),  # and its neighbor that touches it
        (ellipse(24, 24), 40, 150), (ellipse(24, 24), 40, 174), (ellipse(24, 24), 64, 162),  # that touch
        (np.ones((1, 1), bool), 0, 499), (np.ones((2, 3), bool), 355, 0),  # of a few pixels
        (np.ones((40, 4), bool), 5, 125), (np.ones((4, 40), bool), 125, 5),  # along borders of tiles
    ]  # fmt: skip
    hook = np.ones((100, 100), bool)
    hook[:70, 30:70] = False  # two legs, whose top lies in other tiles than what joins them
    shapes.append((hook, 130, 60))
    for number, (mask, top, left) in enumerate(shapes, start=1):
        paint(image, mask, number, top, left)
    return image


@pytest.mark.parametrize(("tile", "overlap"), [(128, 0.2), (128, 0.5), (100, 0.3), (200, 0.15), (512, 0.2)])
def test_objects_cut_by_a_border_come_out_whole_and_once(tile, overlap):
    image = scene()
    (result,) = detector().detect([image], masks="rle", tile=tile, overlap=overlap)
    matched(result, truth(image), least=1)
    whole = detector().detect([image], masks="rle")[0]
    matched(whole, truth(image), least=1)
    assert (np.diff(result["scores"]) <= 0).all()
    assert result["rois"].tolist() == [
        [top, left, top + crop.shape[0], left + crop.shape[1]] for crop, top, left in map(decode_crop, result["masks"])
    ]
    for name, dtype in (("rois", np.int32), ("class_ids", np.int32), ("scores", np.float32)):
        assert result[name].dtype == whole[name].dtype == dtype


@pytest.mark.parametrize("cell", [24, 60, 140])
def test_a_mosaic_of_known_truth(cell):
    image = mosaic((400, 560), cell, seed=cell)
    (result,) = detector().detect([image], masks="rle", tile=128, overlap=0.25)
    matched(result, truth(image))


@pytest.mark.parametrize("seed", range(12))
def test_objects_at_random(seed):
    """Ellipses, boxes, rings and hooks of 3 to 400 pixels, touching, in images and tiles of any size."""
    rng = np.random.default_rng(seed)
    image, number = np.zeros((*rng.integers(100, 500, 2), 3), np.uint8), 0
    for _ in range(60):
        height, width = np.minimum(rng.integers(3, rng.choice([12, 50, 150, 400]), 2), image.shape[:2]).tolist()
        top, left = (
            int(rng.integers(0, side - own + 1)) for side, own in zip(image.shape, (height, width), strict=False)
        )
        kind, rim = rng.integers(4), max(1, min(height, width) // 4)
        mask = ellipse(height, width) if kind % 2 else np.ones((height, width), bool)
        if kind == 2:
            mask[: height - rim, rim : width - rim] = False
        elif kind == 3 and min(height, width) > 8:
            mask[rim:-rim, rim:-rim] &= ~ellipse(height - 2 * rim, width - 2 * rim)
        mask &= ~image[top : top + height, left : left + width].any(axis=-1)
        if mask.sum() >= 6 and cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] == 2:
            number += 1
            paint(image, mask, number, top, left)
    tile, overlap = int(rng.choice([64, 96, 128, 200])), float(rng.choice([0.2, 0.3, 0.5]))
    (result,) = detector().detect([image], masks="rle", tile=tile, overlap=overlap)
    matched(result, truth(image))
    assert number > 3


def test_a_network_that_is_not_exact():
    """Masks a pixel too large or too small, and torn off up to four pixels before a border: nearly all come out."""
    kernel = np.ones((3, 3), np.uint8)

    def rough(mask, number, rng):
        mask = mask.astype(np.uint8)
        kind = rng.integers(3)
        mask = cv2.dilate(mask, kernel) if kind == 1 else cv2.erode(mask, kernel) if kind == 2 else mask
        torn = int(rng.integers(1, 5))
        for side in (mask[:torn], mask[-torn:], mask[:, :torn], mask[:, -torn:]):
            side[:] = 0
        return mask.astype(bool)

    image = np.pad(mosaic((480, 640), 40, seed=1), ((16, 16), (0, 0), (0, 0)))
    expected = truth(image)
    (result,) = detector(seen=rough, least=12).detect([image], masks="rle", tile=128, overlap=0.4)
    numbers = image.astype(int) @ [1, 256, 65536]
    found = []
    for crop, top, left in map(decode_crop, result["masks"]):
        counts = np.bincount(numbers[top : top + crop.shape[0], left : left + crop.shape[1]][crop], minlength=2)
        number = int(counts[1:].argmax()) + 1
        area = expected[number].sum()
        if counts[number] / (crop.sum() + area - counts[number]) > 0.6:
            found.append(number)
    assert len(expected) > 150 and len(result["masks"]) <= 1.03 * len(expected)
    assert len(found) == len(set(found)) and len(found) >= 0.95 * len(expected)


def test_an_image_without_objects():
    for shape in ((300, 200, 3), (300, 200), (40, 50, 3)):
        (result,) = detector().detect([np.zeros(shape, np.uint8)], tile=128)
        assert result["rois"].shape == (0, 4) and result["masks"].shape == (*shape[:2], 0)


def test_forms_of_masks_tell_the_same():
    image = scene()
    (expected,) = detector().detect([image], tile=128)
    assert expected["masks"].shape == (360, 500, len(expected["rois"])) and expected["masks"].dtype == bool
    (result,) = detector().detect([image], tile=128, masks="rle")
    for n, (crop, top, left) in enumerate(map(decode_crop, result["masks"])):
        pasted = np.zeros((360, 500), bool)
        pasted[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        np.testing.assert_array_equal(pasted, expected["masks"][:, :, n])
    (polygons,) = detector().detect([image], tile=128, masks="polygons")
    for n, outlines in enumerate(polygons["masks"]):
        drawn = cv2.fillPoly(np.zeros((360, 500), np.uint8), outlines, 1)
        np.testing.assert_array_equal(drawn.astype(bool), expected["masks"][:, :, n])
    (none,) = detector().detect([image], tile=128, masks="none")
    assert none.keys() == {"rois", "class_ids", "scores"}
    for one in (result, polygons, none):
        for name in ("rois", "class_ids", "scores"):
            np.testing.assert_array_equal(one[name], expected[name])


def test_what_the_detector_leaves_out_is_left_out_of_tiles():
    image = scene()
    strict = Detector(OracleEngine(scores={1: 0.4, 9: 0.6}), OracleConfig(), min_confidence=0.55)
    (result,) = strict.detect([image], tile=128, masks="rle")
    expected = truth(image)
    del expected[1]
    matched(result, expected, least=1)


def test_classes_give_way_to_each_other_where_the_detector_is_told_so():
    class TwoOpinions(OracleEngine):
        """Takes what lies at the left of what it is given for another class."""

        def run(self, molded, metas, anchors):
            found = super().run(molded, metas, anchors)
            for rows, _ in found:
                rows[rows[:, 1] < 0.5, 4] = 3
            return found

    image = np.zeros((128, 220, 3), np.uint8)
    paint(image, np.ones((20, 20), bool), 3, 50, 98)  # in the right half of one tile, the left half of the other
    for options, count in (({}, 2), ({"class_agnostic_nms": True}, 1)):
        (result,) = Detector(TwoOpinions(), OracleConfig(), **options).detect([image], tile=128, overlap=0.25)
        assert len(result["rois"]) == count
    config = OracleConfig.from_dict({**OracleConfig().to_dict(), "DETECTION_NMS_CLASS_AGNOSTIC": True})
    assert len(Detector(TwoOpinions(), config).detect([image], tile=128)[0]["rois"]) == 1


# Images and files


def test_images_are_read_window_by_window(tmp_path):
    image = mosaic((300, 400), 50)
    expected = detector().detect([image], masks="rle")[0]
    with h5py.File(tmp_path / "image.h5", "w") as file:
        stored = file.create_dataset("image", data=image, chunks=(64, 64, 3))
        (result,) = detector().detect([stored], masks="rle", tile=128)
    matched(result, truth(image))
    mapped = np.memmap(tmp_path / "image.raw", np.uint8, "w+", shape=image.shape)
    mapped[:] = image
    (result,) = detector().detect([mapped], masks="rle", tile=128)
    matched(result, truth(image))
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    results = list(detector().stream([tmp_path / "image.png", image], "rle", tile=128, with_images=True))
    for result in results:
        matched(result, truth(image))
        np.testing.assert_array_equal(result["image"], image)
    assert sorted(expected["class_ids"]) == sorted(results[0]["class_ids"])


def test_an_image_that_cannot_be_taken_is_named_at_its_place(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    good = mosaic((200, 200), 40)
    spoiled = good.astype(np.float32)
    spoiled[150, 150] = np.nan
    cases = [
        (tmp_path / "missing.png", FileNotFoundError, r"Image 1 of 2 \(.*missing\.png\): No such"),
        (tmp_path / "text.png", ValueError, r"Image 1 of 2 \(.*text\.png\)"),
        (np.zeros((200, 200, 5)), ValueError, "Image 1 of 2, tile 0 of 4: .*5 channels"),
        (spoiled, ValueError, "Image 1 of 2, tile [0-3] of 4: .*NaN"),
        (None, ValueError, "Image 1 of 2: An image must be"),
    ]
    for wrong, kind, message in cases:
        with pytest.raises(kind, match=message) as raised:
            detector().detect([good, wrong], tile=128)
        assert raised.value.__cause__ is not None
    wrong = [case[0] for case in cases]
    told = []
    results = list(detector().stream([good, *wrong, good], "rle", tile=128, on_error=lambda *one: told.append(one)))
    assert [result is None for result in results] == [False, *[True] * len(wrong), False]
    matched(results[-1], truth(good))
    assert [index for index, _, _ in told] == [1, 2, 3, 4, 5]
    assert all(given is one for (_, given, _), one in zip(told, wrong, strict=True))
    assert all(isinstance(error, case[1]) for (_, _, error), case in zip(told, cases, strict=True))


def test_an_engine_that_fails_is_not_the_images_fault():
    class Broken(OracleEngine):
        def run(self, molded, metas, anchors):
            raise RuntimeError("the accelerator is on fire")

    stream = Detector(Broken(), OracleConfig()).stream([scene()], tile=128, on_error=lambda *told: pytest.fail("told"))
    with pytest.raises(RuntimeError, match="on fire"):
        next(stream)


def test_tiles_are_told_of_and_go_through_in_batches():
    told, engine = [], OracleEngine()
    list(
        Detector(engine, OracleConfig()).stream([scene()] * 2, "none", tile=128, on_tile=lambda *one: told.append(one))
    )
    assert told == [(n, 20) for n in range(1, 21)] * 2 and engine.runs == 40


def test_a_bar_shows_how_far_it_is(capsys):
    detector().detect([scene()], verbose=1, masks="none", tile=128)
    printed = capsys.readouterr()
    assert "Processing 1 images" in printed.out and "Detecting" in printed.err and "/20 " in printed.err
    detector().detect([scene()], masks="none", tile=128)
    with tile_progress("Tiles") as on_tile:  # no terminal
        on_tile(1, 2)
    assert capsys.readouterr().err == ""


# Room


def test_masks_that_there_is_no_room_for_are_refused_before_anything_runs(monkeypatch):
    engine, closed = OracleEngine(), []
    monkeypatch.setattr("mrcnn.tiling.close_image", closed.append)
    image = np.broadcast_to(np.zeros(3, np.uint8), (10_000, 10_000, 3))
    with pytest.raises(ValueError, match=r"10000 x 10000 x 1000 are 100\.0 GB\. Use masks='rle'"):
        Detector(engine, OracleConfig()).detect([image], tile=1024)
    assert engine.runs == 0 and closed[0] is image


def test_masks_that_turn_out_to_be_too_many_are_refused(monkeypatch):
    monkeypatch.setattr("mrcnn.tiling._MOST_BYTES", 360 * 500 * 10)
    config = OracleConfig.from_dict({**OracleConfig().to_dict(), "DETECTION_MAX_INSTANCES": 5})
    with pytest.raises(ValueError, match=r"360 x 500 x 13 are 0\.0 GB"):
        Detector(OracleEngine(), config).detect([scene()], tile=128)
    assert len(Detector(OracleEngine(), config).detect([scene()], tile=128, masks="rle")[0]["rois"]) == 13


def test_tiles_that_are_full_are_told_of(caplog):
    for most, told in ((6, True), (1000, False)):
        caplog.clear()
        config = OracleConfig.from_dict({**OracleConfig().to_dict(), "DETECTION_MAX_INSTANCES": most})
        Detector(OracleEngine(), config).detect([scene()], masks="none", tile=128)
        assert ("of 20 tiles hold DETECTION_MAX_INSTANCES = 6 objects" in caplog.text) == told
        assert len(caplog.records) == told


def test_a_large_image_takes_the_memory_of_its_tiles():
    """25 million pixels, 625 objects: as booleans their masks would be 16 GB, and the image is 75 MB."""
    cell = np.zeros((200, 200, 3), np.uint8)
    cell[30:150, 20:140][ellipse(120, 120)] = (1, 0, 0)
    image = np.tile(cell, (25, 25, 1))
    columns = np.arange(5000) // 200
    image[..., 1] = np.where(image[..., 0] > 0, 1 + columns, 0)  # told apart from their neighbors
    image[..., 2] = np.where(image[..., 0] > 0, columns[:, None], 0)
    one_by_one = Detector(OracleEngine(), OracleConfig(), batch_size=1)
    tracemalloc.start()
    (result,) = one_by_one.detect([image], masks="rle", tile=1024, overlap=0.2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(result["rois"]) == 625
    assert all(rle["size"] == [5000, 5000] for rle in result["masks"])
    assert {int(decode_crop(rle)[0].sum()) for rle in result["masks"][:20]} == {int(ellipse(120, 120).sum())}
    print(f"peak {peak / 1e6:.0f} MB")
    assert peak < 160e6


@pytest.mark.parametrize(
    ("options", "message"),
    [({"tile": 10}, "tile must be a whole number"), ({"tile": 128, "overlap": 1}, "overlap is the share")],
)
def test_arguments_that_cannot_be(options, message):
    for call in (detector().detect, detector().stream):
        with pytest.raises(ValueError, match=message):
            call([], **options)
    assert Tiling(128, 0.2) == Tiling(side=128, overlap=0.2)
