"""MaskRCNN: the facade that people know, over network, weights, training and inference."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn import training, weights
from mrcnn.config import Config
from mrcnn.data import molding
from mrcnn.downloads import fetch_weights
from mrcnn.engines.base import check_threads, precision_name
from mrcnn.engines.keras_engine import set_threads
from mrcnn.engines.opening import ENGINES
from mrcnn.inference import Detector, anchor_cache, log
from mrcnn.network import build_network

__all__ = ["MaskRCNN", "log"]

# .../<name>YYYYMMDDTHHMM/mask_rcnn_<name>_EEEE.h5
_TIME = r"\d{8}T\d{4}"
_CHECKPOINT = re.compile(rf"(?P<dir>.*[/\\][^/\\]*{_TIME})[/\\]mask_rcnn_[^/\\]*_(?P<epoch>\d{{4,}})\.h5")


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
        if engine not in ("auto", *ENGINES):
            raise ValueError(f"engine must be auto, {', '.join(ENGINES)}. Received: {engine!r}.")
        if engine == "keras":
            set_threads(threads)  # TensorFlow takes no number any more once a network is built
        self.mode = mode
        self.engine = engine
        self.precision = precision_name(precision)
        self.threads = threads
        self.config = config
        self.model_dir = str(model_dir)
        self.epoch = 0
        self.log_dir: str | None = None
        self.checkpoint_path: str | None = None
        self.anchors: np.ndarray | None = None
        self._resume_from: Path | None = None
        self._detector: Detector | None = None
        self._anchors_of = anchor_cache(config)
        self.set_log_dir()
        self.keras_model = self.build(mode, config)

    def build(self, mode: str, config: Config) -> keras.Model:
        """Build the network of a mode; see `build_network` for its inputs and outputs."""
        if mode == "training":
            return build_network(config, mode, training.TrainingModel)
        return build_network(config, mode)

    # Weights

    def load_weights(
        self, filepath: str | Path, by_name: bool = False, exclude: Iterable[str] | None = None
    ) -> weights.LoadReport:
        """Load weights, all of them or, with an error that says what did not fit, none.

        Args:
            filepath: a `.h5` or `.weights.h5` file; or "coco" for the released weights, "imagenet" for those of a
                ResNet-50 backbone (both are downloaded and kept), "last" for the newest checkpoint of this model.
            by_name: nothing changes with it, for weights are always found by name; but a file that holds a backbone
                alone is refused without it.
            exclude: names of layers to leave as they are, such as those that depend on the number of classes.

        Returns:
            A report of what was loaded.

        Raises:
            FileNotFoundError: there is no such file.
            WeightsError: the file cannot be read or does not fit.
            DownloadError: it could not be fetched.
        """
        only = None
        if filepath in ("coco", "imagenet") and not Path(filepath).exists():
            only = "backbone" if filepath == "imagenet" else None
            filepath = fetch_weights(str(filepath))
        elif filepath == "last":
            filepath = self.find_last()
        if by_name and only is None and weights.inspect_weights(filepath).kind == "backbone only":
            only = "backbone"
        report = weights.load_weights(self.keras_model, filepath, exclude=exclude, only=only)
        if not self._runs_itself:
            self._detector = None
        self.set_log_dir(filepath)
        return report

    def save_weights(self, filepath: str | Path) -> None:
        """Save the weights, with the configuration, to a `.h5` file (which the original reads) or `.weights.h5`."""
        metadata = {"config": self.config.to_dict(), "epoch": self.epoch}
        weights.save_weights(self.keras_model, filepath, metadata)

    def get_imagenet_weights(self) -> str:
        """Download the ImageNet weights of a ResNet-50 (once) and return their path."""
        return str(fetch_weights("imagenet"))

    def find_last(self) -> str:
        """Path of the newest checkpoint of this model, by name.

        Raises:
            FileNotFoundError: there is none under `model_dir`.
        """
        name = (self.config.NAME or "").lower()
        root = Path(self.model_dir)
        pattern = re.compile(re.escape(name) + _TIME)
        runs = sorted(d for d in root.iterdir() if d.is_dir() and pattern.fullmatch(d.name)) if root.is_dir() else []
        if not runs:
            raise FileNotFoundError(f"No training run of {name!r} in {root}: no folder {name}YYYYMMDDTHHMM there.")
        for run in reversed(runs):  # one that was stopped in its first epoch has none
            checkpoints = sorted(run.glob("mask_rcnn*.h5"))
            if checkpoints:
                return str(checkpoints[-1])
        raise FileNotFoundError(f"No checkpoint (mask_rcnn*.h5) in {runs[-1]}: no epoch was finished.")

    def set_log_dir(self, model_path: str | Path | None = None) -> None:
        """Choose the directory of this run: a new one, or, for a checkpoint's path, the one to go on in."""
        self.epoch = 0
        self._resume_from = None
        name = (self.config.NAME or "").lower()
        run_dir = Path(self.model_dir) / f"{name}{datetime.datetime.now():%Y%m%dT%H%M}"
        match = _CHECKPOINT.fullmatch(str(Path(model_path).absolute())) if model_path else None
        if match:
            self.epoch = int(match["epoch"])
            run_dir = Path(match["dir"])
            if self.mode == "training":
                self._resume_from = Path(model_path)
                print(f"Re-starting from epoch {self.epoch}")
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
        """Let the layers whose whole name matches train, and no others."""
        chosen = training.set_trainable(keras_model or self.keras_model, layer_regex)
        if verbose:
            pad = " " * indent
            print("\n".join([f"{pad}Training {len(chosen)} layers", *(f"{pad}  {name}" for name in chosen)]))

    def train(
        self,
        train_dataset: Any,
        val_dataset: Any | None,
        learning_rate: Any,
        epochs: int,
        layers: str,
        augmentation: Any = None,
        custom_callbacks: Sequence[keras.callbacks.Callback] | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
        verbose: int | str = "auto",
    ) -> keras.callbacks.History | None:
        """Train, writing TensorBoard logs, `history.csv` and a checkpoint an epoch to `log_dir`.

        After `load_weights` of a checkpoint, training goes on at the epoch after it, with the optimizer's state where
        the same layers train.

        Args:
            train_dataset: a prepared `Dataset`.
            val_dataset: another, or None for no validation.
            learning_rate: a number, or a Keras learning rate schedule, whose steps count from the very first epoch.
            epochs: the last epoch, counted from the very first one.
            layers: "heads", "3+", "4+", "5+", "all", or a regular expression for names of layers.
            augmentation: see `mrcnn.data.augmentation.as_augmentation`.
            custom_callbacks: Keras callbacks.
            no_augmentation_sources: sources whose images are not augmented.
            verbose: Keras's: 0 silent, 1 a progress bar, 2 a line an epoch.

        Returns:
            Keras's history of losses by epoch; None where `epochs` are done already.

        Raises:
            ValueError: an argument that cannot work.
            DatasetError, BatchError: a dataset or an image that cannot be used.
            TrainingError: a loss that is not finite.
        """
        self._require("training", "train")
        training.check_epochs(epochs, learning_rate)
        pattern = training.stage_pattern(layers)
        if self.epoch >= epochs:
            print(f"Nothing to train: {self.epoch} epochs are done, and epochs is {epochs}, the last one.")
            return None
        chosen = training.set_trainable(self.keras_model, pattern)
        if not chosen:
            raise ValueError(
                f"No layer matches layers={layers!r}. Stages: {', '.join(training.STAGES)}; or a regular expression "
                "that matches whole names, such as 'mrcnn_.*'."
            )
        self.compile(learning_rate, self.config.LEARNING_MOMENTUM)
        optimizer = self.keras_model.optimizer
        optimizer.iterations.assign(self.epoch * self.config.STEPS_PER_EPOCH)
        if self._resume_from is not None and weights.inspect_weights(self._resume_from).has_optimizer:
            weights.load_optimizer(optimizer, self._resume_from)
        self._resume_from = None
        print(f"Starting at epoch {self.epoch + 1} of {epochs}: {len(chosen)} layers train. Log: {self.log_dir}")
        return training.fit(
            self.keras_model,
            self.config,
            train_dataset,
            val_dataset,
            epochs=epochs,
            initial_epoch=self.epoch,
            log_dir=Path(self.log_dir),
            checkpoint_path=self.checkpoint_path,
            on_saved=lambda epoch: setattr(self, "epoch", epoch),
            augmentation=augmentation,
            no_augmentation_sources=no_augmentation_sources,
            custom_callbacks=custom_callbacks,
            verbose=verbose,
        )

    # Inference

    def detect(self, images: Sequence[Any], verbose: int = 0, masks: str = "bool") -> list[dict[str, Any]]:
        """Find the objects in any number of images of any sizes; see `Detector.detect`."""
        return self.detector.detect(images, verbose, masks)

    def detect_molded(
        self, molded_images: np.ndarray, image_metas: np.ndarray, verbose: int = 0, masks: str = "bool"
    ) -> list[dict[str, Any]]:
        """As `detect`, of images that `mold_inputs` has molded."""
        return self.detector.detect_molded(molded_images, image_metas, verbose, masks)

    @property
    def detector(self) -> Detector:
        """What runs the network on images; made when first used."""
        self._require("inference", "detect")
        if self._detector is None:
            engine = {"engine": self.engine, "precision": self.precision, "threads": self.threads}
            self._detector = Detector(self.keras_model, self.config, get_anchors=self.get_anchors, **engine)
        return self._detector

    @property
    def _runs_itself(self) -> bool:
        """Whether detection runs `keras_model` itself and not a copy that was made for an engine."""
        return self.engine == "keras" and self.precision == "float32"

    def mold_inputs(self, images: Sequence[Any]) -> tuple[Any, np.ndarray, np.ndarray]:
        """See `mrcnn.data.molding.mold_inputs`."""
        return molding.mold_inputs(images, self.config)

    def unmold_detections(
        self,
        detections: np.ndarray,
        mrcnn_mask: np.ndarray,
        original_image_shape: Sequence[int],
        image_shape: Sequence[int],
        window: Sequence[int],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """See `mrcnn.data.molding.unmold_detections`."""
        return molding.unmold_detections(detections, mrcnn_mask, original_image_shape, image_shape, window)

    def get_anchors(self, image_shape: Sequence[int]) -> np.ndarray:
        """Normalized anchors [A, 4] for molded images of a shape; `self.anchors` has them in pixels afterwards."""
        self.anchors, normalized = self._anchors_of((int(image_shape[0]), int(image_shape[1])))
        return normalized

    def _require(self, mode: str, action: str) -> None:
        if self.mode != mode:
            raise ValueError(
                f"{action} needs a model in {mode!r} mode. This one is in {self.mode!r} mode: "
                f"MaskRCNN(mode={mode!r}, config=..., model_dir=...)."
            )
