"""Three steps of training on one device or on two, and what came of them; run as a program for devices of its own.

python -m tests.two_devices DEVICES RESULT.npz [FIELD=VALUE ...]
"""

from __future__ import annotations

import ast
import os
import random
import sys
import tempfile
from typing import Any
from unittest import mock

import numpy as np

# Images of a step, and steps.
IMAGES, STEPS = 4, 3


def two_cpu_devices(backend: str) -> None:
    """Split the CPU in two, before anything runs. PyTorch's devices are processes, told by their environment."""
    if backend == "jax":
        # Its compiler does without what makes programs faster: it would take longer than they run.
        os.environ["XLA_FLAGS"] = (
            "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0 "
            "--xla_llvm_disable_expensive_passes=true"
        )
    elif backend == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # as for JAX


def train(gpu_count: int, **fields: Any) -> dict[str, np.ndarray]:
    """Losses of each step, of validation, and the weights afterwards."""
    import keras

    from mrcnn.model import MaskRCNN
    from tests.backbones import five_convolutions
    from tests.shapes import Shapes, ShapesConfig

    class TwoConfig(ShapesConfig):
        BACKBONE = five_convolutions
        GPU_COUNT = gpu_count
        IMAGES_PER_GPU = IMAGES // gpu_count
        IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
        RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
        STEPS_PER_EPOCH = STEPS
        VALIDATION_STEPS = 2
        GRADIENT_CLIP_NORM = 1.0  # less than the gradients' norm, so that clipping is seen
        ROI_FILL_NEGATIVES = False

    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            losses.append([float(logs[name]) for name in sorted(logs)])

    class OwnNetwork(MaskRCNN):
        """As docs/interop.md has it: a network made of the one that there is, on all devices."""

        def build(self, mode: str, config: Any) -> keras.Model:
            network = super().build(mode, config)
            with network.data_parallel.building():
                *others, loss = network.outputs
                scale = keras.layers.Dense(1, use_bias=False, name="mrcnn_scale")
                loss = keras.ops.reshape(scale(keras.ops.reshape(loss, (1, 1))), ())
                changed = type(network)(network.inputs, [*others, loss], name=network.name)
            changed.data_parallel = network.data_parallel
            return changed

    losses: list[list[float]] = []
    random.seed(1)  # what Keras draws its seeds from; its own function imports every framework
    # TensorBoard's callback imports TensorFlow, which takes longer than the rest on other backends.
    with tempfile.TemporaryDirectory() as folder, mock.patch("mrcnn.training.tensorboard", return_value=[]):
        kind = OwnNetwork if fields.pop("own_network", False) else MaskRCNN
        model = kind("training", TwoConfig.from_dict(fields), folder)
        if fields.pop("GPU_COUNT", gpu_count) > 1:
            assert model.keras_model.data_parallel.count == gpu_count
        # Proposals near the anchors hardly feel the last bits, and with them the legacy ROIAlign: at the border of the
        # image a last bit decides.
        deltas = model.keras_model.get_layer("rpn_model").get_layer("rpn_bbox_pred")
        deltas.set_weights([np.zeros_like(weight) for weight in deltas.get_weights()])
        images, others = Shapes(12, size=64), Shapes(2 * IMAGES, seed=2, size=64)
        history = model.train(images, others, 0.01, 1, "all", custom_callbacks=[Steps()], verbose=0).history
    found = {"losses": np.array(losses), "validation": np.array([v[0] for k, v in sorted(history.items())])}
    found |= split(gpu_count)
    weights = model.keras_model.variables
    return found | {v.path: keras.ops.convert_to_numpy(v) for v in weights if "seed" not in v.path}


def split(gpu_count: int) -> dict[str, np.ndarray]:
    """A small model, or a `ParallelModel` of it, trained on batches that cannot be divided evenly."""
    import keras

    from mrcnn.parallel_model import ParallelModel

    random.seed(2)
    image = keras.Input((6, 6, 1))
    features = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model(image, keras.layers.Dense(3)(features))
    if gpu_count > 1:
        model = ParallelModel(model, gpu_count)
        assert os.environ["KERAS_BACKEND"] == "torch" or len(model.devices) == gpu_count
    rng = np.random.default_rng(0)
    images, targets = rng.normal(size=(11, 6, 6, 1)).astype(np.float32), rng.normal(size=(11, 3)).astype(np.float32)
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    history = model.fit(images, targets, batch_size=5, epochs=2, shuffle=False, verbose=0).history
    return {"split losses": np.array(history["loss"]), "split outputs": model.predict(images, verbose=0)}


if __name__ == "__main__":
    two_cpu_devices(os.environ["KERAS_BACKEND"])
    values = {key: ast.literal_eval(value) for key, _, value in (text.partition("=") for text in sys.argv[3:])}
    result = train(int(sys.argv[1]), **values)
    if int(os.environ.get("RANK", 0)) == 0:
        np.savez(sys.argv[2], **result)
