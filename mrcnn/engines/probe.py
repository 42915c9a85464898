"""A small measurement that tells engines apart: the rate at which each does convolutions like the network's.

The stack of convolutions for OpenVINO and ONNX Runtime is a file of the package, for making one takes the package onnx,
which a machine that only detects need not have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.engines.base import EngineError
from mrcnn.engines.openvino_engine import capabilities_of
from mrcnn.requirements import require

# Of the network's most common kind: 3x3, 256 channels wide, on a map as large as P4 of a large image.
SIDE, CHANNELS, CONVOLUTIONS = 64, 256, 6
FLOPS = CONVOLUTIONS * 2 * 9 * CHANNELS**2 * SIDE**2
_ROUNDS = 3


def probe_path() -> Path:
    """The ONNX file: [1, C, side, side] -> the same, of `CONVOLUTIONS` convolutions whose kernels are all alike."""
    return Path(__file__).parents[1] / "assets" / "probe.onnx"


def measure_rate(engine: str, precision: str, threads: int | None = None) -> float:
    """Floating point operations a second, best of a few runs; takes about a second.

    Args:
        engine: "keras", "openvino" or "onnxruntime", which must be installed.
        precision: "float32" or "bfloat16".
        threads: as for the engine.
    """
    run = {"keras": _keras, "openvino": _openvino, "onnxruntime": _onnxruntime}[engine](precision, threads)
    run()
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return FLOPS / min(seconds)


def _openvino(precision: str, threads: int | None) -> Callable[[], Any]:
    openvino = require("openvino", "openvino", "The engine openvino")
    properties: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "NUM_STREAMS": 1,
    }
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    if precision == "bfloat16" and "BF16" not in capabilities_of(core, "CPU"):  # it would be float32
        raise EngineError("This processor does not compute in bfloat16.")
    request = core.compile_model(str(probe_path()), "CPU", properties).create_infer_request()
    image = _image()
    return lambda: request.infer([image], share_inputs=True, share_outputs=True)


def _onnxruntime(precision: str, threads: int | None) -> Callable[[], Any]:
    runtime = require("onnxruntime", "onnx", "The engine onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(probe_path()), options, providers=["CPUExecutionProvider"])
    image = _image()
    return lambda: session.run(None, {"image": image})


def _keras(precision: str, threads: int | None) -> Callable[[], Any]:
    import keras

    from mrcnn.engines.keras_engine import set_threads

    set_threads(threads)
    kernel = keras.ops.cast(np.full((3, 3, CHANNELS, CHANNELS), 1e-4, np.float32), precision)

    def stack(x: Any) -> Any:
        for _ in range(CONVOLUTIONS):
            x = keras.ops.relu(keras.ops.conv(x, kernel, padding="same"))
        return keras.ops.sum(keras.ops.cast(x, "float32"))

    image = keras.ops.cast(_image().transpose(0, 2, 3, 1), precision)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        stack = tf.function(stack)
    elif backend == "jax":
        import jax

        stack = jax.jit(stack)
    return lambda: float(keras.ops.convert_to_numpy(keras.ops.stop_gradient(stack(image))))


def _image() -> np.ndarray:
    return np.random.default_rng(0).random((1, CHANNELS, SIDE, SIDE), np.float32)
