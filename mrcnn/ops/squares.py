"""Sums of squares."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def sum_of_squares(x: Any) -> Any:
    """Sum of the squares of all elements of a float tensor or variable, a scalar. On TensorFlow in one pass."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return 2.0 * tf.nn.l2_loss(ops.convert_to_tensor(x))
    return ops.sum(ops.square(x))
