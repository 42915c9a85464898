"""Tiles and mirror images with the network that the package ships."""

from __future__ import annotations

from functools import cache

import numpy as np

from mrcnn.inference import Detector
from tests.nuclei_network import nuclei_network, nuclei_picture


@cache
def network():
    from mrcnn.engines.keras_engine import KerasEngine

    config, model = nuclei_network()
    return KerasEngine(model, config), config


def same_objects(found, expected, least):
    """Assert that these are the same objects, one for one, with masks of this IoU at least."""
    assert len(found["rois"]) == len(expected["rois"])
    one, other = (result["masks"].reshape(-1, len(result["rois"])).astype(np.float32) for result in (found, expected))
    shared = one.T @ other
    overlaps = shared / (one.sum(axis=0)[:, None] + other.sum(axis=0) - shared)
    assert sorted(overlaps.argmax(axis=1)) == list(range(len(other.T)))
    assert overlaps.max(axis=1).min() >= least
    return overlaps.max(axis=1)


def test_tiles_find_what_the_whole_image_holds():
    image = nuclei_picture(50, seed=4, size=384)
    detector = Detector(*network(), min_confidence=0.9)
    (whole,) = detector.detect([image])
    assert len(whole["rois"]) == 50
    for tile, overlap in ((192, 0.3), (256, 0.25)):
        (tiled,) = detector.detect([image], tile=tile, overlap=overlap)
        same_objects(tiled, whole, 0.8)


def test_mirror_images_find_what_the_image_holds():
    image = nuclei_picture(12, seed=5)
    (plain,) = Detector(*network(), min_confidence=0.8).detect([image])
    assert len(plain["rois"]) == 12
    (both,) = Detector(*network(), min_confidence=0.8, flips=("horizontal", "vertical", "both")).detect([image])
    agreement = same_objects(both, plain, 0.8)
    assert agreement.mean() < 1  # other views tell something else
