"""The network in OpenVINO: the fastest on a CPU where one was measured (docs/detection.md)."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
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

    On a CPU a network is compiled for the size of the first images that it is run on, and once more, for any size, when
    images of another come. Where sizes are known, OpenVINO lays out memory ahead and leaves copies out. Images go
    through one by one there, whatever the batch.

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
        EngineError: a file that OpenVINO cannot read, or a precision or device that is not to be had; of `run`: a
            network that it cannot compile.
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
        self._core, self._model, self._cache = core, model, cache
        # By the size of images that they are for; None: any.
        self._networks: dict[tuple[int, int] | None, _Network] = {}
        self._read = self._read_model()
        # One network at a time has all cores; several at once were no faster and each needs its own memory.
        self._lock = threading.Lock()

    def run(self, molded: np.ndarray, metas: np.ndarray, anchors: np.ndarray) -> list[Raw]:
        """See `Engine.run`."""
        arrays = [np.ascontiguousarray(array, np.float32) for array in (molded, metas, anchors)]
        found: list[Raw] = []
        with self._lock:
            network = self._network_for([array.shape for array in arrays])
            step = 1 if network.one_by_one else max(len(molded), 1)
            for start in range(0, len(molded), step):
                batch = [array[start : start + step] for array in arrays]
                found += split(*network.infer(batch), len(batch[0]))
        return found

    def _network_for(self, shapes: Sequence[tuple[int, ...]]) -> _Network:
        """The compiled network for inputs of these shapes."""
        size: tuple[int, int] | None = shapes[0][1:3] if self.device == "CPU" else None
        if size not in self._networks:
            if self._networks:
                size = None
            if size not in self._networks:
                self._networks[size] = self._compile(None if size is None else [(1, *shape[1:]) for shape in shapes])
        return self._networks[size]

    def _read_model(self) -> Any:
        try:
            model = self._core.read_model(self._model if isinstance(self._model, bytes) else str(self._model))
        except RuntimeError as error:
            raise self._cannot_run(error) from error
        _keep_float32(model)
        return model

    def _compile(self, shapes: Sequence[tuple[int, ...]] | None) -> _Network:
        """For inputs of these shapes, or of any."""
        model, self._read = self._read or self._read_model(), None
        properties = self._properties()
        if self._cache is not None and _make_room(self._cache):
            properties["CACHE_DIR"] = str(self._cache)
        try:
            if shapes is not None:
                model.reshape({name: list(shape) for name, shape in zip(INPUTS, shapes, strict=True)})
            return _Network(self._core.compile_model(model, self.device, properties), shapes is not None)
        except RuntimeError as error:
            raise self._cannot_run(error) from error

    def _cannot_run(self, error: RuntimeError) -> EngineError:
        what = "the network" if isinstance(self._model, bytes) else str(self._model)
        return EngineError(f"OpenVINO cannot run {what} on {self.device}: {str(error).strip()}")

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


class _Network:
    """A compiled network and what it takes to run it; `one_by_one`: it takes one image at a time."""

    def __init__(self, compiled: Any, one_by_one: bool) -> None:
        self.compiled = compiled
        self.one_by_one = one_by_one
        self.request = compiled.create_infer_request()
        self._outputs = [compiled.output(name) for name in OUTPUTS]

    def infer(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Inputs in the order of `INPUTS` -> outputs in that of `OUTPUTS`."""
        self.request.infer(dict(zip(INPUTS, arrays, strict=True)), share_inputs=True)
        return [self.request.get_tensor(port).data.copy() for port in self._outputs]


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
