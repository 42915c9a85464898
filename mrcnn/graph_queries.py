"""Looking into a built network: a tensor by the name that it had in the original's graph, and its value for images.

Letters: B images, N anchors that enter the suppression, R rois. Boxes (y1, x1, y2, x2), *normalized*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from mrcnn.keras_model import Network
from mrcnn.layers.proposals import ProposalLayer

# Tensors inside `ROI`, in the order of `ProposalLayer.steps`.
_STEPS = ("pre_nms_anchors", "refined_anchors", "refined_anchors_clipped")
# TensorFlow renamed the operation twice; the number counts the images of a batch.
_SUPPRESSION = re.compile(r"rpn_non_max_suppression(?:_(?P<image>\d+))?(?:/NonMaxSuppression(?:V\d)?)?")


def ancestor(tensor: Any, name: str) -> Any | None:
    """The tensor called `name` that `tensor` is computed from (or that it is).

    Args:
        tensor: a KerasTensor of a built network.
        name: of a layer ("fpn_p2"), with or without the number of its output (":0"), or one of the tensors inside the
            layer `ROI`, by the names that they had in TensorFlow's graph:
            ROI/pre_nms_anchors:0, ROI/refined_anchors:0, ROI/refined_anchors_clipped:0: the anchors that score best,
            [B, N, 4]; moved by their deltas; clipped to the image.
            ROI/rpn_non_max_suppression:0 (also .../NonMaxSuppression:0, ...V2:0, ...V3:0): which of these N boxes of
            image 0 become proposals, best first, int32; rpn_non_max_suppression_1 for image 1, and so on. `run_graph`
            gives as many as there are; the tensor is filled up to R with -1.

    Returns:
        A KerasTensor; None where no such tensor comes before `tensor`.

    Raises:
        TypeError: not a tensor of a network.
    """
    if not isinstance(tensor, keras.KerasTensor) or not hasattr(tensor, "_keras_history"):
        raise TypeError(
            "ancestor takes a tensor of the network, such as keras_model.get_layer('ROI').output. "
            f"Received: {tensor!r}."
        )
    path, _, number = name.partition(":")
    index = int(number) if number.isdigit() else 0
    left, seen = [tensor], set()
    while left:
        found = left.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        operation, node_index, _ = found._keras_history
        node = operation._inbound_nodes[node_index]
        if found.name == name or (operation.name == path and index < len(node.outputs)):
            return found if found.name == name else node.outputs[index]
        if isinstance(operation, ProposalLayer) and path.startswith(f"{operation.name}/") and index == 0:
            inside = _inside(operation, node.input_tensors, path.removeprefix(f"{operation.name}/"))
            if inside is not None:
                return inside
        left.extend(node.input_tensors)
    return None


def run(inputs: Mapping[str, np.ndarray], outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Values of tensors of a network.

    Args:
        inputs: arrays by the name of the network's input that they are for; others than `outputs` need are left out.
        outputs: KerasTensors by names of your choice.

    Raises:
        TypeError: an output that is no tensor of a network.
        ValueError: an output that needs an input which is not there.
    """
    for key, tensor in outputs.items():
        if not isinstance(tensor, keras.KerasTensor) or not hasattr(tensor, "_keras_history"):
            raise TypeError(
                f"The output {key!r} must be a tensor of the network, such as keras_model.get_layer(name).output. "
                f"Received: {tensor!r}."
            )
    if not outputs:
        return {}
    needed = _inputs_of(outputs.values())
    missing = sorted(tensor.name for tensor in needed if tensor.name not in inputs)
    if missing:
        raise ValueError(
            f"The outputs {', '.join(outputs)} need the inputs {', '.join(missing)}, which images alone do not give: "
            "use a model in inference mode."
        )
    network, arrays = Network(needed, dict(outputs)), [inputs[tensor.name] for tensor in needed]
    if keras.backend.backend() == "tensorflow":  # which would take longer to make a graph than to run it once
        values = network([ops.convert_to_tensor(array) for array in arrays], training=False)
    else:
        values = network.predict_on_batch(arrays)
    result = {}
    for key, tensor in outputs.items():
        value = ops.convert_to_numpy(values[key])
        result[key] = value[value >= 0] if isinstance(tensor._keras_history.operation, KeptProposals) else value
    return result


class ProposalSteps(layers.Layer):
    """What a `ProposalLayer` computes on its way: (rpn_class, rpn_bbox, anchors) -> the N anchors that score best,
    these moved, and clipped; each [B, N, 4]."""

    def __init__(self, proposals: ProposalLayer, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.proposals = proposals

    def call(self, rpn_class: Any, rpn_bbox: Any, anchors: Any) -> tuple[Any, Any, Any]:
        return self.proposals.steps(rpn_class, rpn_bbox, anchors)[:3]

    def compute_output_spec(self, rpn_class: Any, rpn_bbox: Any, anchors: Any) -> tuple[Any, ...]:
        count = anchors.shape[1] or rpn_class.shape[1]
        shape = (rpn_class.shape[0], None if count is None else min(count, self.proposals.pre_nms_limit), 4)
        return tuple(keras.KerasTensor(shape, "float32", name=f"{self.proposals.name}/{step}:0") for step in _STEPS)


class KeptProposals(layers.Layer):
    """Which of the boxes that enter a `ProposalLayer`'s suppression come out of it, for one image of a batch: indices
    [R] int32, best first, then -1."""

    def __init__(self, proposals: ProposalLayer, image: int = 0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.proposals = proposals
        self.image = image

    def call(self, rpn_class: Any, rpn_bbox: Any, anchors: Any) -> Any:
        rows = slice(self.image, self.image + 1)
        *_, indices, kept = self.proposals.steps(rpn_class[rows], rpn_bbox[rows], anchors[rows])
        return ops.where(kept, indices, -1)[0]

    def compute_output_spec(self, rpn_class: Any, rpn_bbox: Any, anchors: Any) -> Any:
        return keras.KerasTensor((self.proposals.proposal_count,), "int32")


def _inside(layer: ProposalLayer, tensors: list[Any], name: str) -> Any | None:
    """A tensor inside a ProposalLayer, computed from the layer's own inputs; None where it works level by level."""
    if len(tensors) > len(("scores", "deltas", "anchors")):
        return None
    if name in _STEPS:
        return ProposalSteps(layer)(*tensors)[_STEPS.index(name)]
    match = _SUPPRESSION.fullmatch(name)
    return KeptProposals(layer, int(match["image"] or 0))(*tensors) if match else None


def _inputs_of(tensors: Iterable[Any]) -> list[Any]:
    """The inputs of the network that tensors depend on."""
    left, seen, found = list(tensors), set(), []
    while left:
        tensor = left.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        history = tensor._keras_history
        if isinstance(history.operation, layers.InputLayer):
            found.append(tensor)
        left.extend(history.operation._inbound_nodes[history.node_index].input_tensors)
    return found
