"""MaskRCNN: the facade that people know, over network, weights, training and inference; and, under their old names, the
functions and layers that scripts call beside it (see `mrcnn.legacy`)."""

from __future__ import annotations

import datetime
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn import graph_queries, preflight, training, weights
from mrcnn.config import Config
from mrcnn.converting import tell_of_differences
from mrcnn.data import molding
from mrcnn.devices import choose_devices
from mrcnn.engines.base import check_threads, precision_name
from mrcnn.engines.keras_engine import preset_threads
from mrcnn.engines.opening import ENGINES
from mrcnn.habits import eagerly
from mrcnn.imagenet import fetch_imagenet, load_application
from mrcnn.inference import ANCHOR_SETS_KEPT, Detector, log
from mrcnn.keras_model import Network, load_by_name
from mrcnn.legacy import names
from mrcnn.legacy.names import *  # noqa: F403
from mrcnn.network import build_network
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import normalize_boxes
from mrcnn.optimization import precision_scope
from mrcnn.parallel import data_parallel
from mrcnn.released import find_with_part, is_released
from mrcnn.run_stages import run_stages
from mrcnn.runs import newest_checkpoint, step_of, time_and_epoch

__all__ = ["MaskRCNN", "log", *names.__all__]

# Attributes with anchors by the shape of the image, normalized and in pixels; scripts empty the first.
_ANCHOR_CACHES = ("_anchor_cache", "_pixel_anchors")


class MaskRCNN:
    """A Mask R-CNN model: built, loaded, trained, run.

    Args:
        mode: "training" or "inference".
        config: a `Config`.
        model_dir: where training puts its log directories.
        engine: what runs the network in `detect`: "keras", "openvino", "onnxruntime", or "auto" for the fastest of
            those installed. All but the engine keras of float32 run a copy of the network, made when it is first used
            and anew after `load_weights`; weights changed otherwise do not reach it.
        precision: of `detect`: "float32", "bfloat16", or "auto".
        threads: how many the engine uses; None: as many as it likes.

    Attributes:
        keras_model: the functional Keras model, see `build_network`.
        log_dir: directory of this training run; None before `set_log_dir`.
        checkpoint_path: path of its checkpoints, with `{epoch:04d}`.
        epoch: epochs that lie behind.
        anchors: anchors [A, 4] in pixels, of the image size last asked for with `get_anchors`.

    Raises:
        ConfigError: a configuration that cannot work.
        ValueError: an unknown mode, or an argument that cannot be.
    """

    # For subclasses whose `__init__` does what the original's did, and calls none.
    engine = "keras"
    precision = "float32"
    threads: int | None = None
    epoch = 0
    log_dir: str | None = None
    checkpoint_path: str | None = None
    anchors: np.ndarray | None = None
    _resume_from: Path | None = None
    _detector: Detector | None = None
    _detector_lock = threading.Lock()
    _anchor_lock = threading.Lock()

    def __init__(
        self,
        mode: str,
        config: Config,
        model_dir: str | Path,
        *,
        engine: str = "keras",
        precision: str = "float32",
        threads: int | None = None,
    ) -> None:
        check_threads(threads)
        choose_devices(config.GPUS, config.GPU_MEMORY)
        if engine not in ("auto", *ENGINES):
            raise ValueError(f"engine must be auto, {', '.join(ENGINES)}. Received: {engine!r}.")
        preset_threads(threads, engine)
        self.mode = mode
        self.engine = engine
        self.precision = precision_name(precision)
        self.threads = threads
        self.config = config
        self.model_dir = str(model_dir)
        self._anchor_cache: dict[tuple[int, ...], np.ndarray] = {}
        self.set_log_dir()
        self.keras_model = self.build(mode, config)

    @property
    def keras_model(self) -> keras.Model:
        return self._keras_model

    @keras_model.setter
    def keras_model(self, network: keras.Model) -> None:
        self._keras_model, self._detector = training.as_network(network, self.mode, self.config), None

    @eagerly
    def build(self, mode: str, config: Config) -> keras.Model:
        """Build the network of a mode; see `build_network` for its inputs and outputs."""
        if mode == "training":
            parallel = data_parallel(config)
            with parallel.building(), precision_scope(config):
                network = build_network(config, mode, training.TrainingModel)
                network.configure(config.LOSS_WEIGHTS, config.WEIGHT_DECAY)  # for scripts that compile it themselves
            network.data_parallel = parallel
            return network
        return build_network(config, mode, Network)

    # Weights

    @eagerly
    def load_weights(
        self, filepath: str | Path, by_name: bool = False, exclude: Iterable[str] | None = None
    ) -> weights.LoadReport:
        """Load weights, all of them or, with an error that says what did not fit, none.

        Args:
            filepath: a `.h5` or `.weights.h5` file; or released weights, downloaded and kept: "coco", "imagenet" (a
                backbone's, by BACKBONE and recipe), those of `mrcnn.released`; "last" for the newest here.
            by_name: weights are always found by name. True: a backbone alone will do, and one of another depth, a
                ResNet-50's for a ResNet-101 or the other way round; what is left out is named in a warning.
            exclude: names of layers to leave as they are, such as those that depend on the number of classes.

        A file for RGB images fits a network for images of other channels too; see `mrcnn.weights.channels`.

        Returns:
            A report of what was loaded.

        Raises:
            FileNotFoundError: there is no such file.
            WeightsError: the file cannot be read or does not fit.
            DownloadError: it could not be fetched.
        """
        report = load_application(self.keras_model, self.config, filepath, exclude)
        if report is None:
            if filepath == "last":
                filepath = self.find_last()
            filepath, only = find_with_part(filepath, self.config) if is_released(filepath) else (filepath, None)
            channels = {"adapt_channels": True, "rgb_channels": self.config.RGB_CHANNELS}
            if by_name and only is None:
                report = load_by_name(self.keras_model, filepath, exclude, **channels)
            else:
                report = weights.load_weights(self.keras_model, filepath, exclude, only, **channels)
        tell_of_differences(filepath, self.config)
        if not self._runs_itself:
            self._detector = None
        self.set_log_dir(filepath)
        return report

    @eagerly
    def save_weights(self, filepath: str | Path) -> None:
        """Save the weights, with the configuration, to a `.h5` file (which the original reads) or `.weights.h5`."""
        metadata = {"config": self.config.to_dict(), "epoch": self.epoch}
        weights.save_weights(self.keras_model, filepath, metadata)

    def get_imagenet_weights(self) -> str:
        """Download the ImageNet weights of the backbone that is configured, once: their path."""
        return str(fetch_imagenet(self.config))

    def find_last(self) -> str:
        """Path of the newest checkpoint of this model, by name.

        Raises:
            FileNotFoundError: there is none under `model_dir`.
        """
        return newest_checkpoint(self.model_dir, (self.config.NAME or "").lower())

    def set_log_dir(self, model_path: str | Path | None = None) -> None:
        """Choose the directory of this run under `model_dir`: a new one, or, for a checkpoint's path
        (.../<name>YYYYMMDDTHHMM/mask_rcnn_<name>_EEEE.h5), that of its time, and its epoch."""
        self.epoch = 0
        self._resume_from = None
        name = (self.config.NAME or "").lower()
        time, run = f"{datetime.datetime.now():%Y%m%dT%H%M}", time_and_epoch(model_path)
        if run is not None:
            time, self.epoch = run
            self._resume_from = Path(model_path)
            step = step_of(model_path)
            print(f"Re-starting from epoch {self.epoch}" + (f", step {step}" if step else ""))
        run_dir = Path(self.model_dir) / f"{name}{time}"
        self.log_dir = str(run_dir)
        self.checkpoint_path = str(run_dir / f"mask_rcnn_{name}_{{epoch:04d}}.h5")

    # Training

    def compile(self, learning_rate: Any, momentum: float) -> None:
        """Give the training network its optimizer and objective."""
        self._require("training", "compile")
        training.compile_model(self.keras_model, self.config, learning_rate, momentum)

    def set_trainable(
        self, layer_regex: str, keras_model: keras.Model | None = None, indent: int = 0, verbose: int = 1
    ) -> None:
        """Let the layers whose whole name matches train, and no others; `verbose` 1 prints which."""
        chosen = training.set_trainable(keras_model or self.keras_model, layer_regex)
        if verbose and keras_model is None:
            print("Selecting layers to train")
        if verbose:
            print("\n".join(f"{'':{indent}}{name:20}   ({kind})" for name, kind in chosen.items()))

    @eagerly
    def train(
        self,
        train_dataset: Any,
        val_dataset: Any | None,
        learning_rate: Any,
        epochs: int | None,
        layers: str | Sequence[tuple[str, int, Any]],
        augmentation: Any = None,
        custom_callbacks: Sequence[keras.callbacks.Callback] | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
        verbose: int | str = "auto",
        preflight_seconds: float = preflight.SECONDS,
    ) -> keras.callbacks.History | None:
        """Train, writing TensorBoard logs, `history.csv` and a checkpoint an epoch to `log_dir`.

        After `load_weights` of a checkpoint ("last"), training goes on where it was written, with the optimizer's state
        where the same layers train: to the weights that the run would have come to. Ctrl-C (or SIGTERM) ends it after
        the step that it is at, with a checkpoint. A callback that stops training ends it whole, not its stage alone.

        Args:
            train_dataset: a prepared `Dataset`.
            val_dataset: another, or None for no validation.
            learning_rate: a number, or a Keras learning rate schedule, whose steps count from the very first epoch.
            epochs: the last epoch, counted from the very first one.
            layers: "heads", "3+", "4+", "5+", "all", or a regular expression for names of layers. Or a list of stages
                (these, last epoch, learning rate), such as [("heads", 10, 1e-3), ("all", 20, 1e-4)]: `learning_rate`
                is for those with None then, and `epochs` None, or a last epoch for all.
            augmentation: see `mrcnn.data.augmentation.as_augmentation`. None: what `config.AUGMENTATION` names.
            custom_callbacks: Keras callbacks.
            no_augmentation_sources: sources whose images are not augmented.
            verbose: Keras's: 0 silent, 1 a progress bar, 2 a line an epoch.
            preflight_seconds: how long the datasets are looked at, at most, to tell what is about to be trained and
                what may ruin it (see `mrcnn.preflight`); with 0, or `verbose` 0, nothing is told.

        Returns:
            Keras's history of losses by epoch; None where `epochs` are done already.

        Raises:
            ValueError: an argument that cannot work.
            DatasetError, BatchError: a dataset or an image that cannot be used.
            TrainingError: a loss that is not finite.
            TrainingInterrupted: a KeyboardInterrupt, with all saved.
        """
        self._require("training", "train")
        return run_stages(
            self, train_dataset, val_dataset, learning_rate, epochs, layers, custom_callbacks=custom_callbacks,
            verbose=verbose, preflight_seconds=preflight_seconds, augmentation=augmentation,
            no_augmentation_sources=no_augmentation_sources,
        )  # fmt: skip

    # Inference

    @eagerly
    def detect(
        self,
        images: Sequence[Any],
        verbose: int = 0,
        masks: str = "bool",
        *,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> list[dict[str, Any]]:
        """Find the objects in any number of images of any sizes; see `Detector.detect`."""
        return self.detector.detect(images, verbose, masks, tile=tile, overlap=overlap)

    @eagerly
    def detect_molded(
        self, molded_images: np.ndarray, image_metas: np.ndarray, verbose: int = 0, masks: str = "bool"
    ) -> list[dict[str, Any]]:
        """As `detect`, of images that `mold_inputs` has molded, in whose pixels the results are."""
        return self.detector.detect_molded(molded_images, image_metas, verbose, masks)

    @property
    def detector(self) -> Detector:
        """What runs the network on images; made when first used."""
        self._require("inference", "detect")
        with self._detector_lock:
            if self._detector is None:
                engine = {"engine": self.engine, "precision": self.precision, "threads": self.threads}
                self._detector = Detector(self.keras_model, self.config, get_anchors=self.get_anchors, **engine)
            return self._detector

    @property
    def _runs_itself(self) -> bool:
        """Whether detection runs `keras_model` itself and not a copy that was made for an engine."""
        return self.engine == "keras" and self.precision == "float32"

    def mold_inputs(self, images: Sequence[Any]) -> tuple[Any, np.ndarray, np.ndarray]:
        """See `mrcnn.data.molding.mold_inputs`; the molded images are float64 here, as they were in the original."""
        molded, metas, windows = molding.mold_inputs(images, self.config)
        alike = isinstance(molded, np.ndarray)
        return molded.astype(np.float64) if alike else [one.astype(np.float64) for one in molded], metas, windows

    def unmold_detections(
        self,
        detections: np.ndarray,
        mrcnn_mask: np.ndarray,
        original_image_shape: Sequence[int],
        image_shape: Sequence[int],
        window: Sequence[int],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """See `mrcnn.data.molding.unmold_detections`."""
        return molding.unmold_detections(
            detections, mrcnn_mask, original_image_shape, image_shape, window, self.config.BOX_GRID,
            self.config.MASK_PASTE,
        )  # fmt: skip

    def get_anchors(self, image_shape: Sequence[int]) -> np.ndarray:
        """Normalized anchors [A, 4] float32 for molded images of a shape; `self.anchors` has them in pixels afterwards.
        Those of the last few shapes are kept in `_anchor_cache`."""
        shape = tuple(int(side) for side in image_shape)
        with self._anchor_lock:
            kept_normalized, kept_pixels = (vars(self).setdefault(name, {}) for name in _ANCHOR_CACHES)
            normalized, pixels = kept_normalized.get(shape), kept_pixels.get(shape)
            if normalized is None or pixels is None:
                pixels = pyramid_anchors(self.config, shape[:2])
                normalized = normalize_boxes(pixels, shape[:2], self.config.BOX_GRID)
                for kept, value in ((kept_normalized, normalized), (kept_pixels, pixels)):
                    kept[shape] = value
                    while len(kept) > ANCHOR_SETS_KEPT:
                        kept.pop(next(iter(kept)), None)
        self.anchors = pixels
        return normalized

    # Looking into the network

    def ancestor(self, tensor: Any, name: str, checked: Any = None) -> Any | None:
        """The tensor of the network called `name` that `tensor` is computed from, or None; see
        `mrcnn.graph_queries.ancestor`. `checked` is not looked at."""
        return graph_queries.ancestor(tensor, name)

    def find_trainable_layer(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        """The layer that holds the weights: the one inside, of a wrapper such as `TimeDistributed`; else itself."""
        return self.find_trainable_layer(layer.layer) if isinstance(layer, keras.layers.Wrapper) else layer

    def get_trainable_layers(self) -> list[keras.layers.Layer]:
        """The network's layers that have weights; the region proposal network (`rpn_model`) counts as one."""
        layers = [self.find_trainable_layer(layer) for layer in self.keras_model.layers]
        return [layer for layer in layers if layer.weights]

    @eagerly
    def run_graph(
        self, images: Any, outputs: Any, image_metas: np.ndarray | None = None
    ) -> OrderedDict[str, np.ndarray]:
        """Values of tensors inside the network for images, printing a line about each.

        Args:
            images: a list of images as for `detect`; or, with `image_metas`, molded images [B, h, w, C].
            outputs: pairs (a name of your choice, a tensor of the network), or a dict. Tensors are had by
                `keras_model.get_layer(name).output` and `ancestor`.
            image_metas: [B, 12 + K] of molded images.

        Returns:
            Arrays by these names, in their order.

        Raises:
            TypeError: an output that is no tensor of the network.
            ValueError: one that needs targets, which only training has.
        """
        molded = images
        if image_metas is None:
            molded, image_metas, _ = self.mold_inputs(images)
        molded = np.asarray(molded, np.float32)
        anchors = self.get_anchors(molded.shape[1:])
        inputs = {
            "input_image": molded,
            "input_image_meta": np.asarray(image_metas, np.float32),
            "input_anchors": np.broadcast_to(anchors, (len(molded), *anchors.shape)),
        }
        values = OrderedDict(graph_queries.run(inputs, OrderedDict(outputs)))
        for name, value in values.items():
            log(name, value)
        return values

    def _require(self, mode: str, action: str) -> None:
        if self.mode != mode:
            raise ValueError(
                f"{action} needs a model in {mode!r} mode. This one is in {self.mode!r} mode: "
                f"MaskRCNN(mode={mode!r}, config=..., model_dir=...)."
            )
