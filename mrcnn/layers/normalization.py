"""Normalization: batch normalization with the three modes of Config.TRAIN_BN and one that never trains, and group
normalization; and which of them a network has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from mrcnn.ops import replicas

GROUPS = 32


@keras.saving.register_keras_serializable("mrcnn")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalization, epsilon 1e-3.

    Args:
        train_bn: False: the stored statistics always, for small batches (gamma and beta still train). None: the
            ordinary training flag decides. True: the batch's statistics always, in a frozen layer too.
        epsilon: added to the variance.
        frozen: True: gamma and beta never train either; `train_bn` has to be False then.
    """

    def __init__(
        self, train_bn: bool | None = False, epsilon: float = 1e-3, frozen: bool = False, **kwargs: Any
    ) -> None:
        if frozen and train_bn is not False:
            raise ValueError(f"A frozen normalization takes its stored statistics. Received: train_bn {train_bn}.")
        super().__init__(epsilon=epsilon, **kwargs)
        self.train_bn = train_bn
        self.frozen = frozen

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        if self.frozen:
            kwargs["trainable"] = False
        return super().add_weight(*args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        training = training if self.train_bn is None else self.train_bn
        if self.train_bn and not self.trainable:  # Keras would take the stored statistics
            return self._normalize(inputs, *replicas.moments(inputs, self._axes(inputs)))
        if training and self.trainable and replicas.count() > 1:  # Keras would take each device's own
            mean, variance = replicas.moments(inputs, self._axes(inputs))
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + ops.cast(value, moving.dtype) * (1.0 - self.momentum))
            return self._normalize(inputs, mean, variance)
        return super().call(inputs, training=training, mask=mask)

    def _axes(self, inputs: Any) -> list[int]:
        return [axis for axis in range(len(inputs.shape)) if axis != self.axis % len(inputs.shape)]

    def _normalize(self, inputs: Any, mean: Any, variance: Any) -> Any:
        return ops.batch_normalization(inputs, mean, variance, self.axis, self.beta, self.gamma, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "train_bn": self.train_bn, **({"frozen": True} if self.frozen else {})}


@dataclass(frozen=True)
class Norm:
    """The kind of normalization that a network, or a part of it, has.

    Attributes:
        kind: "batch", "frozen" (batch normalization that never trains), "group", or None: there is none.
        train_bn: of "batch"; see `BatchNorm`.
        epsilon: added to the variance.
    """

    kind: str | None = "batch"
    train_bn: bool | None = False
    epsilon: float = 1e-3

    def __bool__(self) -> bool:
        return self.kind is not None

    def after(self, x: Any, name: str) -> Any:
        """`x` [..., channels] normalized by a new layer; `x` itself where there is no normalization."""
        if self.kind is None:
            return x
        if self.kind == "group":  # of fewer groups where the channels do not divide into so many
            groups = math.gcd(GROUPS, x.shape[-1])
            return keras.layers.GroupNormalization(groups, epsilon=self.epsilon, name=name)(x)
        if self.kind == "frozen":
            return BatchNorm(False, self.epsilon, frozen=True, name=name)(x)
        return BatchNorm(self.train_bn, self.epsilon, name=name)(x)


NO_NORM = Norm(None)
