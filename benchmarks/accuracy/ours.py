"""Our side: a ResNet-50 from scratch for so many minutes, by way of `MaskRCNN.train`.

python -m benchmarks.accuracy.ours DATA.npz FOUND.npz --minutes 20
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.data import ANCHOR_SIDES, DETECTIONS, MIN_SCORE, Clock, masks_of, write_found

LEARNING_RATE = 5e-4  # the highest, of AdamW
WARMUP = 0.05  # of the time
# As torchvision has it. With Keras's 0.99 the statistics lag behind the weights of so short a training: after 68 steps
# mask AP was 0.28, and 0.47 with statistics that were taken anew.
BN_MOMENTUM = 0.9
LOG_EVERY = 20  # steps


class TimeIsUp(Exception):
    """Ends training; the network keeps its weights."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    arguments = parser.parse_args()
    data = dict(np.load(arguments.data))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.h5"
        train(data, arguments.minutes, arguments.precision, weights)
        found = detect(data["test_images"], weights)
    write_found(arguments.found, found)


def train(data: dict[str, np.ndarray], minutes: float, precision: str, weights: Path) -> None:
    """Train for so long, imports and compilation included, and save the weights."""
    clock = Clock(minutes)
    import keras

    from mrcnn import MaskRCNN
    from mrcnn.data.augmentation import Compose, Contrast, Flip, Rotate90

    class Schedule(keras.callbacks.Callback):
        """The learning rate by the time that has passed: up to its peak, then down along a cosine."""

        steps = 0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            share = clock.share
            rate = share / WARMUP if share < WARMUP else (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP))) / 2
            self.model.optimizer.learning_rate = LEARNING_RATE * max(rate, 0.01)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            if self.steps % LOG_EVERY == 0:
                losses = "  ".join(f"{name} {value:.3f}" for name, value in logs.items())
                print(f"step {self.steps}, {clock.passed:.0f} s  {losses}", flush=True)
            if clock.share == 1.0:
                raise TimeIsUp

    dataset = nuclei(data["train_images"], data["train_labels"])
    model = MaskRCNN("training", config("training", precision), weights.parent / "runs")
    for layer in model.keras_model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BN_MOMENTUM
    schedule = Schedule()
    try:
        model.train(
            dataset,
            None,
            LEARNING_RATE,
            epochs=10**6,
            layers="all",
            augmentation=Compose([Flip(horizontal=0.5, vertical=0.5), Rotate90(), Contrast(0.25)]),
            custom_callbacks=[schedule],
            verbose=0,
        )
    except TimeIsUp:
        print(f"{schedule.steps} steps in {clock.passed:.0f} s", flush=True)
    model.save_weights(weights)


def detect(images: np.ndarray, weights: Path) -> list[dict[str, np.ndarray]]:
    """What the trained network finds in grayscale images [F, H, W]."""
    from mrcnn import MaskRCNN

    model = MaskRCNN("inference", config("inference"), weights.parent)
    model.load_weights(weights)
    return [model.detect([np.repeat(image[..., None], 3, axis=2)])[0] for image in images]


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


def nuclei(images: np.ndarray, labels: np.ndarray) -> Any:
    """Images [F, H, W] with their label maps as a dataset."""
    from mrcnn.data.dataset import Dataset

    class Nuclei(Dataset):
        def load_image(self, image_id: int) -> np.ndarray:
            return np.repeat(images[image_id][..., None], 3, axis=2)

        def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
            masks = masks_of(labels[image_id])
            return np.moveaxis(masks, 0, -1), np.ones(len(masks), np.int32)

    dataset = Nuclei()
    dataset.add_class("hela", 1, "nucleus")
    for number in range(len(images)):
        dataset.add_image("hela", number, path=None)
    dataset.prepare()
    return dataset


if __name__ == "__main__":
    main()
