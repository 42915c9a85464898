"""torchvision's network with torchvision's weights, converted to ours: the same work on both sides.

The weights are those of `benchmarks.torchvision_peer`, which a candidate of torchvision's has to have made before; it
also leaves what it finds in the photo, and how much of that ours finds again is among the facts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.found import found_file, share_found
from benchmarks.settle import SCORE_THRESHOLD


class SameWeightsDetector(ours.OurDetector):
    """See `benchmarks.ours.OurDetector`; of the engines those that run an exported model."""

    def __init__(self, cache: Path, photo: np.ndarray, engine: str, precision: str, weights: str) -> None:
        import mrcnn

        self._detector = mrcnn.Detector(exported(cache, photo, engine, precision), engine=engine, precision=precision)
        found, theirs = self(photo), dict(np.load(found_file(cache, photo)))
        self.facts = {
            "versions": ours.versions(engine),
            "device": self._detector.engine.device,
            "proposals": ours.PROPOSALS,  # torchvision finds so many, with these weights
            "pastes_masks": True,
            "found_again": share_found(theirs, found),
        }

    @staticmethod
    def prepare(cache: Path, photo: np.ndarray, engine: str, precision: str, weights: str) -> None:
        """Convert the weights and export the network.

        Raises:
            FileNotFoundError: torchvision's weights have not been made.
        """
        folder = exported(cache, photo, engine, precision)
        if folder.exists():
            return
        from mrcnn.network import build_network

        conversion = converted(cache, photo)
        settings = config(conversion, photo.shape[0])
        network = build_network(settings, "inference")
        for layer, arrays in conversion.arrays.items():
            found = _layer(network, layer)
            for weight, array in arrays.items():
                getattr(found, weight).assign(array)
        ours.write_model(folder, network, settings, photo, engine, precision)


def converted(cache: Path, photo: np.ndarray) -> Any:
    """torchvision's weights as ours."""
    from mrcnn.weights.recognition import convert_file

    path = cache / f"torchvision_r101_{photo.shape[0]}.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: name a candidate of torchvision's before this one.")
    return convert_file(path)


def config(conversion: Any, side: int) -> Any:
    """The configuration of torchvision's network as `benchmarks.torchvision_peer.build` makes it."""
    from mrcnn import Config

    return getattr(Config, conversion.preset)().from_dict(
        {
            **conversion.fields,
            "NORM_EPSILON": 1e-5,  # only the released weights have none
            "IMAGES_PER_GPU": 1,
            "IMAGE_MIN_DIM": side,
            "IMAGE_MAX_DIM": side,
            "POST_NMS_ROIS_INFERENCE": ours.PROPOSALS,
            "DETECTION_MIN_CONFIDENCE": SCORE_THRESHOLD,
        }
    )


def exported(cache: Path, photo: np.ndarray, engine: str, precision: str) -> Path:
    """Folder of the exported model."""
    return cache / f"same_r101_{photo.shape[0]}_{engine}_{precision}"


def _layer(network: Any, name: str) -> Any:
    """A layer of a network, or of a model within it."""
    for layer in network.layers:
        if layer.name == name:
            return layer
        if hasattr(layer, "layers") and name in {inner.name for inner in layer.layers}:
            return layer.get_layer(name)
    raise ValueError(f"No layer is called {name}.")
