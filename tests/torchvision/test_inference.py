"""Inference against torchvision itself, and against detectron2's networks put together of torchvision's operators: the
same random weights, the same photos, step by step."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mrcnn.inference import Detector
from tests.graph.cases import graph_bytes
from tests.torchvision import comparing
from tests.torchvision.conftest import KEPT, photos
from tests.torchvision.peer import CASES, DETECTRON2_CASES, KEPT_CASES

pytestmark = pytest.mark.backends

RELATIVE = 1e-4
BOX, SCORE, MASK = 0.05, 1e-4, 1e-3  # pixels, scores, share of pixels
OPENVINO_BOX, OPENVINO_SCORE = 0.1, 1e-3


class Replay:
    """An engine that gives what was computed already."""

    precision = "float32"

    def __init__(self, raw):
        self.raw = raw

    def run(self, molded, metas, anchors):
        return [self.raw]


@pytest.fixture(
    scope="module",
    params=[*KEPT, *(pytest.param(name, marks=pytest.mark.slow) for name in (*CASES, *DETECTRON2_CASES))],
)
def case(request):
    name = request.param
    folder = "kept" if name in KEPT_CASES else "recorded" if name in CASES else "recorded_detectron2"
    recorded = request.getfixturevalue(folder)
    config, network = comparing.build(recorded, name)
    pairs = [
        (photo, comparing.run(config, network, photo), comparing.recorded_of(recorded, name, index))
        for index, photo in enumerate(photos()[: {**CASES, **DETECTRON2_CASES}.get(name, (None, 1))[1]])
    ]
    return SimpleNamespace(name=name, config=config, network=network, pairs=pairs)


def test_images_are_molded_alike(case):
    for _, ours, theirs in case.pairs:
        assert ours.inputs[0].shape[1:] == theirs.molded.shape
        assert ours.inputs[1][0, 7:11].tolist() == [0, 0, *theirs.size]
        np.testing.assert_allclose(ours.inputs[0][0], theirs.molded, atol=2e-4)
        shape = np.tile(theirs.molded.shape[:2], 2)
        np.testing.assert_allclose(ours.inputs[2][0] * shape, theirs.anchors, atol=1e-3)


def test_features_and_outputs_of_the_rpn(case):
    for _, ours, theirs in case.pairs:
        errors = {
            name: comparing.relative(getattr(ours, name), getattr(theirs, name))
            for name in ("C2", "C3", "C4", "C5", "P2", "P3", "P4", "P5", "P6")
        }
        errors["objectness"] = comparing.relative(ours.objectness[0, :, 0], theirs.objectness)
        errors["deltas"] = comparing.relative(ours.deltas[0], theirs.deltas)
        print(errors)
        assert max(errors.values()) <= RELATIVE


def nearest(ours, theirs):
    """For each of their boxes, ours that is nearest, and how far it is."""
    distance = np.abs(theirs[:, None] - ours[None]).max(axis=-1)
    return distance.argmin(axis=1), distance.min(axis=1)


def test_proposals_and_heads(case):
    for _, ours, theirs in case.pairs:
        proposals = ours.proposals[0] * np.tile(theirs.molded.shape[:2], 2)
        count = int((proposals != 0).any(axis=1).sum())
        assert count == len(theirs.proposals) > 100
        match, distance = nearest(proposals[:count], theirs.proposals)
        print("proposals", distance.max())
        assert distance.max() <= BOX
        assert len(set(match.tolist())) == count
        errors = {
            name: comparing.relative(getattr(ours, name)[0][match], getattr(theirs, name))
            for name in ("pooled", "logits", "box_deltas")
        }
        print(errors)
        assert max(errors.values()) <= RELATIVE


def test_detections_and_masks_in_the_photo(case):
    for photo, ours, theirs in case.pairs:
        raw = comparing.real(ours)
        (result,) = Detector(Replay(raw), case.config).detect([photo])
        assert len(result["boxes"]) == len(theirs.boxes) > 20
        assert len(set(theirs.labels.tolist())) > 5
        order = match_detections(result, theirs)
        boxes = np.abs(result["boxes"][order] - theirs.boxes).max()
        scores = np.abs(result["scores"][order] - theirs.scores).max()
        masks = np.moveaxis(result["masks"], -1, 0)[order]
        expected = np.unpackbits(theirs.masks, axis=-1, count=photo.shape[1]).astype(bool)
        different = (masks != expected).mean(axis=(1, 2))
        print(f"boxes {boxes:.2g} scores {scores:.2g} masks {different.max():.2g}")
        assert boxes <= BOX
        assert scores <= SCORE
        assert expected.any(axis=(1, 2)).sum() > 20
        assert different.mean() <= MASK
        # torchvision cuts the borders of a mask's place to whole pixels: one that lies on a whole number to the
        # difference of the boxes may go either way.
        assert different[~on_the_brink(theirs.boxes)].max() <= MASK
        probabilities = 1 / (1 + np.exp(-theirs.mask_logits))
        np.testing.assert_allclose(comparing.as_kept(raw[1][order], probabilities), probabilities, atol=1e-3)


def test_openvino_finds_the_same(case):
    openvino_engine = pytest.importorskip("mrcnn.engines.openvino_engine")
    engine = openvino_engine.OpenVINOEngine(graph_bytes(case.network, case.config), "float32")
    detector = Detector(engine, case.config)
    for photo, _, theirs in case.pairs:
        (result,) = detector.detect([photo])
        assert len(result["boxes"]) == len(theirs.boxes)
        order = match_detections(result, theirs)
        boxes = np.abs(result["boxes"][order] - theirs.boxes).max()
        scores = np.abs(result["scores"][order] - theirs.scores).max()
        print(f"OpenVINO: boxes {boxes:.2g} scores {scores:.2g}")
        assert boxes <= OPENVINO_BOX
        assert scores <= OPENVINO_SCORE


def on_the_brink(boxes, cells=28):
    """Boxes [N, 4] that, enlarged by a cell on each side, end within BOX of a whole number of pixels."""
    center, reach = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * (cells + 2) / cells
    borders = np.concatenate([center - reach, center + reach], axis=1)
    return (np.abs(borders - np.round(borders)) <= BOX / 5).any(axis=1)


def match_detections(result, theirs):
    """For each of their detections the one of ours: of its class, nearest, and no other's."""
    distance = np.abs(theirs.boxes[:, None] - result["boxes"][None]).max(axis=-1)
    distance[theirs.labels[:, None] != result["class_ids"][None]] = np.inf
    order = distance.argmin(axis=1)
    assert len(set(order.tolist())) == len(order)
    return order
