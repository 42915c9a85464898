"""torchvision's network as an ONNX file, and that file in OpenVINO and ONNX Runtime.

Mask pasting is left out, else OpenVINO does not take it: masks come out as [N, 28, 28] probabilities of the detected
class in their boxes, and nobody pastes them. This spares the converted network work that the others do.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

OPSET = 17
INPUT = "image"
OUTPUTS = ("boxes", "labels", "scores", "masks")


def onnx_file(cache: Path, photo: np.ndarray) -> Path:
    """Path of torchvision's network as an ONNX file: image [3, H, W] float32 in 0..1 -> boxes [N, 4], labels [N],
    scores [N], masks [N, 1, 28, 28]. It may not be there yet; `make_onnx_file` makes it."""
    return cache / f"torchvision_r101_{photo.shape[0]}.onnx"


def make_onnx_file(cache: Path, photo: np.ndarray) -> None:
    """Make `onnx_file`, if it is not there. Needs torchvision and onnx."""
    path = onnx_file(cache, photo)
    if path.exists():
        return
    import torch

    from benchmarks import torchvision_peer

    model = torchvision_peer.load(cache, photo)
    model.transform.postprocess = lambda result, sizes, originals: result  # network and photo are of one size
    partial = path.with_suffix(".partial")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            ([torchvision_peer.to_tensor(photo)],),
            str(partial),
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamo=False,  # the exporter that torchvision's own branches for tracing are written for
        )
    partial.replace(path)


class _ConvertedDetector:
    """uint8 photo in; boxes, labels, scores and masks [N, 28, 28] out."""

    @staticmethod
    def prepare(cache: Path, photo: np.ndarray, **_: Any) -> None:
        """Convert the network."""
        make_onnx_file(cache, photo)

    def __call__(self, photo: np.ndarray) -> dict[str, np.ndarray]:
        image = np.multiply(photo.transpose(2, 0, 1), np.float32(1 / 255), dtype=np.float32, order="C")
        found = dict(zip(OUTPUTS, self._run(image), strict=True))
        return {**found, "masks": found["masks"][:, 0]}

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        raise NotImplementedError


class OpenVINOPeer(_ConvertedDetector):
    """The file in OpenVINO, set for least latency."""

    def __init__(self, cache: Path, photo: np.ndarray, precision: str) -> None:
        import openvino

        core = openvino.Core()
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        self._compiled = core.compile_model(core.read_model(onnx_file(cache, photo)), "CPU", settings)
        self._request = self._compiled.create_infer_request()
        self.facts = {
            "versions": {"openvino": openvino.__version__},
            "threads": self._compiled.get_property("INFERENCE_NUM_THREADS"),
            "pastes_masks": False,
        }

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        results = self._request.infer([image], share_inputs=True)
        return [results[output] for output in self._compiled.outputs]


class OnnxRuntimePeer(_ConvertedDetector):
    """The file in ONNX Runtime, on the CPU."""

    def __init__(self, cache: Path, photo: np.ndarray) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        path = str(onnx_file(cache, photo))
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.facts = {"versions": {"onnxruntime": onnxruntime.__version__}, "pastes_masks": False}

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        return self._session.run(list(OUTPUTS), {INPUT: image})
