"""The network in ONNX Runtime: where OpenVINO is not to be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mrcnn.engines.base import EngineError, Raw, check_threads, precision_name, split
from mrcnn.graph.names import INPUTS, OUTPUTS
from mrcnn.requirements import require

_PROVIDERS = {"CPU": "CPUExecutionProvider", "CUDA": "CUDAExecutionProvider"}


class ONNXRuntimeEngine:
    """See `Engine`.

    Args:
        model: an `.onnx` file of `network_graph`'s network, or the model's bytes.
        precision: "float32" or "auto", which is the same: ONNX Runtime knows no other on a CPU for this network.
        threads: how many to use; None: ONNX Runtime decides.
        device: "CPU" or "CUDA", which needs the package onnxruntime-gpu.

    Raises:
        ImportError: ONNX Runtime is not installed.
        EngineError: a file that it cannot read, or a precision or device that is not to be had.
        ValueError: an argument that cannot be.
    """

    name = "onnxruntime"

    def __init__(
        self, model: str | Path | bytes, precision: str = "auto", threads: int | None = None, device: str = "CPU"
    ) -> None:
        runtime = require("onnxruntime", "onnx", "The engine onnxruntime")
        check_threads(threads)
        precision = precision_name(precision)
        if precision not in ("auto", "float32"):
            raise EngineError(
                f"The engine onnxruntime computes in float32. Received: precision {precision!r}. See openvino."
            )
        available = runtime.get_available_providers()
        if _PROVIDERS.get(device) not in available:
            raise EngineError(f"ONNX Runtime has no device {device!r} here. Its providers: {', '.join(available)}.")
        self.precision = "float32"
        self.threads = threads
        self.device = device
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors: it warns of shapes that only a run decides
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = runtime.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=[_PROVIDERS[device]]
            )
        except Exception as error:  # its own types share no parent of their own
            what = "the network" if isinstance(model, bytes) else str(model)
            raise EngineError(f"ONNX Runtime cannot run {what}: {str(error).strip()}") from error

    def run(self, molded: np.ndarray, metas: np.ndarray, anchors: np.ndarray) -> list[Raw]:
        """See `Engine.run`."""
        arrays = [np.ascontiguousarray(array, np.float32) for array in (molded, metas, anchors)]
        detections, image_index, masks = self._session.run(list(OUTPUTS), dict(zip(INPUTS, arrays, strict=True)))
        return split(detections, image_index, masks, len(molded))
