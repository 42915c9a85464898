"""The weights that a network has, by its configuration: layers, their weights and shapes, without building it. By this,
weights of others are known to be whole, and to fit, before anything is written; numpy and frameworks are not needed.

Letters: K classes (0 is background).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mrcnn.weights.contents import WeightsError, listed
from mrcnn.weights.conversion import block_letters
from mrcnn.weights.info import RESNETS

Layout = dict[str, dict[str, tuple[int, ...]]]

_WIDTHS = (64, 128, 256, 512)


class _Builder:
    """Layers of a network with a configuration's normalizations and biases."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.layers: Layout = {}

    def conv(self, name: str, size: int, inputs: int, outputs: int, part: str | None = None, norm: str = "") -> None:
        """A convolution, and behind it the normalization `norm`, where `part` of the network has one."""
        normed = part is not None and part in self.config.NORM_PARTS
        # A backbone's convolutions are without a bias where CONV_BIAS says so, the others only where they are
        # normalized.
        bias = self.config.CONV_BIAS or (part != "backbone" and not normed)
        self.layers[name] = {"kernel": (size, size, inputs, outputs), **({"bias": (outputs,)} if bias else {})}
        if normed:
            statistics = () if self.config.NORM == "group" else ("moving_mean", "moving_variance")
            self.layers[norm] = dict.fromkeys(("gamma", "beta", *statistics), (outputs,))

    def dense(self, name: str, inputs: int, outputs: int) -> None:
        self.layers[name] = {"kernel": (inputs, outputs), "bias": (outputs,)}


def backbone_layout(config: Any) -> Layout:
    """The weights of a configuration's backbone, one of torchvision's ResNets."""
    builder = _Builder(config)
    for _ in _backbone(builder):
        pass
    return builder.layers


def network_layout(config: Any) -> Layout:
    """The weights of a configuration's Mask R-CNN on one of torchvision's ResNets."""
    builder = _Builder(config)
    width, classes, pool = config.TOP_DOWN_PYRAMID_SIZE, config.NUM_CLASSES, config.POOL_SIZE
    for level, channels in enumerate(_backbone(builder), start=2):
        builder.conv(f"fpn_c{level}p{level}", 1, channels, width, "pyramid", f"fpn_c{level}p{level}_bn")
        builder.conv(f"fpn_p{level}", 3, width, width, "pyramid", f"fpn_p{level}_bn")
    inputs = width
    for index in range(1, config.RPN_CONV_DEPTH + 1):
        builder.conv("rpn_conv_shared" + (str(index) if index > 1 else ""), 3, inputs, config.RPN_CONV_SIZE)
        inputs = config.RPN_CONV_SIZE
    anchors = len(config.RPN_ANCHOR_RATIOS)
    builder.conv("rpn_class_raw", 1, inputs, anchors * (2 if config.RPN_OBJECTNESS == "softmax" else 1))
    builder.conv("rpn_bbox_pred", 1, inputs, 4 * anchors)

    inputs = width
    for index in range(1, config.BOX_HEAD_CONVS + 1):
        name = f"mrcnn_box_conv{index}"
        builder.conv(name, 3, inputs, config.BOX_HEAD_CONV_SIZE, "box_convs", f"mrcnn_box_bn{index}")
        inputs = config.BOX_HEAD_CONV_SIZE
    hidden = config.FPN_CLASSIF_FC_LAYERS_SIZE
    for index in range(1, config.BOX_HEAD_FCS + 1):
        size = pool if index == 1 else 1
        builder.conv(f"mrcnn_class_conv{index}", size, inputs, hidden, "box_fcs", f"mrcnn_class_bn{index}")
        inputs = hidden
    builder.dense("mrcnn_class_logits", hidden, classes)
    builder.dense("mrcnn_bbox_fc", hidden, 4 * classes)

    inputs = width
    for index in range(1, 5):
        name = f"mrcnn_mask_conv{index}"
        builder.conv(name, 3, inputs, config.MASK_CONV_SIZE, "mask_convs", f"mrcnn_mask_bn{index}")
        inputs = config.MASK_CONV_SIZE
    builder.layers["mrcnn_mask_deconv"] = {"kernel": (2, 2, inputs, inputs), "bias": (inputs,)}
    builder.conv("mrcnn_mask", 1, inputs, classes)
    return builder.layers


def _backbone(builder: _Builder) -> Iterator[int]:
    """Add a ResNet's layers; the channels of C2 to C5."""
    key = next((key for key, name in RESNETS.items() if name == builder.config.BACKBONE), None)
    if key is None or builder.config.BACKBONE == "resnet14":
        raise WeightsError(f"Weights are converted for torchvision's ResNets. Received: {builder.config.BACKBONE!r}.")
    blocks, bottleneck, groups, first_width = key

    def conv(label: str, branch: str, size: int, inputs: int, outputs: int) -> None:
        builder.conv(f"res{label}_branch{branch}", size, inputs, outputs, "backbone", f"bn{label}_branch{branch}")

    builder.conv("conv1", 7, builder.config.IMAGE_CHANNEL_COUNT, 64, "backbone", "bn_conv1")
    channels = 64
    for stage, (count, width) in enumerate(zip(blocks, _WIDTHS, strict=True), start=2):
        inner = width * first_width // 64
        for block in range(count):
            label = block_letters(stage, block)
            outputs = 4 * width if bottleneck else width
            if bottleneck:
                conv(label, "2a", 1, channels, inner)
                conv(label, "2b", 3, inner // groups, inner)
                conv(label, "2c", 1, inner, outputs)
            else:
                conv(label, "2a", 3, channels, width)
                conv(label, "2b", 3, width, width)
            if block == 0 and channels != outputs:
                conv(label, "1", 1, channels, outputs)
            channels = outputs
        yield channels


def check_whole(arrays: Mapping[str, Mapping[str, Any]], layout: Layout) -> None:
    """Refuse arrays that are not exactly those of a network.

    Raises:
        WeightsError: says which are missing, too many, or of another shape.
    """
    found = {
        f"{layer}/{name}": tuple(array.shape) for layer, by_name in arrays.items() for name, array in by_name.items()
    }
    wanted = {f"{layer}/{name}": shape for layer, by_name in layout.items() for name, shape in by_name.items()}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise WeightsError(f"The weights are not whole: there are none for {listed(missing)}.")
    strange = [name for name in found if name not in wanted]
    if strange:
        raise WeightsError(f"The network has no place for {listed(strange)}. Is it of another kind?")
    differing = [
        f"{name} is {found[name]} instead of {shape}" for name, shape in wanted.items() if found[name] != shape
    ]
    if differing:
        raise WeightsError(f"Weights of another shape than the network's: {listed(differing, '; ')}.")
