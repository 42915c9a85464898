"""The network that the package ships, on drawn nuclei: small, and sure of what it finds, as random weights are not."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import cv2
import numpy as np

from mrcnn.data.molding import mold_inputs
from mrcnn.nuclei import NucleiInferenceConfig
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import normalize_boxes


@cache
def nuclei_network(min_confidence: float = 0.5) -> tuple[Any, Any]:
    """Its configuration, and the inference network."""
    from mrcnn import weights
    from mrcnn.network import build_network

    config = NucleiInferenceConfig.from_dict({"DETECTION_MIN_CONFIDENCE": min_confidence})
    model = build_network(config, "inference")
    weights.load_weights(model, str(resources.files("mrcnn") / "assets" / "nuclei.h5"))
    return config, model


def nuclei_picture(count: int, seed: int = 0, size: int = 192) -> np.ndarray:
    """A square gray image [size, size, 3] of `count` bright ellipses on dark ground."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 8, np.float32)
    cells = rng.permutation((size // 48) ** 2)[:count]  # one to a cell of a grid, so that none touch
    for y, x in zip(*divmod(cells, size // 48), strict=True):
        center = (int(48 * x + rng.integers(20, 28)), int(48 * y + rng.integers(20, 28)))
        axes = (int(rng.integers(11, 19)), int(rng.integers(11, 19)))
        cv2.ellipse(image, center, axes, int(rng.integers(180)), 0, 360, int(rng.integers(90, 180)), -1)
    image = cv2.GaussianBlur(image, (0, 0), 1.5) + rng.normal(0, 4, image.shape)
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def network_inputs(config: Any, images: Any) -> list[np.ndarray]:
    """Molded images [B, h, w, 3], metas [B, 12 + K] and anchors [B, A, 4] of images of one size."""
    molded, metas, _ = mold_inputs(list(images), config)
    molded = np.asarray(molded, np.float32)
    shape = molded.shape[1:3]
    anchors = normalize_boxes(pyramid_anchors(config, shape), shape)
    return [molded, np.asarray(metas, np.float32), np.stack([anchors] * len(molded))]


def in_order(detections: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image's real detections [N, 6] and what belongs to them, by place: of scores so near to 1 any may be first."""
    real = np.flatnonzero(detections[:, 4] > 0)
    order = real[np.lexsort(np.round(detections[real, 1::-1] * 32).T)]
    return detections[order], masks[order]
