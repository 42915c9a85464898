"""Our side: a ResNet-50 from scratch for so many minutes, by way of `MaskRCNN.train`.

python -m benchmarks.accuracy.ours DATA.npz FOUND.npz --minutes 20
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.data import ANCHOR_SIDES, DETECTIONS, MIN_SCORE, Clock, write_found
from benchmarks.nuclei_training import detect, train

LEARNING_RATE = 5e-4  # the highest, of AdamW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    arguments = parser.parse_args()
    clock = Clock(arguments.minutes)
    data = dict(np.load(arguments.data))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.h5"
        train(data, config("training", arguments.precision), LEARNING_RATE, clock, weights)
        found = detect(data["test_images"], config("inference"), weights)
    write_found(arguments.found, found)


def config(mode: str, precision: str = "float32") -> Any:
    """The demo's configuration with a ResNet-50 and the full widths, which are torchvision's too."""
    from mrcnn.nuclei import NucleiConfig, NucleiInferenceConfig

    options = {
        "BACKBONE": "resnet50",
        "TOP_DOWN_PYRAMID_SIZE": 256,
        "RPN_CONV_SIZE": 256,
        "FPN_CLASSIF_FC_LAYERS_SIZE": 1024,
        "MASK_CONV_SIZE": 256,
        "RPN_ANCHOR_SCALES": ANCHOR_SIDES,
        # A whole image has 77 nuclei: of the demo's 1000 best anchors, some get none while training is short.
        "PRE_NMS_LIMIT": 6000,
        "DETECTION_MAX_INSTANCES": DETECTIONS,
        "POST_NMS_ROIS_INFERENCE": 1000,
        "DETECTION_MIN_CONFIDENCE": MIN_SCORE,
        "OPTIMIZER": "AdamW",
        "WEIGHT_DECAY": 0.05,
        # Half the operations of a step would be the mask head's with 64 ROIs, half of them positive.
        "TRAIN_ROIS_PER_IMAGE": 32,
        "ROI_POSITIVE_RATIO": 0.34,
        "STEPS_PER_EPOCH": 200,
        "VALIDATION_STEPS": 0,
    }
    if mode == "training":
        return NucleiConfig.from_dict(
            {**options, "PRECISION": "mixed_bfloat16" if precision == "bfloat16" else "float32"}
        )
    return NucleiInferenceConfig.from_dict(options)


if __name__ == "__main__":
    main()
