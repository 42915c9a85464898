"""A Mask R-CNN that is built and run in a second, and what goes into it."""

from __future__ import annotations

import numpy as np

from mrcnn.data.image_meta import ImageMeta
from tests.shapes import ShapesConfig


class SmallConfig(ShapesConfig):
    IMAGES_PER_GPU = 2
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
    DETECTION_MIN_CONFIDENCE = 0


def images(rng, count=2):
    return [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(count)]


def empty_batch(network, rng, active=((1, 1, 1, 1), (1, 1, 1, 1))):
    """Training inputs of two images without objects, whose sources know the `active` classes."""
    metas = [ImageMeta(0, (64, 64, 3), (64, 64, 3), (0, 0, 64, 64), 1.0, classes).to_array() for classes in active]
    arrays = {"input_image": rng.normal(0, 60, (2, 64, 64, 3)), "input_image_meta": np.stack(metas)}
    return [
        arrays.get(tensor.name, np.zeros((2, *(side or 1023 for side in tensor.shape[1:])))).astype(tensor.dtype)
        for tensor in network.inputs
    ]
