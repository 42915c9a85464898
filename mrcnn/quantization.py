"""The network in 8-bit integers: NNCF's post-training quantization of the OpenVINO model.

Which layers: the convolutions of trunk, pyramid, proposals and mask head, the products of the class head, and what
lies between them. What speaks of boxes stays float32: coordinates in 256 steps would be wrong by pixels. So do the last
layers of the class head, which cost nothing and whose outputs are scores and boxes as they stand.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mrcnn.config import Config
from mrcnn.data.molding import mold_one
from mrcnn.engines.base import EngineError
from mrcnn.evaluation import EvaluationResult, evaluate
from mrcnn.graph.names import FLOAT32_PREFIX, INPUTS
from mrcnn.ops.anchors import pyramid_anchors
from mrcnn.ops.boxes import normalize_boxes
from mrcnn.requirements import require

# Fewer images than this are warned of.
FEW_IMAGES = 10

_WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
# Their other inputs are sizes, indices, boxes and weights.
_ONE_INPUT = (
    *_WEIGHTED,
    *("ROIAlign", "Gather", "Reshape", "Transpose", "Interpolate", "MaxPool", "Slice", "StridedSlice"),
)
_FLOAT_LAYERS = ("mrcnn_class_logits", "mrcnn_bbox_fc")

# With 384 output channels or more and rows of 192 pixels or more, oneDNN's 8-bit convolutions of padded signed input
# ran at 0.55 of their speed on AVX-512 VNNI; with 320 or less, never. The RPN has 512.
_MOST_CHANNELS = 256


def quantize(
    network: Any,
    config: Config,
    images: Iterable[np.ndarray],
    *,
    names: Sequence[str] | None = None,
    limit: int = 50,
    progress: bool = True,
) -> Any:
    """A network in int8, calibrated on images: for each tensor, the range of values that it takes on them.

    It needs no annotations. The same arguments give the same network.

    NNCF reports its use over the network unless it is told not to; where this function imports it first, it is told.

    Args:
        network: of `network_graph`: an `.onnx` or `.xml` file, an ONNX model's bytes or an `openvino.Model`, which is
            left as it is.
        config: what the network was built from, for inference.
        images: as `detect` takes them, of the kind that it will be given, and not those that it is tested on. A
            sequence is read image by image, each twice, so that one that reads files takes little memory.
        names: for messages, what to call each image.
        limit: how many images to use; of more, so many that are spread evenly. ResNet-101 at 1024 x 1024 takes a
            good part of a minute for each on two cores; 4, 10 and 20 of the demo's made no difference.
        progress: whether to show progress bars on the standard error stream.

    Returns:
        An `openvino.Model` with the inputs and outputs of `network`, for `OpenVINOEngine(..., quantized=True)`.

    Raises:
        ImportError: NNCF or OpenVINO is not installed.
        EngineError: a network that OpenVINO cannot read, or that was quantized already.
        TypeError, ValueError: no images, one that cannot be molded (it is named), or none in which the network finds
            anything.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1. Received: {limit}.")
    openvino = require("openvino", "int8", "Quantizing to int8")
    calibration = _Calibration(config, images, names, limit)
    model = _read(openvino, network)
    nncf = _nncf()
    calibration.keep_those_with_objects(openvino, model, progress)

    _fold_constants(model)
    _split_wide_convolutions(model)
    _name_apart(model)
    quantizable = _quantizable(model)
    others = [
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() not in ("Parameter", "Constant", "Result")
        and node.get_friendly_name() not in quantizable
    ]
    with _nncf_output(progress):
        quantized = nncf.quantize(
            model,
            nncf.Dataset(calibration.chosen, calibration.feed),
            preset=nncf.QuantizationPreset.MIXED,  # activations may lie off zero: as fast here as symmetric ranges
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(calibration.chosen),
            # The slow one took several times as long and brought AP no nearer to float32's.
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        )
    if quantized.has_rt_info("nncf"):  # a list of all these names, among others
        del quantized.rt_info["nncf"]
    return quantized


@dataclass(frozen=True)
class Comparison:
    """What precision costs: the same images measured with two models."""

    before: EvaluationResult
    after: EvaluationResult

    def lost(self, kind: str = "mask") -> float:
        """AP lost, of "mask" or "box": below zero where it was gained."""
        return getattr(self.before, kind).ap - getattr(self.after, kind).ap

    def __str__(self) -> str:
        kinds = [kind for kind in ("box", "mask") if getattr(self.before, kind) is not None]
        lines = [f"{self.before.image_count:,} images   " + "".join(f"{kind + ' AP':>10}{'AP50':>8}" for kind in kinds)]
        width = len(lines[0]) - 18 * len(kinds)
        for title, result in (("before", self.before), ("after", self.after)):
            figures = [getattr(result, kind) for kind in kinds]
            lines.append(title.ljust(width) + "".join(f"{f.ap:10.4f}{f.ap50:8.4f}" for f in figures))
        lines.append("lost".ljust(width) + "".join(f"{self.lost(kind):10.4f}{'':8}" for kind in kinds).rstrip())
        return "\n".join(lines)


def compare(
    before: Any, after: Any, dataset: Any, image_ids: Iterable[int] | None = None, **options: Any
) -> Comparison:
    """Average precision of two models, such as a network before and after quantization.

    Args:
        before, after: anything with `detect`, such as a `Detector`.
        dataset: with annotations, of images that were neither trained nor calibrated on.
        image_ids: which of its images; None: all.
        options: further arguments of `mrcnn.evaluation.evaluate`, whose errors these are.
    """
    ids = None if image_ids is None else list(image_ids)
    return Comparison(*(evaluate(model, dataset, ids, **options) for model in (before, after)))


class _Calibration:
    """Images as the network's inputs, molded when they are asked for."""

    def __init__(self, config: Config, images: Iterable[Any], names: Sequence[str] | None, limit: int) -> None:
        if isinstance(images, np.ndarray) and images.ndim in (2, 3):
            raise ValueError(f"images must be a list of images. Received: one array of shape {images.shape}.")
        self.config = config
        self.images = images if isinstance(images, Sequence | np.ndarray) else list(images)
        if len(self.images) == 0:
            raise ValueError("Calibration needs images of the kind that the network will be given. Received: none.")
        if names is not None and len(names) != len(self.images):
            raise ValueError(f"Each image needs a name. Received: {len(self.images)} images, {len(names)} names.")
        self.names = names
        count = min(limit, len(self.images))
        self.chosen: list[int] = np.linspace(0, len(self.images) - 1, count).round().astype(int).tolist()

    @functools.lru_cache(maxsize=4)  # noqa: B019 - lives as long as one quantization
    def _anchors(self, shape: tuple[int, int]) -> np.ndarray:
        return normalize_boxes(pyramid_anchors(self.config, shape), shape, self.config.BOX_GRID).astype(np.float32)[
            None
        ]

    def feed(self, index: int) -> dict[str, np.ndarray]:
        """The network's inputs for one image."""
        try:
            molded, meta, _ = mold_one(self.images[index], self.config)
        except (TypeError, ValueError) as error:
            name = self.names[index] if self.names else f"{index} of {len(self.images)}"
            raise type(error)(f"Calibration image {name}: {error}") from error
        arrays = molded[None], meta[None].astype(np.float32), self._anchors(molded.shape[:2])
        return dict(zip(INPUTS, arrays, strict=True))

    def keep_those_with_objects(self, openvino: Any, model: Any, progress: bool) -> None:
        """Choose among the chosen those in which the network finds something. Of the others the mask head gets empty
        tensors, of which NNCF makes nonsense, unheard: one black image among 21 brought mask AP from 0.77 to 0.47."""
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        port = compiled.output("detections")
        bar = tqdm(self.chosen, unit="image", desc="Looking for objects", disable=not progress)
        found = [index for index in bar if len(compiled(self.feed(index))[port])]
        without = len(self.chosen) - len(found)
        if not found:
            raise ValueError(
                f"The network finds nothing in any of the {without} calibration images. Give it images of what it "
                f"knows, or lower DETECTION_MIN_CONFIDENCE ({self.config.DETECTION_MIN_CONFIDENCE}) for its graph."
            )
        if len(found) < FEW_IMAGES:
            empty = f" (and {without} in which the network finds nothing)" if without else ""
            warnings.warn(
                f"Calibrating on {len(found)} image(s){empty}. Ranges that hold for all images want {FEW_IMAGES} at "
                "least, better 50.",
                stacklevel=3,
            )
        self.chosen = found


def _nncf() -> Any:
    """NNCF, told to keep its use to itself."""
    given = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"  # read when it is imported
    try:
        with _nncf_output(False):
            return require("nncf", "int8", "Quantizing to int8")
    finally:
        if given is None:
            del os.environ["NNCF_CI"]


@contextlib.contextmanager
def _nncf_output(progress: bool) -> Iterator[None]:
    """Its log without what is no error; its progress bars, which it prints, on the standard error stream or nowhere."""
    logger = logging.getLogger("nncf")
    with contextlib.redirect_stdout(sys.stderr if progress else io.StringIO()):
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _read(openvino: Any, network: Any) -> Any:
    if isinstance(network, openvino.Model):
        model = network.clone()
    else:
        try:
            model = openvino.Core().read_model(network if isinstance(network, bytes) else str(Path(network)))
        except RuntimeError as error:
            what = "the network" if isinstance(network, bytes) else network
            raise EngineError(f"OpenVINO cannot read {what}: {str(error).strip()}") from error
    if any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
        raise EngineError("This network was quantized already. Quantize the one in float32 that it was made from.")
    return model


def _fold_constants(model: Any) -> None:
    """Read from ONNX, a bias is a chain of operations on sizes, in which NNCF sees no bias to correct."""
    passes = importlib.import_module("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)


def _split_wide_convolutions(model: Any) -> None:
    """Make several convolutions, each of some of the outputs, of one whose input may be negative; see
    `_MOST_CHANNELS`."""
    ops = importlib.import_module("openvino.opset13")
    wide = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            source, kernel = (value.get_node() for value in node.input_values())
            if source.get_type_name() != "Relu" and kernel.get_type_name() == "Constant":
                count, _, *size = kernel.data.shape
                if count > _MOST_CHANNELS and max(size) > 1:
                    wide.append((node, kernel.data))
    for convolution, kernel in wide:
        last, bias, relu = convolution, None, False
        if (follower := _only_reader(last, "Add")) is not None:
            bias = follower.input_value(1).get_node()
            if bias.get_type_name() != "Constant" or bias.data.shape != (1, len(kernel), 1, 1):
                continue
            last = follower
        if (follower := _only_reader(last, "Relu")) is not None:
            last, relu = follower, True
        how = convolution.get_attributes()
        parts = []
        for start in range(0, len(kernel), _MOST_CHANNELS):
            own = slice(start, start + _MOST_CHANNELS)
            part = ops.convolution(
                convolution.input_value(0), ops.constant(np.ascontiguousarray(kernel[own])), how["strides"],
                how["pads_begin"], how["pads_end"], how["dilations"], how["auto_pad"],
            )  # fmt: skip
            part.set_friendly_name(f"{convolution.get_friendly_name()}/{start}")
            if bias is not None:
                part = ops.add(part, ops.constant(np.ascontiguousarray(bias.data[:, own])))
            parts.append(ops.relu(part) if relu else part)
        readers = last.output(0).get_target_inputs()
        whole = ops.concat(parts, 1)
        for reader in readers:
            reader.replace_source_output(whole.output(0))
    model.validate_nodes_and_infer_types()


def _only_reader(node: Any, kind: str) -> Any:
    """What reads a node's output, if that is one node and of a kind."""
    readers = list(node.output(0).get_target_inputs())
    return readers[0].get_node() if len(readers) == 1 and readers[0].get_node().get_type_name() == kind else None


def _name_apart(model: Any) -> None:
    """Give each node a name of its own: NNCF is told by name what to leave alone."""
    seen: set[str] = set()
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if name in seen:
            name = next(new for i in itertools.count(1) if (new := f"{name}/{i}") not in seen)
            node.set_friendly_name(name)
        seen.add(name)


def _quantizable(model: Any) -> set[str]:
    """Names of the nodes that may compute in int8: layers with weights, and all that leads from the image to them."""
    nodes = [node for node in model.get_ops() if _is_layer(node)]
    found = {node.get_friendly_name() for node in nodes}
    while nodes:
        node = nodes.pop()
        values = node.input_values()
        for value in values[:1] if node.get_type_name() in _ONE_INPUT else values:
            parent = value.get_node()
            name = parent.get_friendly_name()
            if name in found or parent.get_type_name() in ("Parameter", "Constant"):
                continue
            if not any(tensor.startswith(FLOAT32_PREFIX) for tensor in value.get_names()):
                found.add(name)
                nodes.append(parent)
    # From ROIAlign to the concatenation of its levels no ranges are wanted: a level without boxes has none.
    crops: set[str] = set()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        of_crops = any(value.get_node().get_friendly_name() in crops for value in node.input_values())
        if kind == "ROIAlign" or (of_crops and kind in ("Multiply", "Concat")):
            crops.add(node.get_friendly_name())
    return found - crops


def _is_layer(node: Any) -> bool:
    if node.get_type_name() not in _WEIGHTED or node.get_friendly_name().partition("/")[0] in _FLOAT_LAYERS:
        return False
    weights = node.input_value(1).get_node()
    while weights.get_type_name() in ("Convert", "Reshape", "Transpose"):
        weights = weights.input_value(0).get_node()
    return weights.get_type_name() == "Constant"
