"""A network trained from scratch on nuclei for so long, by way of `MaskRCNN.train`, and what it finds.

Letters: F images, H, W sides of an image.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.data import Clock, masks_of

WARMUP = 0.05  # of the time
# As torchvision has it. With Keras's 0.99 the statistics lag behind the weights of so short a training: after 68 steps
# of a ResNet-50 mask AP was 0.28, and 0.47 with statistics that were taken anew.
BN_MOMENTUM = 0.9
LOG_EVERY = 20  # steps


class TimeIsUp(Exception):
    """Ends training; the network keeps its weights."""


def train(data: dict[str, np.ndarray], config: Any, learning_rate: float, clock: Clock, weights: Path) -> float:
    """Train until the time is up, and save the weights.

    Args:
        data: see `benchmarks.accuracy.data.write_data`.
        config: the `Config`.
        learning_rate: the highest. It goes up to that, then down along a cosine.
        clock: how long; where that is a time, imports and compilation are in it. It counts the steps.
        weights: where to.

    Returns:
        Processor time of a step in seconds, without the first ones, in which the step is compiled.
    """
    import keras

    from mrcnn import MaskRCNN
    from mrcnn.data.augmentation import Compose, Contrast, Flip, Rotate90

    class Schedule(keras.callbacks.Callback):
        """The learning rate by what has passed."""

        compiled = 0.0  # processor time up to the first log

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            share = clock.share
            rate = share / WARMUP if share < WARMUP else (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP))) / 2
            self.model.optimizer.learning_rate = learning_rate * max(rate, 0.01)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            clock.step()
            if clock.steps == LOG_EVERY:
                self.compiled = time.process_time()
            if clock.steps % LOG_EVERY == 0:
                losses = "  ".join(f"{name} {value:.3f}" for name, value in logs.items())
                print(f"step {clock.steps}, {clock.passed:.0f} s  {losses}", flush=True)
            if clock.share == 1.0:
                raise TimeIsUp

    dataset = nuclei(data["train_images"], data["train_labels"])
    model = MaskRCNN("training", config, weights.parent / "runs")
    for layer in model.keras_model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BN_MOMENTUM
    schedule = Schedule()
    try:
        model.train(
            dataset,
            None,
            learning_rate,
            epochs=10**6,
            layers="all",
            augmentation=Compose([Flip(horizontal=0.5, vertical=0.5), Rotate90(), Contrast(0.25)]),
            custom_callbacks=[schedule],
            verbose=0,
        )
    except TimeIsUp:
        print(f"{clock.steps} steps in {clock.passed:.0f} s", flush=True)
    spent = (time.process_time() - schedule.compiled) / max(clock.steps - LOG_EVERY, 1)
    model.save_weights(weights)
    return spent


def detect(images: np.ndarray, config: Any, weights: Path, kept: Path | None = None) -> list[dict[str, np.ndarray]]:
    """What a trained network finds in grayscale images [F, H, W].

    Args:
        images: the images.
        config: of inference.
        weights: as `train` has saved them.
        kept: a file for the weights with this configuration, such as `mrcnn detect` reads.
    """
    from mrcnn import MaskRCNN

    model = MaskRCNN("inference", config, weights.parent)
    model.load_weights(weights)
    if kept is not None:
        model.save_weights(kept)
    return [model.detect([np.repeat(image[..., None], 3, axis=2)])[0] for image in images]


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
