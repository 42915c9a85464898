"""torchvision's network with its own weights: what is compared, and with which configuration."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import same_weights
from benchmarks.candidates import CANDIDATES
from benchmarks.same_weights import share_found
from benchmarks.tables import RESULTS
from mrcnn.weights.conversion import Conversion


def test_what_is_found_again_is_of_the_same_class_in_the_same_place():
    theirs = {"boxes": np.array([[0, 0, 10, 20], [5, 5, 9, 9], [30, 0, 40, 10]], np.float32), "labels": [1, 2, 2]}
    same = {"boxes": np.array([[0, 0, 20, 10], [5, 5, 9, 9]]), "labels": np.array([1, 1])}
    assert share_found(theirs, same) == pytest.approx(1 / 3)  # the second is of another class, the third is not there
    assert share_found({"boxes": np.zeros((0, 4)), "labels": []}, same) == 1.0
    assert share_found(theirs, {"boxes": np.zeros((0, 4)), "labels": np.zeros(0)}) == 0.0
    nearly = {"boxes": np.array([[0, 0, 20, 11.5]]), "labels": np.array([1])}
    assert share_found(theirs, nearly) == 0.0


def test_the_configuration_is_that_of_the_peers_network():
    conversion = Conversion(
        fields={"BACKBONE": "resnet101", "NUM_CLASSES": 81, "RPN_CONV_SIZE": 256}, preset="torchvision_v1"
    )
    config = same_weights.config(conversion, 1024)
    assert (config.NORM_EPSILON, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM) == (1e-5, 1024, 1024)
    assert (config.POST_NMS_ROIS_INFERENCE, config.DETECTION_MAX_INSTANCES) == (1000, 100)
    assert (config.DETECTION_MIN_CONFIDENCE, config.ROI_ALIGN) == (0.05, "unaligned")


def test_weights_that_were_not_made_are_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="name a candidate of torchvision's before"):
        same_weights.converted(tmp_path, np.zeros((64, 64, 3), np.uint8))
    names = [candidate.name for candidate in CANDIDATES]
    assert names.index("torchvision-f32") < names.index("ours-torchvision-openvino-f32")


def test_what_was_measured_was_the_same_work():
    """In float32 ours finds what torchvision finds; all find as many."""
    measured = json.loads((RESULTS / "same-weights.json").read_text(encoding="utf-8"))["results"]
    assert all(result["detections"] == [100] and not result["disturbed_runs"] for result in measured)
    again = {result["name"]: result["facts"].get("found_again") for result in measured}
    assert again["ours-torchvision-openvino-f32"] == 1.0
