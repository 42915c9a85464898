"""Networks whose ONNX graph is compared with Keras: small ones, filled so that they find objects of several classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from mrcnn.agreement import Agreement, Tolerance, compare
from mrcnn.data.molding import mold_inputs
from mrcnn.graph.network import network_graph
from mrcnn.network import build_network
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import normalize_boxes
from tests import golden
from tests.running import call
from tests.shapes import ShapesConfig

# What float32 engines are held to, in pixels, scores and probabilities.
CLOSE = Tolerance(box=1e-3, score=1e-3, mask=1e-3)

BASE = {
    "DETECTION_MIN_CONFIDENCE": 0.0, "DETECTION_MAX_INSTANCES": 30, "IMAGE_RESIZE_MODE": "pad64",
    "IMAGE_MIN_DIM": None, "IMAGE_MAX_DIM": 512,
}  # fmt: skip


def config_of(**changes: Any) -> Any:
    return ShapesConfig.from_dict({**BASE, **changes})


def build(config: Any, sure: float = 0.1) -> Any:
    """A network whose scores spread from 0 to 1; with `sure` 1 nearly all of them are 1, and tie."""
    network = build_network(config, "inference")
    golden.fill(network)
    kernel = network.get_layer("mrcnn_class_logits").kernel
    kernel.assign(kernel * sure)
    return network


@cache
def small() -> tuple[Any, Any]:
    """ResNet-14, four classes."""
    config = config_of()
    return config, build(config)


def pictures(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> list[np.ndarray]:
    """Blocks of color with noise: something to see on every scale."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        blocks = rng.integers(0, 256, (-(-height // 16), -(-width // 16), channels))
        image = np.kron(blocks, np.ones((16, 16, 1)))[:height, :width] + rng.normal(0, 20, (height, width, channels))
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return images


def inputs(config: Any, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The network's inputs for images that mold to one size."""
    molded, metas, _ = mold_inputs(list(images), config)
    molded = np.asarray(molded, np.float32)
    anchors = normalize_boxes(pyramid_anchors(config, molded.shape[1:3]), molded.shape[1:3], config.BOX_GRID)
    return [molded, np.asarray(metas, np.float32), np.stack([anchors] * len(molded)).astype(np.float32)]


def keras_raw(network: Any, arrays: Sequence[np.ndarray]) -> list[Any]:
    """What the network itself finds: as an engine tells it."""
    detections, _, _, masks, *_ = call(network, list(arrays))
    results = []
    for rows, full in zip(detections, masks, strict=True):
        count = int((rows[:, 4] > 0).sum())
        classes = rows[:count, 4].astype(int)
        results.append((rows[:count], full[np.arange(count), :, :, classes]))
    return results


def graph_bytes(network: Any, config: Any) -> bytes:
    return network_graph(network, config).SerializeToString()


def check(expected: list[Any], found: list[Any], shape: Sequence[int], least: int = 1) -> list[Agreement]:
    """Assert that an engine finds in each image what Keras does. A detection may lie on a threshold, as one in twenty
    might, or end at the border, where a rounding error decides."""
    assert len(expected) == len(found)
    agreements = [compare(a, b, shape, CLOSE) for a, b in zip(expected, found, strict=True)]
    for agreement in agreements:
        print(agreement)
        assert agreement.agreeing >= least, agreement
        assert agreement.strays <= 1 + agreement.count // 20, agreement
    return agreements
