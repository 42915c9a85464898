"""Batch normalization with the three modes of Config.TRAIN_BN."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


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
        if self.train_bn and not self.trainable:  # Keras would take the stored statistics
            axes = [axis for axis in range(len(inputs.shape)) if axis != self.axis % len(inputs.shape)]
            mean, variance = ops.moments(inputs, axes)
            return ops.batch_normalization(inputs, mean, variance, self.axis, self.beta, self.gamma, self.epsilon)
        return super().call(inputs, training=training if self.train_bn is None else self.train_bn, mask=mask)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "train_bn": self.train_bn}
