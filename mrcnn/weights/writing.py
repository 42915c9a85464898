"""Writing weights files: the Keras 2 layout of the released files, and files that appear whole or not at all.

The layout names every layer of the training network, those without weights too, as the files of the original
do: `released_layer_names` makes these names by rule.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.weights.contents import RPN_GROUP, RPN_LAYERS, WeightsError
from mrcnn.weights.info import METADATA_ATTRIBUTE, is_backbone

# Keras splits an attribute above this size; HDF5's own limit is 64 KiB for the attribute with its header.
ATTRIBUTE_LIMIT = 64512

# What the layout is, not what wrote it: old loaders choose by these how to read the kernels.
_BACKEND, _KERAS_VERSION = b"tensorflow", b"2.1.6"

_RESNETS = ((3, 4, 6, 3), (3, 4, 23, 3))

Layers = Mapping[str, Mapping[str, np.ndarray]]
Entries = list[tuple[str, list[tuple[str, np.ndarray]]]]


def numbered(name: str, index: int) -> str:
    """Keras's automatic layer names: `add`, `add_1`, `add_2`, ..."""
    return f"{name}_{index}" if index else name


def resnet_layer_names(blocks: Sequence[int]) -> list[str]:
    """All layers of the original's ResNet of bottleneck blocks, in its order.

    Args:
        blocks: blocks in stages 2 to 5.
    """
    names = ["input_image", "zero_padding2d", "conv1", "bn_conv1", "activation", "max_pooling2d"]
    activations, sums = 1, 0
    for stage, count in enumerate(blocks, start=2):
        for block in range(count):
            label = f"{stage}{string.ascii_lowercase[block]}"
            conv, bn = f"res{label}_branch", f"bn{label}_branch"
            for branch in ("2a", "2b"):
                names += [conv + branch, bn + branch, numbered("activation", activations)]
                activations += 1
            last = ["2c", "1"] if block == 0 else ["2c"]
            names += [conv + branch for branch in last] + [bn + branch for branch in last]
            names += [numbered("add", sums), f"res{label}_out"]
            sums += 1
    return names


def head_layer_names(activations: int) -> list[str]:
    """All layers after the backbone in the original's training network, in its order: pyramid, RPN, heads,
    losses.

    The order is by depth in the graph, so that the layers of the two heads alternate.

    Args:
        activations: how many automatically named activations come before.
    """
    relu = [numbered("activation", activations + index) for index in range(7)]
    return f"""
        fpn_c5p5 fpn_p5upsampled fpn_c4p4 fpn_p4add fpn_p4upsampled fpn_c3p3 fpn_p3add fpn_p3upsampled
        fpn_c2p2 fpn_p2add fpn_p5 fpn_p2 fpn_p3 fpn_p4 fpn_p6 {RPN_GROUP} rpn_class rpn_bbox
        anchors input_gt_boxes ROI input_gt_class_ids lambda input_gt_masks proposal_targets
        input_image_meta roi_align_mask mrcnn_mask_conv1 mrcnn_mask_bn1 {relu[3]} mrcnn_mask_conv2
        roi_align_classifier mrcnn_mask_bn2 mrcnn_class_conv1 {relu[4]} mrcnn_class_bn1 mrcnn_mask_conv3
        {relu[0]} mrcnn_mask_bn3 mrcnn_class_conv2 {relu[5]} mrcnn_class_bn2 mrcnn_mask_conv4 {relu[1]}
        mrcnn_mask_bn4 pool_squeeze {relu[6]} mrcnn_bbox_fc mrcnn_mask_deconv rpn_class_logits
        mrcnn_class_logits mrcnn_bbox mrcnn_mask input_rpn_match input_rpn_bbox lambda_3 mrcnn_class
        output_rois rpn_class_loss rpn_bbox_loss mrcnn_class_loss mrcnn_bbox_loss mrcnn_mask_loss
    """.split()


def released_layer_names(layers: Sequence[str]) -> list[str]:
    """The groups of a Keras 2 weights file, in order, weightless ones included.

    Args:
        layers: names of the layers that hold weights, in the model's order, the RPN's by themselves.

    Returns:
        For ResNet-50 and ResNet-101, exactly the released files' list; for another backbone its layers in the
        model's order, then pyramid, RPN and heads as released. For what is no Mask R-CNN, `layers` as they
        are.
    """
    if not {"fpn_c5p5", *RPN_LAYERS, "mrcnn_class_logits", "mrcnn_mask"} <= set(layers):
        return list(layers)
    backbone = [layer for layer in layers if is_backbone(layer)]
    names = ["input_image", *backbone]
    for blocks in _RESNETS:
        resnet = resnet_layer_names(blocks)
        if set(backbone) == {name for name in resnet if name.startswith(("conv1", "bn")) or "_branch" in name}:
            names = resnet
    names += head_layer_names(sum(1 for name in names if name.startswith("activation")))
    return names + [layer for layer in layers if layer not in names and layer not in RPN_LAYERS]


def keras2_entries(layers: Layers) -> Entries:
    """Arrange weights as a Keras 2 file has them.

    Args:
        layers: arrays by layer and weight ("kernel"), layers in the model's order.

    Returns:
        [(group, [(weight name, array), ...]), ...], such as ("conv1", [("conv1/kernel:0", array), ...]).
    """
    entries: Entries = []
    for name in released_layer_names(list(layers)):
        inner = RPN_LAYERS if name == RPN_GROUP else (name,)
        weights = [(f"{layer}/{short}:0", array) for layer in inner for short, array in layers.get(layer, {}).items()]
        entries.append((name, weights))
    return entries


def write_keras2(root: h5py.Group, entries: Entries) -> None:
    """Write the Keras 2 layout into an open, empty file or group."""
    write_names(root, "layer_names", [name for name, _ in entries])
    root.attrs["backend"] = np.bytes_(_BACKEND)
    root.attrs["keras_version"] = np.bytes_(_KERAS_VERSION)
    for name, weights in entries:
        group = root.create_group(name)
        write_names(group, "weight_names", [weight_name for weight_name, _ in weights])
        for weight_name, array in weights:
            group.create_dataset(weight_name, data=array)


def write_names(node: h5py.Group, key: str, names: Sequence[str]) -> None:
    """Store a list of names as an attribute, split over key0, key1, ... where it is too long for one.

    Raises:
        WeightsError: a single name is too long.
    """
    data = np.array([name.encode("utf8") for name in names])
    if data.itemsize > ATTRIBUTE_LIMIT:
        raise WeightsError(f"A name of {data.itemsize} bytes does not fit into an HDF5 attribute ({key}).")
    if data.nbytes <= ATTRIBUTE_LIMIT:
        node.attrs[key] = data
        return
    step = ATTRIBUTE_LIMIT // data.itemsize
    for index, start in enumerate(range(0, len(data), step)):
        node.attrs[f"{key}{index}"] = data[start : start + step]


def write_metadata(file: h5py.File, metadata: Mapping[str, Any]) -> None:
    """Store a JSON object in the root attribute `mrcnn_metadata` (split like `write_names` where it is long).

    Raises:
        WeightsError: a value that JSON cannot hold.
    """
    text = encode_metadata(metadata)
    if len(text) <= ATTRIBUTE_LIMIT:
        file.attrs[METADATA_ATTRIBUTE] = np.bytes_(text)
        return
    for index, start in enumerate(range(0, len(text), ATTRIBUTE_LIMIT)):
        file.attrs[f"{METADATA_ATTRIBUTE}{index}"] = np.bytes_(text[start : start + ATTRIBUTE_LIMIT])


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Metadata as ASCII JSON; numpy's scalars and arrays become numbers and lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            return value.tolist()
        if isinstance(value, Path):
            return str(value)
        raise TypeError(f"{value!r} of type {type(value).__name__}")

    try:
        return json.dumps(dict(metadata), default=plain, allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise WeightsError(f"metadata must be what JSON can hold. Received: {error}.") from error


def reduced(array: np.ndarray) -> np.ndarray:
    """A float32 array as float16 where that is safe: kernels. Vectors (biases, statistics) weigh next to
    nothing and can be large, so they stay, as does a kernel with a value beyond float16's range."""
    if array.ndim < 2 or array.dtype != np.float32 or np.abs(array).max(initial=0.0) > np.finfo(np.float16).max:
        return array
    return array.astype(np.float16)


def copy_reduced(source: h5py.Group, target: h5py.Group, skip: Sequence[str] = ()) -> None:
    """Copy a group with all below it, arrays reduced to float16 by `reduced`."""
    for key, value in source.attrs.items():
        target.attrs[key] = value
    for key, item in source.items():
        if key in skip:
            continue
        if isinstance(item, h5py.Group):
            copy_reduced(item, target.create_group(key))
        else:
            copy = target.create_dataset(key, data=reduced(item[()]))
            for name, value in item.attrs.items():
                copy.attrs[name] = value


def write_file(path: Path, write: Callable[[h5py.File], None], mode: str = "w") -> None:
    """Open an HDF5 file, let `write` fill it, and turn what HDF5 complains of into a `WeightsError`."""
    try:
        with h5py.File(path, mode) as file:
            write(file)
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"Writing {path} failed: {error}. Is the disk full?") from error
