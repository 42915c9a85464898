"""How training goes, beyond its losses: average precision on the validation set, the best weights, when to stop.

The network that is evaluated is made of the training network's own layers, so it has its weights at any time and takes
no memory of its own for them.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from mrcnn.config import Config, ConfigError
from mrcnn.data.samples import check_dataset
from mrcnn.data.survey import survey
from mrcnn.engines.keras_engine import KerasEngine
from mrcnn.evaluation import EvaluationResult, evaluate
from mrcnn.inference import Detector
from mrcnn.judging import Judge
from mrcnn.network import build_network
from mrcnn.optimization import averaged_weights, precision_scope
from mrcnn.run_record import BEST_NAME, data_figures, read_record, write_record
from mrcnn.weights import WeightsError, inspect_weights, save_weights

# Detections of low scores belong to the curve that average precision is the area of: as `mrcnn evaluate` has it.
MIN_CONFIDENCE = 0.05
# What of an evaluation goes into the logs of its epoch.
FIGURES = ("mask_ap", "mask_ap50", "mask_ap75", "box_ap", "box_ap50")
# Images whose pictures TensorBoard shows, the same in each epoch.
_FOLLOWED = 4
_SECONDS_FOR_A_SUMMARY = 2.0

_detectors: weakref.WeakKeyDictionary[keras.Model, Detector] = weakref.WeakKeyDictionary()


def detector_of(model: keras.Model, config: Config) -> Detector:
    """What runs a training network's weights on images; made once for each network.

    Args:
        model: of `build_network(config, "training")`.
        config: what it was built from. Detection goes down to `MIN_CONFIDENCE`; crops give way to whole images.
    """
    if model not in _detectors:
        config = copy.copy(config)
        config.DETECTION_MIN_CONFIDENCE, config.DETECTION_CLASS_CONFIDENCE = MIN_CONFIDENCE, None
        if config.IMAGE_RESIZE_MODE == "crop":
            config.IMAGE_RESIZE_MODE, config.IMAGE_MIN_DIM = "pad64", None
        own = {layer.name: layer for layer in model.layers if layer.weights}

        def shared(layer: Any) -> Any:
            return own[layer.name] if getattr(layer, "weights", None) else layer

        with precision_scope(config):
            network = keras.models.clone_model(build_network(config, "inference"), clone_function=shared)
        _detectors[model] = Detector(KerasEngine(network, config), config)
    return _detectors[model]


class _Interrupted(Exception):
    """Somebody wants to stop during an evaluation."""


class Monitor(keras.callbacks.Callback):
    """Evaluates the weights after epochs, adds the figures to the epoch's logs (`val_mask_ap`, `val_box_ap`, ...),
    keeps the best weights in `best.h5` and ends training that gets no better.

    The best epoch has the greatest mask AP; of equal ones, such as the zeros at the beginning, that of the lowest
    validation loss. Where no AP is measured, the lowest validation loss alone decides.

    Args:
        config: EVALUATE_EVERY, EVALUATE_IMAGES and EARLY_STOPPING are used.
        train_dataset: is summed up for the report.
        val_dataset: is evaluated on.
        folder: of the run.
        metadata: stored in `best.h5`.
        initial_epoch: epochs that lie behind.
        last_epoch: is evaluated in any case.
        stage_start: epochs that lay behind when this stage began, from where EARLY_STOPPING counts; None:
            `initial_epoch`.
        interrupted: tells whether training is to stop as soon as it can: then an evaluation is left unfinished.
        verbose: as of Keras: 0 prints nothing; 1 and "auto" show a progress bar, if the standard error stream is a
            terminal.

    Attributes:
        left: whether the latest evaluation was left unfinished.

    Raises:
        ConfigError: there is nothing to measure with.
    """

    def __init__(
        self,
        config: Config,
        train_dataset: Any,
        val_dataset: Any | None,
        folder: Path,
        metadata: Mapping[str, Any],
        *,
        initial_epoch: int,
        last_epoch: int,
        stage_start: int | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        verbose: int | str = "auto",
    ) -> None:
        super().__init__()
        check_monitoring(config, val_dataset)
        self.config = config
        self.datasets = {"train": train_dataset, "validation": val_dataset}
        self.folder = folder
        self.metadata = metadata
        self.last_epoch = last_epoch
        self.stage_start = initial_epoch if stage_start is None else stage_start
        self.interrupted = interrupted
        self.verbose = verbose
        self.measure = "mask_ap" if config.EVALUATE_EVERY else "val_loss"
        self.left = False
        self.record = read_record(folder, initial_epoch) | {"measured": initial_epoch}
        self.best_epoch, self.best_score = self._best_so_far(initial_epoch)
        self.pictures: dict[int, np.ndarray] = {}
        if val_dataset is not None:
            count = len(val_dataset.image_ids)
            wanted = min(config.EVALUATE_IMAGES or count, count)
            self.image_ids = [int(val_dataset.image_ids[i * count // wanted]) for i in range(wanted)]

    @property
    def _keeps_best(self) -> bool:
        return bool(self.config.EVALUATE_EVERY or self.config.EARLY_STOPPING)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if not self.record["data"]:
            for name, dataset in self.datasets.items():
                if dataset is not None:
                    seen = survey(dataset, self.config, _SECONDS_FOR_A_SUMMARY, self.config.SEED)
                    self.record["data"][name] = data_figures(seen)
        write_record(self.folder, self.record)
        if self.config.EVALUATE_EVERY:
            detector_of(self.model, self.config)  # what is wrong with it should be known before an epoch has passed

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        number, every = epoch + 1, self.config.EVALUATE_EVERY
        due = bool(every) and (number % every == 0 or number == self.last_epoch)
        if not self._keeps_best or (every and not due):
            return
        with averaged_weights(self.model):
            judged = None
            if due:
                try:
                    judged = result, judge, seconds = self._evaluate()
                except _Interrupted:
                    self.left = True
                    return
                logs |= {f"val_{name}": float(getattr(result, name)) for name in FIGURES}
                self.record["epochs"].append({"epoch": number, "seconds": seconds, **result.to_dict()})
                self.pictures = judge.always_pictures
            score = self._score(logs)
            better = score is not None and (self.best_score is None or score > self.best_score)
            if better:
                self.best_epoch, self.best_score = number, score
                best = {"measure": self.measure, "score": score}
                save_weights(self.model, self.folder / BEST_NAME, {**self.metadata, "epoch": number, "best": best})
                if judged is not None:
                    self.record["best"] = self._whole(number, *judged)
        if due:
            write_record(self.folder, self.record)
        patience = self.config.EARLY_STOPPING
        if patience and not better and number - max(self.best_epoch or 0, self.stage_start) >= patience:
            self.model.stop_training = True
            if self.verbose:
                told = f"No better {self.measure} for {patience} epochs: training stops."
                print(f"\n{told} The best was epoch {self.best_epoch}.")

    def note(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note in the record, once all that is measured after an epoch (from 0) is written, that it is."""
        self.record["measured"] = epoch + 1
        write_record(self.folder, self.record)

    def _evaluate(self) -> tuple[EvaluationResult, Judge, float]:
        dataset, start = self.datasets["validation"], time.perf_counter()
        shown = [self.image_ids[i * len(self.image_ids) // _FOLLOWED] for i in range(_FOLLOWED)]
        judge = Judge(
            dataset, self.metadata["class_names"], self.config.DETECTION_MIN_CONFIDENCE or MIN_CONFIDENCE, always=shown
        )
        shows = self.verbose in ("auto", 1) and sys.stderr.isatty()
        with tqdm(total=len(self.image_ids), unit="image", desc="Evaluating", leave=False, disable=not shows) as bar:

            def look(*arguments: Any) -> None:
                if self.interrupted():
                    raise _Interrupted
                judge(*arguments)
                bar.update()

            detector = detector_of(self.model, self.config)
            result = evaluate(detector, dataset, self.image_ids, progress=False, on_image=look)
        if not result.annotation_count:
            warnings.warn(
                "The validation set has no annotated objects, so there is no average precision to measure. Set "
                "EVALUATE_EVERY to 0, or annotate it.",
                stacklevel=2,
            )
        return result, judge, time.perf_counter() - start

    def _whole(self, number: int, result: EvaluationResult, judge: Judge, seconds: float) -> dict[str, Any]:
        return {
            "epoch": number,
            "seconds": seconds,
            "images_of": len(self.datasets["validation"].image_ids),
            "result": result.to_dict(),
            "class_names": list(judge.class_names),
            "min_score": judge.min_score,
            "confusion": judge.confusion,
            "qualities": [mark["quality"] for mark in judge.marks],
            **judge.extremes(),
        }

    def _score(self, logs: Mapping[str, Any]) -> list[float] | None:
        """What is compared, the first number first; None for an epoch that cannot be."""
        loss = float(logs["val_loss"]) if "val_loss" in logs else math.nan
        if self.measure == "val_loss":
            return None if math.isnan(loss) else [-loss]
        ap = float(logs["val_mask_ap"])
        return None if math.isnan(ap) else [ap, -sys.float_info.max if math.isnan(loss) else -loss]

    def _best_so_far(self, initial_epoch: int) -> tuple[int | None, list[float] | None]:
        """Epoch and score of the `best.h5` that is there, if it is of this run up to here."""
        with contextlib.suppress(OSError, WeightsError):
            told = inspect_weights(self.folder / BEST_NAME)
            best = told.metadata.get("best", {})
            if told.epoch is not None and told.epoch <= initial_epoch and best.get("measure") == self.measure:
                return told.epoch, [float(value) for value in best["score"]]
        return None, None


class TensorBoardPictures(keras.callbacks.Callback):
    """Truth beside prediction, of the same few validation images after each evaluation, for TensorBoard.

    Args:
        monitor: whose pictures; comes before this one in the list of callbacks.
        folder: of the run; they go into its folder `pictures`.
    """

    def __init__(self, monitor: Monitor, folder: Path) -> None:
        super().__init__()
        self.monitor = monitor
        self.folder = folder / "pictures"
        self._writer: Any = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        pictures, self.monitor.pictures = self.monitor.pictures, {}
        if not pictures:
            return
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.folder))
        with self._writer.as_default(step=epoch):  # from 0, as Keras counts its curves
            for image_id, pixels in pictures.items():
                tf.summary.image(f"true and predicted/image {image_id}", pixels[None])
        self._writer.flush()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def check_monitoring(config: Config, val_dataset: Any | None) -> None:
    """Refuse what cannot be measured, before any work.

    Raises:
        ConfigError: no validation set, or no validation losses where they decide.
        DatasetError: a validation set that does not fit the configuration.
    """
    for name in ("EVALUATE_EVERY", "EARLY_STOPPING"):
        if getattr(config, name) and val_dataset is None:
            raise ConfigError(
                f"{name} is {getattr(config, name)}, which needs a validation set. Received: val_dataset None. Give "
                f"one, or set {name} to 0."
            )
    if config.EVALUATE_EVERY:
        check_dataset(val_dataset, config)
    if config.EARLY_STOPPING and not config.EVALUATE_EVERY and not config.VALIDATION_STEPS:
        raise ConfigError(
            f"EARLY_STOPPING is {config.EARLY_STOPPING}, and there is nothing to judge epochs by. Received: "
            "EVALUATE_EVERY 0 and VALIDATION_STEPS 0. Set one of them."
        )
