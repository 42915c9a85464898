"""The formats of exported models: how each is written, and how it is run to be checked.

openvino and onnx hold the graph of `mrcnn.graph.network`, the others the slim Keras network of `mrcnn.slim` as Keras
exports it.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.data.images import read_image
from mrcnn.engines.base import Engine, Raw
from mrcnn.engines.onnxruntime_engine import ONNXRuntimeEngine
from mrcnn.engines.openvino_engine import OpenVINOEngine, prefers_bfloat16
from mrcnn.formats import FORMATS, ExportError
from mrcnn.graph.names import INPUTS
from mrcnn.graph.network import network_graph
from mrcnn.ops.nms import portable
from mrcnn.requirements import installed
from mrcnn.slim import slim_network

# Weights below this size are as good as nothing in a file, and among them are numbers that halving them would spoil.
_LARGE = 1024
_LARGEST_HALF = 65504.0
# Sizes that are open, as the description of an exported model names them.
_OPEN = {"input_image": ("B", "h", "w"), "input_image_meta": ("B",), "input_anchors": ("B", "A")}


@dataclass(frozen=True)
class Job:
    """What is exported.

    Attributes:
        network, config: the network, and what it was built from.
        precision: "float32", "bfloat16" or "int8".
        inputs: of one image, which the exported model will be checked with.
        class_names: [K]; None where they are not known.
        calibration: for int8, files or arrays.
    """

    network: keras.Model
    config: Config
    precision: str
    inputs: Sequence[np.ndarray]
    class_names: tuple[str, ...] | None
    calibration: Sequence[Any] | None


@dataclass(frozen=True)
class Exporter:
    """How a format is made.

    Attributes:
        write: (job, folder) -> name of the file or folder that it has written there.
        run: (job, path) -> what the written one finds in the job's image, and what ran it, in words.
    """

    write: Callable[[Job, Path], str]
    run: Callable[[Job, Path], tuple[Raw, str]]


def exporter_of(format: str) -> Exporter:
    """That of a format.

    Raises:
        ExportError: Keras runs on another backend than it takes.
    """
    needed, there = FORMATS[format].backend, keras.backend.backend()
    if needed not in (None, there):
        raise ExportError(
            f"Keras exports as {format} on {needed}, and runs on {there} here. Set the environment variable "
            f"KERAS_BACKEND={needed} before Python starts."
        )
    return _EXPORTERS[format]


def input_shapes(job: Job, format: str) -> dict[str, list[Any]]:
    """Shapes of the inputs by name; letters are open sizes."""
    shapes = {name: list(array.shape) for name, array in zip(INPUTS, job.inputs, strict=True)}
    if FORMATS[format].open_sizes:
        shapes = {name: [*_OPEN[name], *shape[len(_OPEN[name]) :]] for name, shape in shapes.items()}
    return shapes


def _onnx(job: Job) -> bytes:
    metadata = {"config": json.dumps(job.config.to_dict()), "class_names": json.dumps(job.class_names)}
    return network_graph(job.network, job.config, metadata).SerializeToString()


def _write_onnx(job: Job, folder: Path) -> str:
    (folder / "model.onnx").write_bytes(_onnx(job))
    return "model.onnx"


def _write_openvino(job: Job, folder: Path) -> str:
    import openvino

    if job.precision == "int8":
        from mrcnn.quantization import quantize

        images = _Images(job.calibration)
        model = quantize(_onnx(job), job.config, images, names=images.names)
    else:
        model = openvino.Core().read_model(_onnx(job))
        if job.precision == "bfloat16":
            _halve_weights(model)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return "model.xml"


class _Images(Sequence):
    """Images of which some are files, read when they are asked for."""

    def __init__(self, images: Sequence[str | Path | np.ndarray]) -> None:
        self.images = images
        self.names = [f"{i}" if isinstance(image, np.ndarray) else str(image) for i, image in enumerate(images)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        image = self.images[index]
        return image if isinstance(image, np.ndarray) else read_image(image)


def _halve_weights(model: Any) -> None:
    """Store large constants as float16, which holds a bfloat16 network's weights to 3 bits more than it uses.

    OpenVINO's own compression takes all constants: a threshold of 0.7 would become 0.70020.
    """
    import openvino
    import openvino.opset13 as ops

    for node in model.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != openvino.Type.f32:
            continue
        values = node.data
        if values.size < _LARGE or np.abs(values).max() > _LARGEST_HALF:
            continue
        half = ops.convert(ops.constant(values.astype(np.float16)), "f32")
        half.set_friendly_name(node.get_friendly_name())
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(half.output(0))


def engine_of(job: Job, path: Path) -> Engine:
    """The engine that runs an exported `.onnx` or OpenVINO file as it was exported."""
    if path.suffix == ".onnx":
        return ONNXRuntimeEngine(path)
    # bfloat16 where the processor knows it: a model for such a machine can be exported on another.
    precision = "auto" if job.precision == "bfloat16" else job.precision
    return OpenVINOEngine(path, precision, quantized=precision == "int8")


def bfloat16_engine(path: Path) -> Engine | None:
    """The engine that detection here might choose for a float32 file, and that computes in bfloat16; None: it would
    not."""
    return OpenVINOEngine(path, "bfloat16") if installed("openvino") and prefers_bfloat16() else None


def _run_engine(job: Job, path: Path) -> tuple[Raw, str]:
    engine = engine_of(job, path)
    return engine.run(*job.inputs)[0], f"{engine.name} {importlib.metadata.version(engine.name)} in {engine.precision}"


def _keras_export(job: Job, path: Path, format: str, **options: Any) -> str:
    """Let Keras write the slim network."""
    slim = slim_network(job.network, None if job.precision == "float32" else job.precision)
    quiet = logging.getLogger("torch")
    level = quiet.level
    try:
        quiet.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters, about their own insides
            slim.export(path, format=format, verbose=False, **options)
    except Exception as error:  # whatever an exporter raises: none has types of its own
        told = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"Keras {keras.__version__} cannot export this network as {format}: {told}") from error
    finally:
        quiet.setLevel(level)
    return path.name


def _write_saved_model(job: Job, folder: Path) -> str:
    return _keras_export(job, folder / "saved_model", "tf_saved_model")


def _run_saved_model(job: Job, path: Path) -> tuple[Raw, str]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    found = loaded.signatures["serving_default"](
        **{name: tf.constant(array) for name, array in zip(INPUTS, job.inputs, strict=True)}
    )
    return _raw({name: value.numpy() for name, value in found.items()}), f"TensorFlow {tf.__version__}"


def _write_litert(job: Job, folder: Path) -> str:
    with portable():
        return _keras_export(job, folder / "model.tflite", "litert")


def _run_litert(job: Job, path: Path) -> tuple[Raw, str]:
    if installed("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter

        told = f"LiteRT {importlib.metadata.version('ai-edge-litert')}"
    else:
        import tensorflow as tf

        Interpreter, told = tf.lite.Interpreter, f"the LiteRT interpreter of TensorFlow {tf.__version__}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TensorFlow's interpreter is to move to a package of its own
        interpreter = Interpreter(model_path=str(path))
    runner = interpreter.get_signature_runner()
    return _raw(runner(**dict(zip(INPUTS, job.inputs, strict=True)))), told


def _write_torch(job: Job, folder: Path) -> str:
    import torch

    signature = [[keras.InputSpec(shape=array.shape, dtype="float32") for array in job.inputs]]
    with portable(), torch.no_grad():
        return _keras_export(job, folder / "model.pt2", "torch", input_signature=signature)


def _run_torch(job: Job, path: Path) -> tuple[Raw, str]:
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.export.load(str(path)).module()([torch.from_numpy(array) for array in job.inputs])
    return _raw({name: value.numpy() for name, value in found.items()}), f"PyTorch {torch.__version__}"


def _raw(outputs: dict[str, np.ndarray]) -> Raw:
    """The slim network's outputs for one image without padding."""
    detections, masks = outputs["detections"][0], outputs["masks"][0]
    real = detections[:, 4] > 0
    return detections[real], masks[real]


_EXPORTERS = {
    "openvino": Exporter(_write_openvino, _run_engine),
    "onnx": Exporter(_write_onnx, _run_engine),
    "saved_model": Exporter(_write_saved_model, _run_saved_model),
    "litert": Exporter(_write_litert, _run_litert),
    "torch": Exporter(_write_torch, _run_torch),
}
