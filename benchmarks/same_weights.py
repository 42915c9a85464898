"""torchvision's network with torchvision's weights, converted to ours: the same work on both sides.

The weights are those of `benchmarks.torchvision_peer`, which a candidate of torchvision's has to have made before; it
also leaves what it finds in the photo, and how much of that ours finds again is among the facts.

Letters: N and M detections.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.settle import SCORE_THRESHOLD
from benchmarks.torchvision_peer import found_file
from mrcnn.ops.boxes import compute_overlaps

# Boxes are of one object from this IoU on.
SAME = 0.9


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
        from mrcnn.weights.variables import model_layers

        conversion = converted(cache, photo)
        settings = config(conversion, photo.shape[0])
        network = build_network(settings, "inference")
        for layer, variables in model_layers(network).items():
            for weight, variable in variables.items():
                variable.assign(conversion.arrays[layer][weight])
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


def share_found(theirs: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """Of their detections, the share that ours has too: of the same class, and in the same place.

    Args:
        theirs: boxes [N, (x1, y1, x2, y2)] and labels [N].
        found: boxes [M, (y1, x1, y2, x2)] and labels [M].
    """
    if not len(theirs["boxes"]):
        return 1.0
    same_place = compute_overlaps(theirs["boxes"][:, [1, 0, 3, 2]], found["boxes"]) >= SAME
    same_class = np.asarray(theirs["labels"])[:, None] == np.asarray(found["labels"])
    return float((same_place & same_class).any(axis=1).mean())
