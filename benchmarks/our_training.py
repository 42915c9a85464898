"""A training step of ours with ResNet-50, by way of `MaskRCNN` and its compiled training network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scene import NUM_CLASSES, POSITIVES, PROPOSALS, ROIS, RPN_WIDTH, Scene, scenes


class OurTrainer:
    """The photo in, a step of gradient descent done, its losses out.

    Args:
        cache: folder for the run's directories, which stay empty.
        photo: [side, side, 3] uint8; the network works at this size.
        precision: "float32" or "bfloat16" (mixed).
        options: fields of the configuration that differ.
    """

    def __init__(self, cache: Path, photo: np.ndarray, precision: str, **options: Any) -> None:
        import keras

        from mrcnn.model import MaskRCNN

        keras.utils.set_random_seed(0)
        settings = config(photo.shape[0], precision, **options)
        self._model = MaskRCNN("training", settings, cache)
        network = self._model.keras_model
        calm(network)
        self._model.set_trainable(".*", verbose=0)
        self._model.compile(1e-5, 0.9)
        batch = batch_of(scenes(photo), settings)
        self._batch = tuple(batch[tensor.name] for tensor in network.inputs)
        self._network = network
        self(photo)
        self.facts = {
            "trains": True,
            "versions": _versions(),
            "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "rois": len(self._batch[0]) * settings.TRAIN_ROIS_PER_IMAGE,
            "mask_rois": len(self._batch[0])
            * (POSITIVES if settings.MASK_HEAD_POSITIVES_ONLY else settings.TRAIN_ROIS_PER_IMAGE),
        }

    def __call__(self, photo: np.ndarray) -> dict[str, float]:
        logs = self._network.train_on_batch(self._batch, return_dict=True)
        return {name: float(value) for name, value in logs.items()}


def config(side: int, precision: str = "float32", **options: Any) -> Any:
    """The configuration, its counts those of `benchmarks.scene`."""
    from mrcnn import Config

    class BenchmarkConfig(Config):
        NAME = "benchmark"
        BACKBONE = "resnet50"
        NUM_CLASSES = NUM_CLASSES
        IMAGES_PER_GPU = 2
        IMAGE_MIN_DIM = side
        IMAGE_MAX_DIM = side
        TRAIN_ROIS_PER_IMAGE = ROIS
        ROI_POSITIVE_RATIO = (POSITIVES + 0.5) / ROIS
        RPN_CONV_SIZE = RPN_WIDTH
        POST_NMS_ROIS_TRAINING = PROPOSALS
        MASK_HEAD_POSITIVES_ONLY = True

    if precision == "bfloat16":
        options["PRECISION"] = "mixed_bfloat16"
    return BenchmarkConfig.from_dict(options)


def calm(network: Any) -> None:
    """Random weights let a residual network's numbers grow from block to block, and its statistics are frozen."""
    for layer in network.layers:
        if layer.name.startswith("bn") and layer.name.endswith("branch2c"):
            layer.gamma.assign(0.2 * np.ones(layer.gamma.shape))
    deltas = network.get_layer("rpn_model").get_layer("rpn_bbox_pred")
    deltas.kernel.assign(np.random.default_rng(0).normal(size=deltas.kernel.shape, scale=0.001))


def batch_of(images: list[Scene], settings: Any) -> dict[str, np.ndarray]:
    """The scenes as a batch of the network's, molded as the loader does it."""
    from mrcnn.data.batches import BatchLoader
    from mrcnn.data.dataset import Dataset

    class Scenes(Dataset):
        def load_image(self, image_id: int) -> np.ndarray:
            return images[image_id].image

        def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
            return np.moveaxis(images[image_id].masks, 0, -1), images[image_id].labels.astype(np.int32)

    dataset = Scenes()
    for label in range(1, NUM_CLASSES):
        dataset.add_class("scene", label, str(label))
    for number, scene in enumerate(images):
        dataset.add_image("scene", number, path=None, height=scene.image.shape[0], width=scene.image.shape[1])
    dataset.prepare()
    with BatchLoader(dataset, settings, shuffle=False) as loader:
        return next(loader)


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {package: metadata.version(package) for package in ("keras-mask-rcnn", "keras", "tensorflow")}
