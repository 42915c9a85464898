"""Batch normalization with the three modes of Config.TRAIN_BN."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from mrcnn.ops import replicas


@keras.saving.register_keras_serializable("mrcnn")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalization, epsilon 1e-3.

    Args:
        train_bn: False: the stored statistics always, for small batches (gamma and beta still train). None: the
            ordinary training flag decides. True: the batch's statistics always, in a frozen layer too.
    """

    def __init__(self, train_bn: bool | None = False, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(epsilon=epsilon, **kwargs)
        self.train_bn = train_bn

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
        return {**super().get_config(), "train_bn": self.train_bn}
