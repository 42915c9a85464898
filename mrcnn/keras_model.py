"""The Keras model inside a `MaskRCNN`, with what scripts written for Keras 2 call on it.

Letters: B images, R rois.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any

import keras
from keras import ops

from mrcnn import weights
from mrcnn.habits import eagerly, explain_missing, tell_once
from mrcnn.weights.info import is_backbone

# Layers of the heads by the layer that cuts out their ROIs.
_HEADS = {"roi_align_classifier": "mrcnn_class_", "roi_align_mask": "mrcnn_mask"}
_OWN_NUMBERS = "The five losses are shown as they are; for a number of your own write a Keras callback."

explain_missing(keras.backend, ops)


@keras.saving.register_keras_serializable("mrcnn")
class Network(keras.Model):
    """A functional `keras.Model` that reads and writes the old weights files, and knows the old method names.

    It is made like a functional model. What Keras 3 has in common with Keras 2 (`summary`, `predict`, `layers`,
    `outputs`, ...) is Keras's own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # XLA on TensorFlow knows no non-max suppression of changing length; torch.compile gains nothing here.
        self.supports_jit = keras.backend.backend() == "jax"

    # Files

    @eagerly
    def save_weights(
        self, filepath: str | Path, overwrite: bool = True, save_format: str | None = None, **kwargs: Any
    ) -> None:
        """Save the weights to a `.h5` file in the layout of the original's, or to `.weights.h5` (Keras 3).

        Args:
            filepath: where.
            overwrite: False refuses to replace a file.
            save_format: of Keras 2; the file's name decides.
            kwargs: for Keras's own method, which writes `.weights.h5` and `.weights.json`.

        Raises:
            FileExistsError: there is such a file, and `overwrite` is False.
            WeightsError: the name ends otherwise, or writing failed.
        """
        if str(filepath).endswith((".weights.h5", ".weights.json")):
            super().save_weights(filepath, overwrite=overwrite, **kwargs)
            return
        if not overwrite and Path(filepath).exists():
            raise FileExistsError(f"{filepath} exists, and overwrite is False.")
        weights.save_weights(self, filepath)

    @eagerly
    def load_weights(
        self, filepath: str | Path, by_name: bool = False, skip_mismatch: bool = False, **kwargs: Any
    ) -> weights.LoadReport:
        """Load a weights file of either layout, whole or not at all.

        Args:
            filepath: of the file; its contents decide how it is read.
            by_name: weights are always found by name. True: a backbone alone will do, and one of another depth; what is
                left out is named in a warning.
            skip_mismatch: True: layers that do not fit, or that one side lacks, are left as they are, with a warning.
            kwargs: what Keras's own method takes beside these has no effect here.

        Raises:
            FileNotFoundError: there is no such file.
            WeightsError: the file cannot be read or does not fit; the message says what did not and what would do.
        """
        for name in kwargs:
            tell_once(f"keras_model.load_weights({name}=...)", "this argument has no effect.")
        try:
            return load_by_name(self, filepath) if by_name else weights.load_weights(self, filepath)
        except weights.WeightsError as error:
            if not skip_mismatch or error.report is None:
                raise
            report = error.report
        misfits = sorted({*report.missing, *report.unexpected, *(mismatch.layer for mismatch in report.mismatched)})
        warnings.warn(f"Left as they are, for {filepath} does not fit them: {', '.join(misfits)}.", stacklevel=3)
        return load_by_name(self, filepath, misfits) if by_name else weights.load_weights(self, filepath, misfits)

    # Layers

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """As Keras's. The `output` of a layer of the heads tells images and ROIs apart, [B, R, ...], as it did when
        these layers were `TimeDistributed`; inside the network they lie in one axis."""
        layer = super().get_layer(name=name, index=index)
        for align, prefix in _HEADS.items():
            if layer.name.startswith(prefix) and len(layer.output.shape) == 4:
                return _HeadLayer(layer, super().get_layer(align).output.shape[1])
        return layer

    # Running

    predict = eagerly(keras.Model.predict)
    evaluate = eagerly(keras.Model.evaluate)

    @eagerly
    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As Keras's; a generator may yield lists, as `data_generator` does."""
        if isinstance(x, GeneratorType):
            x = _as_tuples(x)
            kwargs.setdefault("shuffle", False)
        if isinstance(kwargs.get("validation_data"), GeneratorType):
            kwargs["validation_data"] = _as_tuples(kwargs["validation_data"])
        return super().fit(x, y, *args, **kwargs)

    def fit_generator(self, generator: Any, steps_per_epoch: int | None = None, epochs: int = 1, **kwargs: Any) -> Any:
        """`fit`, which takes generators since Keras 2.4."""
        tell_once("keras_model.fit_generator", "calls keras_model.fit, which takes generators too.")
        arguments = _without_queue(kwargs)
        return self.fit(generator, steps_per_epoch=steps_per_epoch, epochs=epochs, **arguments)

    def evaluate_generator(self, generator: Any, steps: int | None = None, **kwargs: Any) -> Any:
        """`evaluate`, which takes generators since Keras 2.4."""
        tell_once("keras_model.evaluate_generator", "calls keras_model.evaluate, which takes generators too.")
        batches = _as_tuples(generator) if isinstance(generator, GeneratorType) else generator
        return self.evaluate(batches, steps=steps, **_without_queue(kwargs))

    def predict_generator(self, generator: Any, steps: int | None = None, **kwargs: Any) -> Any:
        """`predict`, which takes generators since Keras 2.4."""
        tell_once("keras_model.predict_generator", "calls keras_model.predict, which takes generators too.")
        batches = _as_tuples(generator) if isinstance(generator, GeneratorType) else generator
        return self.predict(batches, steps=steps, **_without_queue(kwargs))

    # What has no effect any more

    @property
    def uses_learning_phase(self) -> bool:
        """False: training and inference are told apart by the argument `training` of a call."""
        return False

    @uses_learning_phase.setter
    def uses_learning_phase(self, value: Any) -> None:
        tell_once("keras_model.uses_learning_phase = ...", "has no effect: the argument `training` of a call decides.")

    @property
    def metrics_tensors(self) -> list[Any]:
        """An empty list that nothing looks at; the five losses are metrics already."""
        return _Unheard()

    @metrics_tensors.setter
    def metrics_tensors(self, value: Any) -> None:
        tell_once("keras_model.metrics_tensors = ...", f"has no effect. {_OWN_NUMBERS}")

    def add_loss(self, loss: Any) -> None:
        """As Keras's inside `call`; a tensor of the graph cannot be added."""
        if any(isinstance(tensor, keras.KerasTensor) for tensor in keras.tree.flatten(loss)):
            raise NotImplementedError(
                "Keras 3 adds no symbolic tensor as a loss. The five losses and the weight decay are added already: "
                "set LOSS_WEIGHTS and WEIGHT_DECAY in the configuration. For a loss of your own, put a layer into the "
                "network whose call() does self.add_loss(value)."
            )
        super().add_loss(loss)

    def add_metric(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: Keras 3 has no such method."""
        tell_once("keras_model.add_metric", f"has no effect. {_OWN_NUMBERS}")

    def _make_predict_function(self) -> None:
        _tell_of_functions("_make_predict_function", "detect may be called from any thread")

    def _make_train_function(self) -> None:
        _tell_of_functions("_make_train_function", "Keras makes it when training starts")

    def _make_test_function(self) -> None:
        _tell_of_functions("_make_test_function", "Keras makes it when it is needed")


def load_by_name(
    network: keras.Model, filepath: str | Path, exclude: str | Iterable[str] | None = (), **channels: Any
) -> weights.LoadReport:
    """As `weights.load_weights`; but a backbone alone will do, and one of another depth.

    Sample scripts give a ResNet-101 the ImageNet weights of a ResNet-50, and a ResNet-50 the released weights of a
    ResNet-101. What both have is loaded, and a warning names the rest. `channels`: see `weights.load_weights`.
    """
    only = "backbone" if weights.inspect_weights(filepath).kind == "backbone only" else None
    try:
        return weights.load_weights(network, filepath, exclude, only, **channels)
    except weights.WeightsError as error:
        report = error.report
        if report is None or report.mismatched:
            raise
        missing, unexpected = list(report.missing), list(report.unexpected)
        if "conv1" in missing or not all(map(is_backbone, missing + unexpected)):
            raise
    lines = [f"The backbone of {filepath} is of another depth than BACKBONE."]
    if missing:
        lines.append(f"It lacks these layers, which stay as they are ({len(missing)}): {', '.join(missing)}.")
    if unexpected:
        lines.append(f"These of its layers are left out ({len(unexpected)}): {', '.join(unexpected)}.")
    warnings.warn(" ".join(lines), stacklevel=4)  # the script's line: load_weights and `eagerly` lie between
    excluded = [exclude] if isinstance(exclude, str) else exclude or ()
    return weights.load_weights(network, filepath, [*excluded, *missing, *unexpected], only, **channels)


class _Unheard(list):
    def append(self, item: Any) -> None:
        tell_once("keras_model.metrics_tensors.append", f"has no effect. {_OWN_NUMBERS}")


class _HeadLayer:
    """A layer of the heads whose `output` is [B, R, ...]; all else is the layer's own."""

    def __init__(self, layer: keras.layers.Layer, rois: int) -> None:
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "_rois", rois)

    @property
    def __class__(self) -> type:
        return type(self._layer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._layer, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._layer(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._layer)

    @property
    def output(self) -> Any:
        tensor = self._layer.output
        return ops.reshape(tensor, (-1, self._rois, *tensor.shape[1:]))


def _as_tuples(batches: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """Batches ([inputs], [targets]) as Keras 3 takes them, the inputs alone: the network holds its own targets."""
    for batch in batches:
        inputs = batch[0] if isinstance(batch, list | tuple) and len(batch) == 2 else batch
        if isinstance(inputs, tuple) and len(inputs) == 1:  # as Keras takes them already
            yield inputs
        else:
            yield (tuple(inputs) if isinstance(inputs, list) else inputs,)


def _without_queue(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the old `..._generator` methods without those about worker processes."""
    return {
        name: value
        for name, value in arguments.items()
        if name not in ("max_queue_size", "max_q_size", "workers", "use_multiprocessing", "pickle_safe")
    }


def _tell_of_functions(name: str, why: str) -> None:
    tell_once(f"keras_model.{name}", f"is not needed, and does nothing: {why}.")
