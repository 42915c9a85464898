"""The network in OpenVINO: the fastest on a CPU where one was measured (docs/detection.md)."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.engines.base import EngineError, Raw, check_threads, precision_name, split
from mrcnn.graph.names import FLOAT32_PREFIX, INPUTS, OUTPUTS
from mrcnn.requirements import require

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Compiled networks are kept up to this much together; one of ResNet-101 takes 0.28 GB.
_CACHE_BYTES = 1_200_000_000


class OpenVINOEngine:
    """See `Engine`.

    Args:
        model: an `.onnx` or OpenVINO `.xml` file of `network_graph`'s network, or the ONNX model's bytes.
        precision: "float32", "bfloat16", "int8" for a model that was quantized, or "auto": what the file is of, or else
            "bfloat16" where the processor has instructions for it and "float32" where it does not.
        threads: how many to use; None: OpenVINO decides.
        device: OpenVINO's name of the device.
        quantized: whether the model was quantized to int8.
        cache: a folder for compiled networks, by their content; None: each start compiles. With ResNet-101 a start took
            0.2 s of processor time instead of 0.8 to 1.2.

    Raises:
        ImportError: OpenVINO is not installed.
        EngineError: a file that OpenVINO cannot read, or a precision or device that is not to be had.
        ValueError: an argument that cannot be.
    """

    name = "openvino"

    def __init__(
        self,
        model: str | Path | bytes,
        precision: str = "auto",
        threads: int | None = None,
        device: str = "CPU",
        quantized: bool = False,
        cache: Path | None = None,
    ) -> None:
        openvino = require("openvino", "openvino", "The engine openvino")
        check_threads(threads)
        core = openvino.Core()
        self.threads = threads
        self.device = device
        self.precision = self._choose(core, precision_name(precision), quantized)
        try:
            network = core.read_model(model if isinstance(model, bytes) else str(model))
            _keep_float32(network)
            properties = self._properties()
            if cache is not None and _make_room(cache):
                properties["CACHE_DIR"] = str(cache)
            self._compiled = core.compile_model(network, device, properties)
        except RuntimeError as error:
            what = "the network" if isinstance(model, bytes) else str(model)
            raise EngineError(f"OpenVINO cannot run {what} on {device}: {str(error).strip()}") from error
        self._request = self._compiled.create_infer_request()
        self._outputs = [self._compiled.output(name) for name in OUTPUTS]
        # One network at a time has all cores; several at once were no faster and each needs its own memory.
        self._lock = threading.Lock()

    def run(self, molded: np.ndarray, metas: np.ndarray, anchors: np.ndarray) -> list[Raw]:
        """See `Engine.run`."""
        arrays = [np.ascontiguousarray(array, np.float32) for array in (molded, metas, anchors)]
        with self._lock:
            self._request.infer(dict(zip(INPUTS, arrays, strict=True)), share_inputs=True)
            detections, image_index, masks = (self._request.get_tensor(port).data.copy() for port in self._outputs)
        return split(detections, image_index, masks, len(molded))

    def _choose(self, core: Any, precision: str, quantized: bool) -> str:
        capabilities = capabilities_of(core, self.device)
        if quantized:
            if precision not in ("auto", "int8"):
                raise EngineError(
                    f"This model was quantized to int8; precision must be auto or int8. Received: {precision!r}."
                )
            return "int8"
        if precision == "auto":
            return "bfloat16" if prefers_bfloat16(core, self.device) else "float32"
        if precision == "int8":
            raise EngineError(
                "This model is not quantized: precision 'int8' needs one of `mrcnn export --precision int8`."
            )
        if precision == "bfloat16" and "BF16" not in capabilities:
            raise EngineError(
                f"The device {self.device} does not compute in bfloat16 (it does in {', '.join(capabilities)}). "
                "Use precision 'float32'."
            )
        return precision

    def _properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        # Without a hint, what is not int8 computes in bfloat16 where the processor has instructions for it.
        if self.precision in _HINTS:
            properties["INFERENCE_PRECISION_HINT"] = _HINTS[self.precision]
        if self.device == "CPU":
            properties["NUM_STREAMS"] = 1
            if self.threads is not None:
                properties["INFERENCE_NUM_THREADS"] = self.threads
        return properties


def prefers_bfloat16(core: Any = None, device: str = "CPU") -> bool:
    """Whether OpenVINO would compute in bfloat16 by itself: where there are instructions for it. (It can wherever there
    is AVX-512, but slower than in float32.)"""
    import openvino

    core = openvino.Core() if core is None else core
    return core.get_property(device, "INFERENCE_PRECISION_HINT") == openvino.Type.bf16


def capabilities_of(core: Any, device: str) -> list[str]:
    """What OpenVINO says that a device computes in, such as "FP32", "BF16".

    Raises:
        EngineError: there is no such device.
    """
    try:
        return list(core.get_property(device, "OPTIMIZATION_CAPABILITIES"))
    except RuntimeError as error:
        raise EngineError(
            f"OpenVINO has no device {device!r} here. It has: {', '.join(core.available_devices)}."
        ) from error


def _make_room(cache: Path) -> bool:
    """Let there be a folder, and room in it for one compiled network more: the oldest go. False: it cannot be used."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        kept = 0
        for blob in sorted(cache.glob("*.blob"), key=lambda path: path.stat().st_mtime, reverse=True):
            kept += blob.stat().st_size
            if kept > _CACHE_BYTES:
                blob.unlink()
    except OSError:  # another process at it too, or no right to
        return cache.is_dir() and os.access(cache, os.W_OK)
    return os.access(cache, os.W_OK)


def _keep_float32(network: Any) -> None:
    """Make outputs of what must not be rounded to bfloat16, see `FLOAT32_PREFIX`: of the demo's detections, boxes
    moved by up to 3.9 pixels without, and 0.4 with. What becomes of the outputs is nobody's concern; they are small."""
    names = [
        name
        for node in network.get_ops()
        for port in node.outputs()
        for name in port.get_names()
        if name.startswith(FLOAT32_PREFIX)
    ]
    there = {name for port in network.outputs for name in port.get_names()}
    network.add_outputs([name for name in names if name not in there])
