"""A large dataset is held small, whichever form its masks come in. `benchmarks/mask_memory.py` measures all of it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from benchmarks.mask_memory import KINDS, blobs, write
from mrcnn.data.formats import load_dataset
from mrcnn.data.segmentations import decode_segmentation

IMAGES, INSTANCES = 10_000, 100


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_images_of_a_hundred_instances_in_two_gigabytes(tmp_path, kind):
    images = 3 if kind == "labels" else 20
    path = write(tmp_path, kind, images, INSTANCES, 1024)
    load_dataset(path)  # what is imported and kept once
    tracemalloc.start()
    try:
        dataset = load_dataset(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    count = sum(len(info["annotations"]) for info in dataset.image_info)
    assert dataset.num_images == images and count > 0.8 * images * INSTANCES
    assert held / count * IMAGES * INSTANCES < 1.8e9
    if kind != "labels":  # there the peak is one image's, however many there are
        assert peak / count * IMAGES * INSTANCES < 2e9
    masks, _ = dataset.load_mask(0)
    assert masks.shape[:2] == (1024, 1024) and masks.any(axis=(0, 1)).all()


def test_the_blobs_of_the_benchmark_are_blobs():
    polygons, runs = blobs(1024)
    for polygon, rle in list(zip(polygons, runs, strict=True))[:10]:
        drawn, encoded = decode_segmentation([polygon], 1024, 1024), decode_segmentation(rle, 1024, 1024)
        assert 300 < encoded.sum() < 40_000 and (drawn & encoded).sum() > 0.9 * (drawn | encoded).sum()
    assert len({tuple(np.round(polygon)) for polygon in polygons}) > 400
