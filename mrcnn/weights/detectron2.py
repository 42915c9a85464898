"""detectron2's Mask R-CNN state dicts as weights of this package's layers; numpy only.

Covered are Mask R-CNNs on a ResNet or ResNeXt with a feature pyramid (the R50-FPN, R101-FPN and X101-FPN of its model
zoo, its GroupNorm and SyncBN variants and the ResNets of its new baselines), and ResNet classifiers, by detectron2's
names or by those of Caffe2.

Beside what `mrcnn.weights.conversion` says of PyTorch's layouts: the background is the last class there and the first
here, and boxes and masks have no rows for it there. Means and standard deviations are in the order of the channels
there and in that of the image here. A state dict does not tell where a bottleneck has its stride: the model zoo's
ResNeXts and those with GroupNorm have it in the 3x3 convolution, the others in the first 1x1. Nor do the model zoo's
tell what pixels are divided by: its ResNeXts have ImageNet's deviations, the others 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
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

_BODY = "backbone.bottom_up."
_BLOCK = r"res([2-5])\.(\d+)"
_EPSILON = 1e-5
_BLUE_FIRST_MEAN = (103.53, 116.28, 123.675)  # blue, green, red: the default of its configuration
# The model zoo's ResNeXts divide by these; of MSRA's ResNets the first kernel does.
_BLUE_FIRST_STD = (57.375, 57.12, 58.395)

# Other networks of detectron2, by tensors that only they have.
_OTHERS = {
    r"roi_heads\.box_(head|predictor)\.\d\..*": "a Cascade R-CNN",
    r"roi_heads\.keypoint_head\..*": "a Keypoint R-CNN",
    r"(roi_heads\.mask_point_head|roi_heads\.mask_coarse_head)\..*": "a PointRend",
    r"roi_heads\.(densepose|z|mesh|voxel)_.*": "a network of one of its projects",
    r"roi_heads\.res5\..*": "a Mask R-CNN of the C4 kind, without a pyramid",
    r"sem_seg_head\..*": "a Panoptic FPN or a network of semantic segmentation",
    r"head\.(cls_subnet|bbox_subnet|cls_score|bbox_pred)\..*": "a RetinaNet or FCOS",
    r"backbone\.(net|bottom_up)\.(blocks|patch_embed|layers)\..*": "a network on a vision transformer",
    r"backbone\.(bottom_up\.)?s[1-4]\..*": "a Mask R-CNN on a RegNet",
    r".*\.conv2_offset\..*": "a network with deformable convolutions",
    r"backbone\.(stem|res[2-5])\..*": "a Mask R-CNN of the C4 or DC5 kind, without a pyramid",
    r"backbone\.fpn_lateral[67]\..*": "a network with another pyramid",
}
_KNOWN = "Mask R-CNNs of the FPN kind on a ResNet or ResNeXt are converted"
_UNUSED = {"anchor_generator": "anchors, which the configuration makes", "pixel": "told by the configuration"}


def is_detectron2(names: Collection[str]) -> bool:
    """Whether tensors of these names are of a network that `convert` takes, or has a message for."""
    if any(_caffe2_name(name) != name for name in names) or _is_detectron(names):
        return True
    if "stem.conv1.weight" in names and any(re.match(_BLOCK, name) for name in names):
        return True
    pattern = "|".join(pattern for pattern in _OTHERS if not pattern.startswith("head"))
    pattern = rf"{re.escape(_BODY)}.*|proposal_generator\..*|backbone\.fpn_.*|{pattern}"
    return any(re.fullmatch(pattern, name) for name in names)


def _is_detectron(names: Collection[str]) -> list[str]:
    """Names of tensors that only the predecessor of detectron2 has."""
    return [name for name in names if re.match(r"(fpn_(inner_)?res|conv_rpn|rpn_(cls|bbox)_|bbox_pred_|kps_)", name)]


def convert(state: Mapping[str, np.ndarray]) -> Conversion:
    """Map a state dict of detectron2.

    Args:
        state: arrays by name, of the "model" of a file of its model zoo, or of `model.state_dict()`.

    Returns:
        The conversion. Of each tensor its `fates` tell what became of it.

    Raises:
        WeightsError: it is of a network that is none of the above, which the message names; or not whole.
    """
    names = {_caffe2_name(name): name for name in state if not name.endswith("_momentum")}
    if len(names) < len([name for name in state if not name.endswith("_momentum")]):
        raise WeightsError("Two tensors of the state dict are for the same place.")
    _refuse_others(names)
    whole = any(name.startswith(("roi_heads.", "proposal_generator.", "backbone.fpn_")) for name in names)
    prefix = _BODY if whole else ""
    shapes = Shapes((name, np.shape(state[old])) for name, old in names.items())
    found = Conversion()
    if whole:
        found.source = "detectron2's Mask R-CNN"
        found.preset, found.fields = _recipe(shapes)
    else:
        found.source = "a ResNet classifier of detectron2"
        found.fields = {"SYMMETRIC_PADDING": True, "CONV_BIAS": False, "NORM_EPSILON": _EPSILON}
    conv1 = shapes.dimensions(f"{prefix}stem.conv1.weight", 4)
    backbone = backbone_of(shapes, re.escape(prefix) + _BLOCK, 2)
    folded = any("_bn_" in name for name in state) and not shapes.matching(r".*\.running_mean")
    norm = _norm(shapes, prefix, whole, folded)
    found.fields |= {
        "BACKBONE": backbone,
        "IMAGE_CHANNEL_COUNT": conv1[1],
        "RESNET_STRIDE_IN_3X3": norm == "group" or backbone.startswith("resnext"),
        "NORM": norm,
        **_pixels(state, conv1[1], _BLUE_FIRST_STD if backbone.startswith("resnext") else (1.0,)),
        **_anchors(state),
    }
    classes = found.fields.get("NUM_CLASSES", 0)
    pool = int(found.fields.get("POOL_SIZE", 7))
    rules = [(pattern.replace("BODY", re.escape(prefix)), layer, kind) for pattern, layer, kind in _RULES]

    def route(name: str) -> tuple[Target | None, str]:
        if name.endswith("num_batches_tracked"):
            return None, COUNTER
        if re.match(r"(stem\.)?(fc|linear|fc1000|pred)\.", name):
            return None, "the classifier's last layer"
        for part, reason in _UNUSED.items():
            if re.match(rf"(proposal_generator\.)?{part}", name):
                return None, reason
        target, reason = route_by(rules, name, pool)
        return (None, reason) if target is None else (_with_background(target, classes), "")

    apply(found, ((name, old, state[old]) for name, old in names.items()), route)
    if folded:
        _add_statistics(found)
    return found


def _caffe2_name(name: str) -> str:
    """detectron2's name of a tensor of a classifier by Caffe2's, such as res4_11_branch2b_bn_s."""
    found = re.fullmatch(r"(?:res_)?conv1_(bn|gn)_(\w+)|conv1_([wb])", name)
    if found:
        return f"stem.conv1.norm.{_NORM_OF[found[2]]}" if found[1] else f"stem.conv1.{_CONV_OF[found[3]]}"
    found = re.fullmatch(r"res([2-5])_(\d+)_branch(1|2[abc])_(?:(bn|gn)_(\w+)|([wb]))", name)
    if found:
        place = "shortcut" if found[3] == "1" else f"conv{'abc'.index(found[3][1]) + 1}"
        weight = f"norm.{_NORM_OF.get(found[5], found[5])}" if found[4] else _CONV_OF[found[6]]
        return f"res{found[1]}.{found[2]}.{place}.{weight}"
    found = re.fullmatch(r"(fc1000|pred)_([wb])", name)
    return f"{found[1]}.{_CONV_OF[found[2]]}" if found else name


_CONV_OF = {"w": "weight", "b": "bias"}
_NORM_OF = {
    "s": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "rm": "running_mean", "riv": "running_var",
    "running_mean": "running_mean", "running_var": "running_var",
}  # fmt: skip


def _refuse_others(names: Mapping[str, str]) -> None:
    detectron = [
        name for name in names if re.match(r"(fpn_(inner_)?res|conv_rpn|rpn_(cls|bbox)|bbox_pred_|kps_)", name)
    ]
    if detectron:
        raise WeightsError(
            f"This is a network of Detectron, the predecessor of detectron2, whose boxes are a pixel larger: it holds "
            f"{listed(detectron)}. {_KNOWN}, of detectron2."
        )
    for pattern, kind in _OTHERS.items():
        found = [name for name in names if re.fullmatch(pattern, name)]
        if found:
            raise WeightsError(f"This is {kind}: it holds {listed(found)}. {_KNOWN}.")
    heads = [name for name in names if name.startswith("roi_heads.")]
    masks = [name for name in heads if name.startswith("roi_heads.mask_head.")]
    if heads and not masks:
        raise WeightsError(f"This is a Faster R-CNN: it has no roi_heads.mask_head. {_KNOWN}.")
    if not heads and any(name.startswith("proposal_generator.") for name in names):
        raise WeightsError(f"This is a region proposal network alone: it has no roi_heads. {_KNOWN}.")


def _recipe(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """The preset of a Mask R-CNN, and the fields in which it differs from that."""
    head, rpn = "roi_heads.box_head.", "proposal_generator.rpn_head."
    convs = len(shapes.matching(r"roi_heads\.box_head\.conv\d+\.weight"))
    hidden = len(shapes.matching(r"roi_heads\.box_head\.fc\d+\.weight"))
    depth = len(shapes.matching(r"proposal_generator\.rpn_head\.conv\.conv\d+\.weight"))
    width = shapes.dimensions("backbone.fpn_output2.weight", 4)[0]
    channels = shapes.dimensions(head + "conv1.weight", 4)[0] if convs else width
    size, pool = region_layer(shapes, head + "fc1.weight", channels)
    parts = {
        "backbone": f"{_BODY}stem.conv1.norm.weight", "pyramid": "backbone.fpn_lateral2.norm.weight",
        "box_convs": head + "conv1.norm.weight", "mask_convs": "roi_heads.mask_head.mask_fcn1.norm.weight",
    }  # fmt: skip
    fields = {
        "NUM_CLASSES": shapes.dimensions("roi_heads.box_predictor.cls_score.weight", 2)[0],
        "TOP_DOWN_PYRAMID_SIZE": width,
        "RPN_CONV_SIZE": shapes.dimensions(f"{rpn}conv.{'conv0.' if depth else ''}weight", 4)[0],
        "RPN_CONV_DEPTH": max(1, depth),
        "FPN_CLASSIF_FC_LAYERS_SIZE": size,
        "POOL_SIZE": pool,
        "BOX_HEAD_CONVS": convs,
        "BOX_HEAD_FCS": hidden,
        "MASK_CONV_SIZE": shapes.dimensions("roi_heads.mask_head.mask_fcn1.weight", 4)[0],
        "NORM_PARTS": tuple(part for part, name in parts.items() if name in shapes),
    }
    if convs:
        fields["BOX_HEAD_CONV_SIZE"] = channels
    return ("detectron2_lsj" if convs and depth == 2 else "detectron2"), fields


def _norm(shapes: Shapes, prefix: str, whole: bool, folded: bool) -> str:
    """The kind of all normalizations; `folded`: their statistics have been folded into scales and offsets."""
    with_means = {name.removesuffix(".running_mean") for name in shapes if name.endswith(".running_mean")}
    norms = {name.removesuffix(".weight") for name in shapes if name.endswith(".norm.weight")}
    if not with_means:
        return "batch" if folded else "group"
    if norms - with_means:
        raise WeightsError(
            f"Some normalizations have statistics and others none: {listed(sorted(norms - with_means))}. A network "
            "here has one kind, NORM, for all of them."
        )
    tracked = f"{prefix}stem.conv1.norm.num_batches_tracked" in shapes
    return "batch" if tracked or not whole else "frozen"


def _pixels(state: Mapping[str, np.ndarray], channels: int, usual_std: tuple[float, ...]) -> dict[str, Any]:
    """The order of channels, means and standard deviations. They are in the network's order in a state dict; what
    tells that order is whether the smallest of ImageNet's means, that of blue, comes first."""
    mean = np.ravel(state.get("pixel_mean", _BLUE_FIRST_MEAN)).astype(float)
    std = np.ravel(state.get("pixel_std", usual_std)).astype(float)
    if channels != 3:
        return {"IMAGE_CHANNEL_ORDER": "rgb", **({"MEAN_PIXEL": mean.tolist()} if mean.size == channels else {})}
    if mean.size not in (1, 3) or std.size not in (1, 3) or not (std > 0).all():
        raise WeightsError(f"pixel_mean and pixel_std are not those of three channels: {mean.size}, {std.size} values.")
    blue_first = mean.size == 1 or mean[0] <= mean[2]
    turn = slice(None, None, -1) if blue_first else slice(None)
    return {
        "IMAGE_CHANNEL_ORDER": "bgr" if blue_first else "rgb",
        "MEAN_PIXEL": [round(float(value), 4) for value in mean[turn]],
        "STD_PIXEL": [round(float(value), 4) for value in std[turn]],
    }


def _anchors(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Scales and ratios of the anchors, where a state dict holds these: one scale for each level, the same ratios on
    all."""
    cells = [array for name, array in state.items() if re.search(r"anchor_generator\.cell_anchors\.\d+$", name)]
    if not cells:
        return {}
    if any(np.ndim(cell) != 2 or np.shape(cell)[1] != 4 for cell in cells):
        raise WeightsError(f"Anchors should be [anchors, 4]. Received shapes: {[np.shape(cell) for cell in cells]}.")
    sides = [np.asarray(cell, float)[:, 2:] - np.asarray(cell, float)[:, :2] for cell in cells]
    scales = [np.sqrt(side.prod(axis=1)) for side in sides]
    ratios = [side[:, 0] / side[:, 1] for side in sides]
    alike = all(np.allclose(scale, scale[0], rtol=1e-3) for scale in scales)
    if not alike or any(len(one) != len(ratios[0]) or not np.allclose(one, ratios[0], rtol=1e-3) for one in ratios):
        raise WeightsError(
            "Its anchors have several scales on a level of the pyramid, or other ratios on one than on another. "
            "Networks here have one scale for each level."
        )
    return {
        "RPN_ANCHOR_SCALES": [round(float(scale[0]), 3) for scale in scales],
        "RPN_ANCHOR_RATIOS": [round(float(ratio), 5) for ratio in ratios[0]],
    }


def _with_background(target: Target, classes: int) -> Target:
    """A target that makes room for the background, class 0, which is the last of the scores there and not at all among
    boxes and masks."""
    if target.layer == "mrcnn_class_logits":
        return _before(
            target, lambda x: np.concatenate([x[-1:], x[:-1]]), "the background from the last place to the first"
        )
    if target.layer in ("mrcnn_bbox_fc", "mrcnn_mask"):
        rows = 4 if target.layer == "mrcnn_bbox_fc" else 1
        return _before(target, lambda x: _rows_of_classes(x, rows, classes), "zeros for the background")
    return target


def _before(target: Target, change: Callable[[np.ndarray], np.ndarray], how: str) -> Target:
    told = how if target.how == "as it is" else f"{how}, {target.how}"
    return replace(target, turn=lambda x: target.turn(change(x)), how=told)


def _rows_of_classes(array: np.ndarray, rows: int, classes: int) -> np.ndarray:
    """So many rows for each class, the background's zero; those that all classes share are repeated."""
    if len(array) == rows and classes > 2:
        array = np.tile(array, (classes - 1, *[1] * (array.ndim - 1)))
    return np.concatenate([np.zeros_like(array[:rows]), array])


def _add_statistics(found: Conversion) -> None:
    """Statistics for normalizations that are folded into a scale and an offset: those that change nothing more."""
    for layer, weights in found.arrays.items():
        if layer.startswith("bn"):
            weights["moving_mean"] = np.zeros_like(weights["beta"])
            weights["moving_variance"] = np.full_like(weights["beta"], 1 - _EPSILON)


# Patterns of modules, the layer here, and what it is. BODY stands for what the names of the backbone begin with.
_RULES: Rules = [
    (r"BODYstem\.conv1", "conv1", "conv"),
    (r"BODYstem\.conv1\.norm", "bn_conv1", "norm"),
    (rf"BODY{_BLOCK}\.conv([123])", in_block("res", 2), "conv"),
    (rf"BODY{_BLOCK}\.conv([123])\.norm", in_block("bn", 2), "norm"),
    (rf"BODY{_BLOCK}\.shortcut", in_block("res", 2), "conv"),
    (rf"BODY{_BLOCK}\.shortcut\.norm", in_block("bn", 2), "norm"),
    (r"backbone\.fpn_lateral([2-5])", r"fpn_c\1p\1", "conv"),
    (r"backbone\.fpn_lateral([2-5])\.norm", r"fpn_c\1p\1_bn", "norm"),
    (r"backbone\.fpn_output([2-5])", r"fpn_p\1", "conv"),
    (r"backbone\.fpn_output([2-5])\.norm", r"fpn_p\1_bn", "norm"),
    (r"proposal_generator\.rpn_head\.conv(\.conv0)?", "rpn_conv_shared", "conv"),
    (r"proposal_generator\.rpn_head\.conv\.conv(\d+)", lambda match: f"rpn_conv_shared{int(match[1]) + 1}", "conv"),
    (r"proposal_generator\.rpn_head\.objectness_logits", "rpn_class_raw", "conv"),
    (r"proposal_generator\.rpn_head\.anchor_deltas", "rpn_bbox_pred", "deltas conv"),
    (r"roi_heads\.box_head\.conv(\d+)", r"mrcnn_box_conv\1", "conv"),
    (r"roi_heads\.box_head\.conv(\d+)\.norm", r"mrcnn_box_bn\1", "norm"),
    (r"roi_heads\.box_head\.fc1", "mrcnn_class_conv1", "region"),
    (r"roi_heads\.box_head\.fc2", "mrcnn_class_conv2", "cell"),
    (r"roi_heads\.box_predictor\.cls_score", "mrcnn_class_logits", "dense"),
    (r"roi_heads\.box_predictor\.bbox_pred", "mrcnn_bbox_fc", "deltas dense"),
    (r"roi_heads\.mask_head\.mask_fcn(\d+)", r"mrcnn_mask_conv\1", "conv"),
    (r"roi_heads\.mask_head\.mask_fcn(\d+)\.norm", r"mrcnn_mask_bn\1", "norm"),
    (r"roi_heads\.mask_head\.deconv", "mrcnn_mask_deconv", "deconv"),
    (r"roi_heads\.mask_head\.predictor", "mrcnn_mask", "conv"),
]
