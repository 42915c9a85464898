"""torchvision's Mask R-CNN state dicts as weights of this package's layers; numpy only.

Covered are `maskrcnn_resnet50_fpn`, `maskrcnn_resnet50_fpn_v2` and any `MaskRCNN` on a `resnet_fpn_backbone`, with the
names of the first files (`mask_fcn1`, `inner_blocks.0.weight`) as well as those of today; and plain ResNet classifiers,
timm's among them, which bears the same names (`resnet50.a1_in1k`, `tv_resnet50`, `resnet50_gn`). A state dict tells
neither of activations nor of poolings: timm's `resnetaa50` and `resnetblur50` look like a `resnet50`, and are not.

Layouts: a PyTorch convolution is [out, in, h, w] and here [h, w, in, out]; a linear layer [out, in] and [in, out]; the
first fully connected layer of the box head sees a region channel by channel there and pixel by pixel here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mrcnn.weights.contents import WeightsError, listed
from mrcnn.weights.conversion import (
    COUNTER,
    Conversion,
    Rules,
    Shapes,
    Target,
    apply,
    backbone_of,
    in_block,
    region_layer,
    route_by,
)

# Other networks of torchvision, by tensors that only they have.
_OTHERS = {
    r"roi_heads\.keypoint_.*": "a Keypoint R-CNN",
    r"head\.(classification|regression)_head\..*": "a RetinaNet or FCOS",
}

# What a classifier computes, torchvision's and timm's, where it is not the original's.
_CLASSIFIER: dict[str, Any] = {
    "RESNET_STRIDE_IN_3X3": True,
    "SYMMETRIC_PADDING": True,
    "CONV_BIAS": False,
    "NORM_EPSILON": 1e-5,
}
_IMAGENET: dict[str, Any] = {"MEAN_PIXEL": [123.675, 116.28, 103.53], "STD_PIXEL": [58.395, 57.12, 57.375]}

# Parts of timm's ResNets that ours do not have, by tensors that tell of them.
_OTHER_PARTS = {
    r"conv1\.0\.weight": "a deep stem of three convolutions (as resnet50c, resnet50d, resnet50t)",
    r"layer\d\.0\.downsample\.2\.weight": "an average pooling in the shortcut (as resnet50d)",
    r"layer\d\.\d+\.se\..*": "an attention of channels (as seresnet50, ecaresnet50)",
    r"maxpool\.0\.weight": "a convolution in place of the first pooling (as resnetrs50)",
}


_BODY = "backbone.body."
_BLOCK = r"layer(\d)\.(\d+)"


def is_torchvision(names: Collection[str]) -> bool:
    """Whether tensors of these names are of a network that `convert` takes, or has a message for."""
    body = ("conv1.weight", "conv1.0.weight")  # a deep stem has the second
    return any(prefix + name in names for prefix in (_BODY, "") for name in body) and any(
        re.match(rf"(backbone\.body\.)?{_BLOCK}\.", name) for name in names
    )


def convert(state: Mapping[str, np.ndarray]) -> Conversion:
    """Map a state dict of torchvision.

    Args:
        state: arrays by name, as `{name: tensor.numpy() for name, tensor in model.state_dict().items()}`.

    Returns:
        The conversion. Of each tensor its `fates` tell what became of it.

    Raises:
        WeightsError: it is no state dict of a known network; or tensors are missing, or there are some that no layer
            of such a network has.
    """
    names = {_modern_name(name): name for name in state}
    found = Conversion()
    _refuse_other_parts(names)
    whole = _BODY + "conv1.weight" in names
    prefix = _BODY if whole else ""
    if prefix + "conv1.weight" not in names or prefix + "layer1.0.conv1.weight" not in names:
        raise WeightsError(
            "This is no state dict of torchvision's Mask R-CNN or ResNets: it has no "
            f"{prefix}conv1.weight and {prefix}layer1.0.conv1.weight. Received: {listed(list(state)) or 'nothing'}."
        )
    shapes = Shapes((name, np.shape(state[old])) for name, old in names.items())
    if whole:
        found.source = "torchvision's Mask R-CNN"
        found.preset, found.fields = _recipe(shapes)
    else:
        found.source = "a ResNet classifier of torchvision or timm"
        found.fields = _classifier_fields(shapes)
    found.fields["BACKBONE"] = backbone_of(shapes, re.escape(prefix) + _BLOCK, 1)
    rules = [(pattern.replace("BODY", re.escape(prefix)), layer, kind) for pattern, layer, kind in _RULES]
    pool = int(found.fields.get("POOL_SIZE", 7))

    def route(name: str) -> tuple[Target | None, str]:
        if name.endswith("num_batches_tracked"):
            return None, COUNTER
        if name in ("fc.weight", "fc.bias"):
            return None, "the classifier's last layer"
        return route_by(rules, name, pool)

    apply(found, ((name, old, state[old]) for name, old in names.items()), route)
    return found


def _modern_name(name: str) -> str:
    """Today's name of a tensor, for one of the first files."""
    name = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2", name)
    name = re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", name)
    found = re.match(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$", name)
    return f"roi_heads.mask_head.{int(found[1]) - 1}.0.{found[2]}" if found else name


def _recipe(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """The preset of a Mask R-CNN, and the fields in which it differs from that."""
    head = "roi_heads.box_head."
    convs = len(shapes.matching(r"roi_heads\.box_head\.\d+\.0\.weight"))
    hidden = shapes.matching(r"roi_heads\.box_head\.(fc6|fc7|\d+)\.weight")
    if not hidden:
        raise WeightsError("The state dict has no fully connected layer roi_heads.box_head.fc6, or of another number.")
    width = shapes.dimensions("backbone.fpn.layer_blocks.0.0.weight", 4)[0]
    normalized = {
        "backbone": "backbone.body.bn1.weight", "pyramid": "backbone.fpn.inner_blocks.0.1.weight",
        "box_convs": head + "0.1.weight", "mask_convs": "roi_heads.mask_head.0.1.weight",
    }  # fmt: skip
    channels = shapes.dimensions(head + "0.0.weight", 4)[0] if convs else width
    size, pool = region_layer(shapes, hidden[0], channels)
    fields = {
        "NUM_CLASSES": shapes.dimensions("roi_heads.box_predictor.cls_score.weight", 2)[0],
        "IMAGE_CHANNEL_COUNT": shapes.dimensions("backbone.body.conv1.weight", 4)[1],
        "TOP_DOWN_PYRAMID_SIZE": width,
        "RPN_CONV_SIZE": shapes.dimensions("rpn.head.conv.0.0.weight", 4)[0],
        "RPN_CONV_DEPTH": len(shapes.matching(r"rpn\.head\.conv\.\d+\.0\.weight")),
        "FPN_CLASSIF_FC_LAYERS_SIZE": size,
        "POOL_SIZE": pool,
        "BOX_HEAD_CONVS": convs,
        "BOX_HEAD_FCS": len(hidden),
        "MASK_CONV_SIZE": shapes.dimensions("roi_heads.mask_head.0.0.weight", 4)[0],
        "NORM_PARTS": tuple(part for part, name in normalized.items() if name in shapes),
    }
    if convs:
        fields["BOX_HEAD_CONV_SIZE"] = channels
    elif "backbone.body.bn1.num_batches_tracked" in shapes:  # not the frozen ones of the released weights
        fields |= {"NORM": "batch", "NORM_EPSILON": 1e-5}
    return ("torchvision_v2" if convs else "torchvision_v1"), fields


def _classifier_fields(shapes: Shapes) -> dict[str, Any]:
    channels = shapes.dimensions("conv1.weight", 4)[1]
    norm = "batch" if "bn1.running_mean" in shapes else "group"
    means = _IMAGENET if channels == 3 else {}
    return {"IMAGE_CHANNEL_COUNT": channels, "NORM": norm, **_CLASSIFIER, **means}


def _refuse_other_parts(names: Collection[str]) -> None:
    for pattern, kind in _OTHERS.items():
        found = [name for name in names if re.fullmatch(pattern, name)]
        if found:
            raise WeightsError(
                f"This is {kind} of torchvision: it holds {listed(found)}. Its Mask R-CNNs are converted."
            )
    heads = [name for name in names if name.startswith("roi_heads.")]
    if heads and not any(name.startswith("roi_heads.mask_head.") for name in heads):
        raise WeightsError("This is a Faster R-CNN of torchvision: it has no roi_heads.mask_head.")
    for pattern, part in _OTHER_PARTS.items():
        found = [name for name in names if re.fullmatch(pattern, name)]
        if found:
            raise WeightsError(
                f"This is a ResNet of timm with {part}, which the backbones here do not have: it holds "
                f"{listed(found)}. One of torchvision's kind, such as resnet50.a1_in1k, will do."
            )


# Patterns of modules, the layer here, and what it is. BODY stands for what the names of the backbone begin with.
_RULES: Rules = [
    (r"BODYconv1", "conv1", "conv"),
    (r"BODYbn1", "bn_conv1", "norm"),
    (r"BODYlayer(\d)\.(\d+)\.conv([123])", in_block("res", 1), "conv"),
    (r"BODYlayer(\d)\.(\d+)\.bn([123])", in_block("bn", 1), "norm"),
    (r"BODYlayer(\d)\.(\d+)\.downsample\.0", in_block("res", 1), "conv"),
    (r"BODYlayer(\d)\.(\d+)\.downsample\.1", in_block("bn", 1), "norm"),
    *(
        (rf"backbone\.fpn\.{block}_blocks\.{index}\.{place}", layer + suffix, kind)
        for place, suffix, kind in ((0, "", "conv"), (1, "_bn", "norm"))
        for index, level in enumerate((2, 3, 4, 5))
        for block, layer in (("inner", f"fpn_c{level}p{level}"), ("layer", f"fpn_p{level}"))
    ),
    (r"rpn\.head\.conv\.0\.0", "rpn_conv_shared", "conv"),
    (r"rpn\.head\.conv\.(\d+)\.0", lambda match: f"rpn_conv_shared{int(match[1]) + 1}", "conv"),
    (r"rpn\.head\.cls_logits", "rpn_class_raw", "conv"),
    (r"rpn\.head\.bbox_pred", "rpn_bbox_pred", "deltas conv"),
    (r"roi_heads\.box_head\.fc6", "mrcnn_class_conv1", "region"),
    (r"roi_heads\.box_head\.fc7", "mrcnn_class_conv2", "cell"),
    (r"roi_heads\.box_head\.(\d+)\.0", lambda match: f"mrcnn_box_conv{int(match[1]) + 1}", "conv"),
    (r"roi_heads\.box_head\.(\d+)\.1", lambda match: f"mrcnn_box_bn{int(match[1]) + 1}", "norm"),
    (r"roi_heads\.box_head\.\d+", "mrcnn_class_conv1", "region"),
    (r"roi_heads\.box_predictor\.cls_score", "mrcnn_class_logits", "dense"),
    (r"roi_heads\.box_predictor\.bbox_pred", "mrcnn_bbox_fc", "deltas dense"),
    (r"roi_heads\.mask_head\.(\d+)\.0", lambda match: f"mrcnn_mask_conv{int(match[1]) + 1}", "conv"),
    (r"roi_heads\.mask_head\.(\d+)\.1", lambda match: f"mrcnn_mask_bn{int(match[1]) + 1}", "norm"),
    (r"roi_heads\.mask_predictor\.conv5_mask", "mrcnn_mask_deconv", "deconv"),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits", "mrcnn_mask", "conv"),
]
