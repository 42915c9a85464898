"""Our network with ResNet-101, its engines and precisions, by way of `mrcnn.Detector`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.settle import SCORE_THRESHOLD, decisive

NUM_CLASSES = 81
PROPOSALS = 1000


class OurDetector:
    """uint8 photo in; boxes, labels, scores and boolean masks out.

    Args:
        cache: folder of the weights and of the exported models.
        photo: [side, side, 3] uint8; the network works at this size.
        engine, precision: of `mrcnn.Detector`. Keras runs the model, the other engines an exported one.
    """

    def __init__(self, cache: Path, photo: np.ndarray, engine: str, precision: str) -> None:
        import mrcnn

        source = model(cache, photo) if engine == "keras" else exported(cache, photo, engine, precision)
        self._detector = mrcnn.Detector(source, engine=engine, precision=precision)
        self.facts = {
            "versions": versions(engine),
            "device": self._detector.engine.device,
            "proposals": PROPOSALS,  # `make_weights` has seen to it
            "pastes_masks": True,
        }

    @staticmethod
    def prepare(cache: Path, photo: np.ndarray, engine: str, precision: str) -> None:
        """Make the weights and the exported model."""
        if engine == "keras":
            make_weights(cache, photo)
        else:
            export(cache, photo, engine, precision)

    def __call__(self, photo: np.ndarray) -> dict[str, np.ndarray]:
        (found,) = self._detector.detect([photo])
        return {
            "boxes": found["rois"],
            "labels": found["class_ids"],
            "scores": found["scores"],
            "masks": np.moveaxis(found["masks"], -1, 0),
        }


def config(side: int, train_bn: bool = False) -> Any:
    """The configuration: the original's for COCO, batch size 1, and the peers' threshold of scores."""
    from mrcnn import Config

    class BenchmarkConfig(Config):
        NAME = "benchmark"
        BACKBONE = "resnet101"
        NUM_CLASSES = NUM_CLASSES
        IMAGES_PER_GPU = 1
        IMAGE_MIN_DIM = side
        IMAGE_MAX_DIM = side
        DETECTION_MIN_CONFIDENCE = SCORE_THRESHOLD
        TRAIN_BN = train_bn

    return BenchmarkConfig()


def weights_file(cache: Path, side: int) -> Path:
    """Path of the weights; `make_weights` makes them."""
    return cache / f"ours_r101_{side}.weights.h5"


def model(cache: Path, photo: np.ndarray) -> Any:
    """The `MaskRCNN` with the weights of the cache folder."""
    from mrcnn.model import MaskRCNN

    network = MaskRCNN("inference", config(photo.shape[0]), cache)
    network.load_weights(weights_file(cache, photo.shape[0]))
    return network


def make_weights(cache: Path, photo: np.ndarray) -> None:
    """Make the weights, if they are not there: random ones, settled (see `benchmarks.settle`).

    Raises:
        ValueError: with these weights the photo gives fewer proposals than are to be measured.
    """
    path = weights_file(cache, photo.shape[0])
    if path.exists():
        return
    import keras

    from mrcnn.model import MaskRCNN

    keras.utils.set_random_seed(0)
    # Batch statistics, kept as they are for the stored ones.
    network = MaskRCNN("inference", config(photo.shape[0], train_bn=True), cache)
    proposals = settle(network, photo)
    if proposals != PROPOSALS:
        raise ValueError(f"The random network makes {proposals} proposals of this photo, not {PROPOSALS}.")
    cache.mkdir(parents=True, exist_ok=True)
    network.save_weights(path)


def settle(network: Any, photo: np.ndarray) -> int:
    """See `benchmarks.settle`. `network` is a `MaskRCNN` with TRAIN_BN True. Returns the number of its proposals."""
    import keras

    for layer in network.keras_model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    logits_layer = network.keras_model.get_layer("mrcnn_class_logits")
    probe = keras.Model(network.keras_model.inputs, [logits_layer.output, network.keras_model.outputs[4]])
    molded, metas, _ = network.mold_inputs([photo])
    anchors = network.get_anchors(molded.shape[1:])[None]
    inputs = [keras.ops.convert_to_tensor(np.asarray(array, np.float32)) for array in (molded, metas, anchors)]
    logits, rois = (keras.ops.convert_to_numpy(output)[0] for output in probe(inputs))
    logits_layer.set_weights(decisive(*logits_layer.get_weights(), logits))
    return int((rois != 0).any(axis=1).sum())


def exported(cache: Path, photo: np.ndarray, engine: str, precision: str) -> Path:
    """Folder of the exported model; `export` makes it."""
    return cache / f"ours_r101_{photo.shape[0]}_{engine}_{precision}"


def export(cache: Path, photo: np.ndarray, engine: str, precision: str) -> None:
    """Export our network for an engine, if that is not done; int8 is calibrated on the photo, turned four ways.

    Unlike `mrcnn export`, this compares no results: random weights magnify any rounding until boxes are others.
    """
    folder = exported(cache, photo, engine, precision)
    if folder.exists():
        return
    make_weights(cache, photo)
    network = model(cache, photo)
    write_model(folder, network.keras_model, network.config, photo, engine, precision)


def write_model(folder: Path, network: Any, config: Any, photo: np.ndarray, engine: str, precision: str) -> None:
    """Export a network as `export` does.

    Args:
        folder: where to; it is not there yet.
        network: of `build_network`, in mode "inference".
        config: its configuration.
        photo, engine, precision: as for `OurDetector`.
    """
    from mrcnn.bundle import write_bundle
    from mrcnn.data.molding import network_inputs
    from mrcnn.exporters import Job, exporter_of

    format = "onnx" if engine == "onnxruntime" else engine
    calibration = [np.ascontiguousarray(np.rot90(photo, turns)) for turns in range(4)] if precision == "int8" else None
    job = Job(network, config, precision, network_inputs(photo, config), None, calibration)
    write_bundle(
        folder, format, precision, config, None, lambda there: exporter_of(format).write(job, there), _unchecked
    )


def _unchecked(_: Any) -> dict[str, Any]:
    return {}


def versions(engine: str) -> dict[str, str]:
    """Of the packages that an engine needs."""
    from importlib import metadata

    packages = {"keras": ("keras", "tensorflow"), "openvino": ("openvino",), "onnxruntime": ("onnxruntime",)}[engine]
    return {package: metadata.version(package) for package in ("keras-mask-rcnn", *packages)}
