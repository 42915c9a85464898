"""What the benchmark of accuracy writes and reads between its processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import ours
from benchmarks.accuracy.data import Clock, Found, label_map, masks_of, write_found
from benchmarks.nuclei_training import nuclei


def test_label_maps_and_masks_are_each_others_inverse(rng):
    labels = np.zeros((9, 7), np.int16)
    labels[1:4, 1:3], labels[5:, 4:] = 1, 2
    masks = masks_of(labels)
    assert masks.shape == (2, 9, 7)
    np.testing.assert_array_equal(label_map(np.moveaxis(masks, 0, -1)), labels)
    assert masks_of(np.zeros((9, 7), np.int16)).shape == (0, 9, 7)


def test_results_come_back_as_they_were_in_their_order(rng, tmp_path):
    found = [
        {
            "rois": rng.integers(0, 9, (count, 4)).astype(np.int32),
            "scores": rng.random(count).astype(np.float32),
            "masks": rng.random((7, 5, count)) < 0.5,
        }
        for count in (3, 0, 2)
    ]
    write_found(tmp_path / "found.npz", found)
    reader = Found(tmp_path / "found.npz")
    for known, result in zip(found, reader.detect([None]) + reader.detect([None, None]), strict=True):
        for name, array in known.items():
            np.testing.assert_array_equal(result[name], array)
        assert result["class_ids"].tolist() == [1] * len(known["rois"])


def test_our_dataset_holds_the_images_and_their_nuclei(rng):
    images = rng.integers(0, 255, (2, 64, 64), np.uint8)
    labels = np.zeros((2, 64, 64), np.int16)
    labels[1, 3:20, 5:9], labels[1, 30:40, 30:50] = 1, 2
    dataset = nuclei(images, labels)
    assert dataset.num_images == 2
    np.testing.assert_array_equal(dataset.load_image(1), np.repeat(images[1][..., None], 3, axis=2))
    masks, class_ids = dataset.load_mask(1)
    assert class_ids.tolist() == [1, 1]
    np.testing.assert_array_equal(label_map(masks), labels[1])
    assert dataset.load_mask(0)[0].shape == (64, 64, 0)


def test_the_two_networks_are_of_one_size():
    for settings in (ours.config("training"), ours.config("inference")):
        assert (settings.BACKBONE, settings.TOP_DOWN_PYRAMID_SIZE, settings.RPN_CONV_SIZE) == ("resnet50", 256, 256)
    assert ours.config("training", "bfloat16").PRECISION == "mixed_bfloat16"


def test_the_clock_ends_at_one():
    clock = Clock(1e-6)
    while clock.passed < 60e-6:
        pass
    assert clock.share == 1.0
    assert 0 <= Clock(60).share < 0.5
    steps = Clock(steps=2)
    for share in (0.0, 0.5, 1.0, 1.0):
        assert steps.share == share
        steps.step()


def test_a_side_that_is_run_alone_keeps_the_other(tmp_path):
    path = tmp_path / "results.json"
    setting = {"machine": {"cores": 2}, "minutes": 20, "precision": "bfloat16"}
    assert accuracy.known_results(path, setting) == {}
    path.write_text(json.dumps({**setting, "results": {"ours": {"mask": {"ap": 0.5}}}}))
    assert accuracy.known_results(path, setting) == {"ours": {"mask": {"ap": 0.5}}}
    assert accuracy.known_results(path, {**setting, "minutes": 10}) == {}


def test_a_side_that_fails_is_told_of_with_its_log(tmp_path, capsys):
    log = tmp_path / "side.log"
    accuracy.run([sys.executable, "-c", "print('step 20')"], log)
    assert log.read_text() == "step 20\n"
    with pytest.raises(RuntimeError, match=r"exit status 3: see .*side\.log"):
        accuracy.run([sys.executable, "-c", "print('so far'); raise SystemExit(3)"], log)
    assert log.read_text() == "so far\n"
    assert "  so far\n" in capsys.readouterr().out


def test_the_peers_side_needs_none_of_ours():
    program = "import sys, benchmarks.accuracy.reference; print([m for m in sys.modules if m.split('.')[0] == 'mrcnn'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_kept_run_is_of_both_sides_and_ours_is_no_less_accurate():
    folder = Path(accuracy.__file__).parent / "results"
    kept = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (kept["minutes"], list(kept["results"])) == (20, list(accuracy.SIDES))
    ours, theirs = (kept["results"][side]["mask"]["ap"] for side in accuracy.SIDES)
    assert ours >= theirs > 0
    page = (Path(accuracy.__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    assert f"| **ours** | **{ours:.3f}** |" in page and f"| torchvision | {theirs:.3f} |" in page
    for side, result in kept["results"].items():
        log = (folder / f"{side}.log").read_text(encoding="utf-8")
        steps, seconds = map(int, re.search(r"^(\d+) steps in (\d+) s$", log, re.MULTILINE).groups())
        assert 1200 <= seconds < 1215
        assert f"| {steps} of " in page
        assert result["annotation_count"] == 1545
