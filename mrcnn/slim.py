"""The inference network as a Keras model of two outputs, which Keras exports for programs other than this package.

Letters: B images, D detections with padding, N of all images, C channels, K classes (0 is background).
"""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from mrcnn.config import Config
from mrcnn.folding import fold_batch_norm
from mrcnn.network import build_network

# Beyond what any network says by itself, and few enough for a softmax in float32.
_RULED_OUT = -1e4


def slim_network(model: keras.Model, dtype: str | None = None) -> keras.Model:
    """A copy of an inference network without what detection does not need.

    Args:
        model: of `build_network(config, "inference")`; left as it is.
        dtype: see `fold_batch_norm`.

    Returns:
        A model of the same inputs, batch normalization folded: {"detections": [B, D, (box, class, score)], "masks":
        [B, D, mh, mw] of the detected class}, float32. Rows behind an image's detections are 0.
    """
    folded = fold_batch_norm(model, dtype)
    detections, last = folded.outputs[0], folded.get_layer("mrcnn_mask")
    features = last._inbound_nodes[0].input_tensors[0]
    own = OwnClassMask(last.filters, name="mrcnn_own_mask")
    masks = own(features, detections)
    own.set_weights([_numpy(last.kernel)[0, 0].T, _numpy(last.bias)])
    return keras.Model(folded.inputs, {"detections": detections, "masks": masks}, name=model.name)


def without_background(model: keras.Model, config: Config) -> tuple[keras.Model, Config]:
    """A copy of an inference network that calls no proposal background, drops none for its score and none for their
    number: it finds something in any image.

    Args:
        model: of `build_network(config, "inference")`.
        config: what it was built from.

    Returns:
        The copy and its configuration.
    """
    config = copy.copy(config)
    config.DETECTION_MIN_CONFIDENCE, config.DETECTION_CLASS_CONFIDENCE = 0, None
    config.DETECTION_MAX_INSTANCES = config.POST_NMS_ROIS_INFERENCE
    twin = build_network(config, "inference")
    twin.set_weights(model.get_weights())
    logits = twin.get_layer("mrcnn_class_logits")
    bias = _numpy(logits.bias).copy()
    bias[0] += _RULED_OUT
    logits.bias.assign(bias)
    return twin, config


@keras.saving.register_keras_serializable("mrcnn")
class OwnClassMask(layers.Layer):
    """The last layer of the mask head for each detection's own class alone: of 1x1 kernels to K masks, one.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_classes = num_classes

    def build(self, features_shape: Any, detections_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(self.num_classes, features_shape[-1]), name="kernel")
        self.bias = self.add_weight(shape=(self.num_classes,), name="bias", initializer="zeros")
        super().build(features_shape)

    def call(self, features: Any, detections: Any) -> Any:
        """features [B * D, mh, mw, C] and detections [B, D, 6] -> probabilities [B, D, mh, mw]."""
        _, height, width, channels = features.shape
        classes = ops.cast(ops.reshape(detections[..., 4], (-1,)), "int32")
        kernels = ops.take(self.kernel, classes, axis=0)[:, :, None]
        pixels = ops.reshape(features, (-1, height * width, channels))
        logits = ops.matmul(pixels, kernels)[..., 0] + ops.take(self.bias, classes)[:, None]
        return ops.reshape(ops.sigmoid(logits), (-1, detections.shape[1], height, width))

    def compute_output_spec(self, features: Any, detections: Any) -> Any:
        return keras.KerasTensor((*detections.shape[:2], *features.shape[1:3]), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


def _numpy(variable: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(variable, "float32"))
