"""What network a weights file is for: its backbone, classes and sizes, told from names and shapes (numpy and
h5py only)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.weights.contents import (
    KERAS2,
    KERAS3,
    OPTIMIZER_GROUP,
    Contents,
    WeightsError,
    open_weights,
    read_contents,
)

METADATA_ATTRIBUTE = "mrcnn_metadata"

MASK_RCNN = "mask_rcnn"
BACKBONE_ONLY = "backbone only"
UNKNOWN = "unknown"

# The layers that a change of classes changes. mrcnn_bbox has no weights, but people are used to excluding it.
CLASS_LAYERS = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")

_HEAD_PREFIXES = ("fpn_", "rpn_", "mrcnn_")
_NEEDED = ("fpn_c5p5", "rpn_class_raw", "mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")

# Blocks in stages 2 to 5, whether they are bottlenecks, and groups and width of the second convolution in stage 2.
RESNETS = {
    ((3, 4, 6, 3), True, 1, 64): "resnet50",
    ((3, 4, 23, 3), True, 1, 64): "resnet101",
    ((3, 8, 36, 3), True, 1, 64): "resnet152",
    ((2, 2, 2, 2), False, 1, 64): "resnet18",
    ((3, 4, 6, 3), False, 1, 64): "resnet34",
    ((3, 4, 6, 3), True, 32, 128): "resnext50_32x4d",
    ((3, 4, 23, 3), True, 32, 256): "resnext101_32x8d",
    ((3, 4, 23, 3), True, 64, 256): "resnext101_64x4d",
    ((3, 4, 6, 3), True, 1, 128): "wide_resnet50_2",
    ((3, 4, 23, 3), True, 1, 128): "wide_resnet101_2",
    ((2, 2, 1, 1), False, 1, 32): "resnet14",
}

# Config field: (layer, weight, its index, dimensions, axis, divisor): the field is shape[axis] // divisor.
_FIELDS = {
    "NUM_CLASSES": ("mrcnn_class_logits", "bias", 1, 1, 0, 1),
    "IMAGE_CHANNEL_COUNT": ("conv1", "kernel", 0, 4, 2, 1),
    "TOP_DOWN_PYRAMID_SIZE": ("fpn_p2", "kernel", 0, 4, 3, 1),
    "RPN_CONV_SIZE": ("rpn_conv_shared", "bias", 1, 1, 0, 1),
    "len(RPN_ANCHOR_RATIOS)": ("rpn_bbox_pred", "bias", 1, 1, 0, 4),
    "FPN_CLASSIF_FC_LAYERS_SIZE": ("mrcnn_class_conv1", "kernel", 0, 4, 3, 1),
    "POOL_SIZE": ("mrcnn_class_conv1", "kernel", 0, 4, 0, 1),
    "MASK_CONV_SIZE": ("mrcnn_mask_conv1", "kernel", 0, 4, 3, 1),
}
# The same field in other layers, for when the one above is left out.
_OTHER_PLACES = {
    "NUM_CLASSES": (("mrcnn_mask", "bias", 1, 1, 0, 1), ("mrcnn_bbox_fc", "bias", 1, 1, 0, 4)),
}

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True)
class WeightsInfo:
    """What `inspect_weights` found. What a file does not tell is None (or empty).

    `kind` is "mask_rcnn", "backbone only" or "unknown"; `backbone` is a name that BACKBONE takes, or "custom".
    `fields` holds the Config fields that the shapes give away, `config`, `class_names` and `epoch`
    what the writer stored beside the weights; all of `metadata` is kept.
    """

    path: Path
    size_bytes: int
    format: str
    kind: str
    layer_count: int
    parameter_count: int
    dtypes: tuple[str, ...]
    backbone: str | None = None
    num_classes: int | None = None
    image_channels: int | None = None
    fields: dict[str, int] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    class_names: tuple[str, ...] | None = None
    epoch: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    has_optimizer: bool = False

    def __str__(self) -> str:
        unknown = "not stored"
        rows = [
            ("file", f"{self.path} ({self.size_bytes / 1e6:.1f} MB)"),
            ("format", f"{self.format}, {'/'.join(self.dtypes) or 'no weights'}"),
            ("holds", f"{self.kind}: {self.layer_count} layers, {self.parameter_count:,} parameters"),
            ("backbone", self.backbone or "not found"),
            (
                "classes",
                "not found" if self.num_classes is None else f"{self.num_classes} (background included)",
            ),
            ("class names", unknown if self.class_names is None else ", ".join(self.class_names)),
            ("image channels", "not found" if self.image_channels is None else str(self.image_channels)),
            ("epoch", unknown if self.epoch is None else str(self.epoch)),
            ("config", unknown if self.config is None else f"stored, NAME {self.config.get('NAME')!r}"),
            ("optimizer state", "stored" if self.has_optimizer else unknown),
        ]
        return "\n".join(f"{name + ':':17}{value}" for name, value in rows)


def inspect_weights(path: str | Path) -> WeightsInfo:
    """Tell what network a weights file is for, without reading its arrays.

    Args:
        path: a weights file in any layout that `load_weights` takes.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it is not an HDF5 file of Keras weights, or a damaged one.
    """
    path = Path(path)
    with open_weights(path) as file:
        contents = read_contents(file)
        metadata = read_metadata(file)
        has_optimizer = OPTIMIZER_GROUP in file
        whole_model = "model_weights" in file
        version = file["model_weights" if whole_model else "/"].attrs.get("keras_version", b"")
    version = version.decode("utf8", "replace") if isinstance(version, bytes) else str(version)
    shapes = shapes_of(contents)
    weights = [weight for layer in contents.layers.values() for weight in layer.values()]
    fields = deduce_fields(shapes)
    class_names, epoch, config = (metadata.get(key) for key in ("class_names", "epoch", "config"))
    return WeightsInfo(
        path=path,
        size_bytes=path.stat().st_size,
        format=_format(contents.layout, whole_model, version),
        kind=classify(shapes),
        layer_count=sum(1 for layer in contents.layers.values() if layer),
        parameter_count=sum(int(np.prod(weight.shape, dtype=np.int64)) for weight in weights),
        dtypes=tuple(sorted({str(weight.dtype) for weight in weights})),
        backbone=_backbone(shapes, config),
        num_classes=fields.get("NUM_CLASSES"),
        image_channels=fields.get("IMAGE_CHANNEL_COUNT", _stored(config, "IMAGE_CHANNEL_COUNT", int)),
        fields=fields,
        config=config if isinstance(config, dict) else None,
        class_names=tuple(map(str, class_names)) if isinstance(class_names, list) else None,
        epoch=epoch if isinstance(epoch, int) else None,
        metadata=metadata,
        has_optimizer=has_optimizer,
    )


def _backbone(shapes: Shapes, config: Any) -> str | None:
    """The backbone's name by its shapes; of one of keras.applications, which these do not tell, the stored one."""
    found, stored = backbone_name(shapes), _stored(config, "BACKBONE", str)
    return stored if found == "custom" and stored is not None and stored.startswith("keras:") else found


def _stored(config: Any, field: str, kind: type) -> Any:
    """A field of the stored configuration, if that is there and the field is of a kind."""
    value = config.get(field) if isinstance(config, dict) else None
    return value if isinstance(value, kind) else None


def _format(layout: str, whole_model: bool, version: str) -> str:
    name = {KERAS2: "Keras 2 .h5", KERAS3: "Keras 3 .weights.h5"}[layout]
    if whole_model:
        name = "whole model, " + name
    return f"{name} (keras_version {version})" if version else name


def read_metadata(file: h5py.File) -> dict[str, Any]:
    """The JSON object stored beside the weights; empty without one.

    Raises:
        WeightsError: what stands there is no JSON object.
    """
    attributes = file.attrs
    if METADATA_ATTRIBUTE in attributes:
        pieces = [attributes[METADATA_ATTRIBUTE]]
    else:
        keys = sorted(
            (key for key in attributes if re.fullmatch(METADATA_ATTRIBUTE + r"\d+", key)),
            key=lambda key: int(key[len(METADATA_ATTRIBUTE) :]),
        )
        pieces = [attributes[key] for key in keys]
    if not pieces:
        return {}
    try:
        text = b"".join(piece if isinstance(piece, bytes) else str(piece).encode("utf8") for piece in pieces)
        metadata = json.loads(text)
    except ValueError as error:
        raise WeightsError(f"{file.filename}: the attribute {METADATA_ATTRIBUTE} is no JSON: {error}.") from error
    if not isinstance(metadata, dict):
        raise WeightsError(
            f"{file.filename}: the attribute {METADATA_ATTRIBUTE} should be a JSON object. Received: {text[:40]!r}."
        )
    return metadata


def shapes_of(contents: Contents) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the stored weights, by layer and weight (by index in the Keras 3 layout)."""
    return {
        layer: {name: weight.shape for name, weight in weights.items()}
        for layer, weights in contents.layers.items()
        if weights
    }


def deduce_fields(shapes: Shapes) -> dict[str, int]:
    """The Config fields that the shapes of weights give away."""
    fields = {}
    for name, place in _FIELDS.items():
        for layer, weight, index, dimensions, axis, divisor in (place, *_OTHER_PLACES.get(name, ())):
            weights = shapes.get(layer, {})
            shape = weights.get(weight, weights.get(str(index)))
            if shape is not None and len(shape) == dimensions:
                fields[name] = shape[axis] // divisor
                break
    return fields


def backbone_name(shapes: Shapes) -> str | None:
    """ "resnet50" and the like, by the blocks of each stage and their widths; "custom"; None without any backbone
    layer."""
    backbone = [layer for layer in shapes if is_backbone(layer)]
    if not backbone:
        return None
    blocks = tuple(
        sum(1 for layer in backbone if re.fullmatch(rf"res{stage}[a-z]+_branch2a", layer)) for stage in (2, 3, 4, 5)
    )
    second = shapes.get("res2a_branch2b", {})
    kernel = second.get("kernel", second.get("0", ()))
    known = {key: name for key, name in RESNETS.items() if key[:2] == (blocks, "res2a_branch2c" in shapes)}
    if len(kernel) != 4:  # the plain one, which comes first
        return next(iter(known.values()), "custom")
    return next((name for key, name in known.items() if key[2:] == (kernel[3] // kernel[2], kernel[3])), "custom")


def is_backbone(layer: str) -> bool:
    """Whether a layer that holds weights belongs to the backbone, and not to the pyramid, the RPN or a
    head."""
    return not layer.startswith(_HEAD_PREFIXES)


def classify(shapes: Shapes) -> str:
    """ "mask_rcnn", "backbone only" (a classifier's ResNet) or "unknown"."""
    if all(layer in shapes for layer in _NEEDED):
        return MASK_RCNN
    if "conv1" in shapes and "res2a_branch2a" in shapes and all(map(is_backbone, shapes)):
        return BACKBONE_ONLY
    return UNKNOWN


def likely_cures(model: Shapes, file: Shapes, only: str | None = None) -> list[str]:
    """Why a file does not fit a model, and what would do.

    Args:
        model: shapes of the model's weights, by layer and weight, without those left out on purpose.
        file: the file's, likewise.
        only: as for `load_weights`.

    Returns:
        One clause for each finding, the most telling first.
    """
    if classify(file) == BACKBONE_ONLY and only is None and classify(model) == MASK_RCNN:
        return ['the file holds a backbone and no heads: load it with only="backbone"']
    if not set(model) & set(file):
        return ["no layer of the file is in the model: it is for another network"]
    cures = []
    ours, theirs = backbone_name(model), backbone_name(file)
    if ours != theirs and ours and theirs:
        if theirs == "custom":
            cures.append(f"BACKBONE is {ours}, the file has another: set BACKBONE to what the file was made with")
        else:
            cures.append(f"BACKBONE is {ours}, the file is a {theirs}: set BACKBONE to {theirs}")
    mine, stored = deduce_fields(model), deduce_fields(file)
    for name in mine.keys() & stored.keys():
        if mine[name] != stored[name]:
            cures.append(f"{name} is {mine[name]}, the file has {stored[name]}: {_cure(name, stored[name], model)}")
    return sorted(cures, key=lambda cure: (not cure.startswith("BACKBONE"), not cure.startswith("NUM_CLASSES"), cure))


def _cure(name: str, stored: int, model: Shapes) -> str:
    layers: Sequence[str] = ()
    if name == "NUM_CLASSES":
        layers = [layer for layer in CLASS_LAYERS if layer in model]
    elif name == "IMAGE_CHANNEL_COUNT":
        layers = ["conv1"]
    if layers:
        return f"exclude {', '.join(layers)}"
    return f"make it {stored}"
