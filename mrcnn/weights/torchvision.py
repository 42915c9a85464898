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
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcnn.weights.contents import WeightsError, listed
from mrcnn.weights.info import RESNETS

Arrays = dict[str, dict[str, np.ndarray]]

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

# What a normalization's tensors are called here.
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


@dataclass(frozen=True)
class Fate:
    """What became of a tensor.

    Attributes:
        name: in the state dict.
        shape: there.
        target: "layer/weight" here; None where it is not used.
        how: what was done, or why it is not used, in words.
    """

    name: str
    shape: tuple[int, ...]
    target: str | None
    how: str

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape)) or "scalar"
        return f"{self.name} ({shape}) -> {self.target or 'not used'}: {self.how}"


@dataclass
class Conversion:
    """Weights for layers of this package.

    Attributes:
        arrays: by layer and weight.
        fates: what became of each tensor, in the order of the state dict.
        fields: fields of `Config` that the tensors give away, BACKBONE and NUM_CLASSES among them.
        preset: the name of the classmethod of `Config` that computes what the weights were trained for; None of a
            classifier's.
    """

    arrays: Arrays = field(default_factory=dict)
    fates: list[Fate] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None

    @property
    def unused(self) -> list[Fate]:
        """Tensors that no layer takes."""
        return [fate for fate in self.fates if fate.target is None]

    def __str__(self) -> str:
        used = len(self.fates) - len(self.unused)
        head = [f"{used} of {len(self.fates)} tensors are used; preset {self.preset}"]
        return "\n".join([*head, *map(str, self.fates)])


@dataclass(frozen=True)
class Target:
    """Where a tensor goes, and how it is turned."""

    layer: str
    weight: str
    turn: Callable[[np.ndarray], np.ndarray]
    how: str


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
    whole = "roi_heads.box_predictor.cls_score.weight" in names
    prefix = "backbone.body." if whole else ""
    _refuse_other_parts(names)
    if prefix + "conv1.weight" not in names or prefix + "layer1.0.conv1.weight" not in names:
        raise WeightsError(
            "This is no state dict of torchvision's Mask R-CNN or ResNets: it has no "
            f"{prefix}conv1.weight and {prefix}layer1.0.conv1.weight. Received: {listed(list(state)) or 'nothing'}."
        )
    shapes = {name: np.shape(state[old]) for name, old in names.items()}
    if whole:
        found.preset, found.fields = _recipe(shapes)
    else:
        found.fields = _classifier_fields(shapes)
    found.fields["BACKBONE"] = resnet_name(shapes, prefix)
    pool = int(found.fields.get("POOL_SIZE", 7))
    for name, old in names.items():
        array = np.asarray(state[old])
        target, reason = _target(name, prefix, pool)
        if target is None:
            found.fates.append(Fate(old, array.shape, None, reason))
            continue
        layer = found.arrays.setdefault(target.layer, {})
        layer[target.weight] = np.ascontiguousarray(target.turn(array), np.float32)
        found.fates.append(Fate(old, array.shape, f"{target.layer}/{target.weight}", target.how))
    strange = [fate.name for fate in found.unused if fate.how == _UNKNOWN]
    if strange:
        raise WeightsError(f"No layer takes these tensors: {listed(strange)}. Is it a Mask R-CNN of another kind?")
    return found


_UNKNOWN = "no layer of these networks"


def _modern_name(name: str) -> str:
    """Today's name of a tensor, for one of the first files."""
    name = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2", name)
    name = re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", name)
    found = re.match(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$", name)
    return f"roi_heads.mask_head.{int(found[1]) - 1}.0.{found[2]}" if found else name


def _recipe(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]]:
    """The preset of a Mask R-CNN, and the fields in which it differs from that."""
    head = "roi_heads.box_head."
    convs = sum(1 for name in shapes if re.fullmatch(r"roi_heads\.box_head\.\d+\.0\.weight", name))
    hidden = [name for name in shapes if re.fullmatch(r"roi_heads\.box_head\.(fc6|fc7|\d+)\.weight", name)]
    if not hidden:
        raise WeightsError("The state dict has no fully connected layer roi_heads.box_head.fc6, or of another number.")
    first = shapes[hidden[0]]
    width = shapes["backbone.fpn.layer_blocks.0.0.weight"][0]
    depth = len([name for name in shapes if re.fullmatch(r"rpn\.head\.conv\.\d+\.0\.weight", name)])
    normalized = {
        "backbone": "backbone.body.bn1.weight", "pyramid": "backbone.fpn.inner_blocks.0.1.weight",
        "box_convs": head + "0.1.weight", "mask_convs": "roi_heads.mask_head.0.1.weight",
    }  # fmt: skip
    parts = tuple(part for part, name in normalized.items() if name in shapes)
    channels = shapes[head + "0.0.weight"][0] if convs else width
    fields = {
        "NUM_CLASSES": shapes["roi_heads.box_predictor.cls_score.weight"][0],
        "IMAGE_CHANNEL_COUNT": shapes["backbone.body.conv1.weight"][1],
        "TOP_DOWN_PYRAMID_SIZE": width,
        "RPN_CONV_SIZE": shapes["rpn.head.conv.0.0.weight"][0],
        "RPN_CONV_DEPTH": depth,
        "FPN_CLASSIF_FC_LAYERS_SIZE": first[0],
        "POOL_SIZE": round((first[1] / channels) ** 0.5),
        "BOX_HEAD_CONVS": convs,
        "BOX_HEAD_FCS": len(hidden),
        "MASK_CONV_SIZE": shapes["roi_heads.mask_head.0.0.weight"][0],
        "NORM_PARTS": parts,
    }
    if convs:
        fields["BOX_HEAD_CONV_SIZE"] = channels
    elif "backbone.body.bn1.num_batches_tracked" in shapes:  # not the frozen ones of the released weights
        fields |= {"NORM": "batch", "NORM_EPSILON": 1e-5}
    return ("torchvision_v2" if convs else "torchvision_v1"), fields


def _classifier_fields(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    channels = shapes["conv1.weight"][1]
    norm = "batch" if "bn1.running_mean" in shapes else "group"
    means = _IMAGENET if channels == 3 else {}
    return {"IMAGE_CHANNEL_COUNT": channels, "NORM": norm, **_CLASSIFIER, **means}


def _refuse_other_parts(names: Iterable[str]) -> None:
    for pattern, part in _OTHER_PARTS.items():
        found = [name for name in names if re.fullmatch(pattern, name)]
        if found:
            raise WeightsError(
                f"This is a ResNet of timm with {part}, which the backbones here do not have: it holds "
                f"{listed(found)}. One of torchvision's kind, such as resnet50.a1_in1k, will do."
            )


def resnet_name(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> str:
    """The name of a ResNet of torchvision, as BACKBONE has it.

    Args:
        shapes: of the tensors of a state dict, by name.
        prefix: what names of the ResNet begin with.

    Raises:
        WeightsError: there is no such ResNet here.
    """
    pattern = re.compile(re.escape(prefix) + r"layer(\d)\.(\d+)\.conv1\.weight")
    blocks = Counter(int(match[1]) for match in map(pattern.fullmatch, shapes) if match)
    bottleneck = f"{prefix}layer1.0.conv3.weight" in shapes
    inner = shapes[f"{prefix}layer1.0.conv2.weight"]
    key = (tuple(blocks[stage] for stage in (1, 2, 3, 4)), bottleneck, inner[0] // inner[1], inner[0])
    if key not in RESNETS:
        raise WeightsError(
            f"There is no backbone of {key[0]} {'bottlenecks' if bottleneck else 'basic blocks'} in {key[2]} groups, "
            f"{key[3]} wide. Known: {', '.join(RESNETS.values())}."
        )
    return RESNETS[key]


def _target(name: str, prefix: str, pool: int) -> tuple[Target | None, str]:
    """Where a tensor of today's name goes; None, and why."""
    if name.endswith("num_batches_tracked"):
        return None, "a counter of PyTorch's batch normalization"
    if name in ("fc.weight", "fc.bias"):
        return None, "the classifier's last layer"
    module, _, weight = name.rpartition(".")
    for pattern, layer, kind in _RULES:
        match = re.fullmatch(pattern.replace("BODY", re.escape(prefix)), module)
        if match and (kind != "norm" or weight in _NORM):
            named = layer(match) if callable(layer) else match.expand(layer)
            return _turned(named, kind, weight, pool), ""
    return None, _UNKNOWN


def block_letters(stage: int, block: int) -> str:
    """ "2a" for the first block of stage 2, "4za" for the 27th of stage 4; see `mrcnn.layers.resnet.block_name`."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return f"{stage}{letters[block] if block < 26 else 'z' + letters[block - 26]}"


def _in_block(kind: str) -> Callable[[re.Match[str]], str]:
    """conv2 of layer3.5 is res4f_branch2b, and its normalization bn4f_branch2b."""

    def layer(match: re.Match[str]) -> str:
        branch = "2" + "abc"[int(match[3]) - 1] if match.lastindex == 3 else "1"
        return f"{kind}{block_letters(int(match[1]) + 1, int(match[2]))}_branch{branch}"

    return layer


# Patterns of modules, the layer here, and what it is. BODY stands for what the names of the backbone begin with.
_RULES: list[tuple[str, Any, str]] = [
    (r"BODYconv1", "conv1", "conv"),
    (r"BODYbn1", "bn_conv1", "norm"),
    (r"BODYlayer(\d)\.(\d+)\.conv([123])", _in_block("res"), "conv"),
    (r"BODYlayer(\d)\.(\d+)\.bn([123])", _in_block("bn"), "norm"),
    (r"BODYlayer(\d)\.(\d+)\.downsample\.0", _in_block("res"), "conv"),
    (r"BODYlayer(\d)\.(\d+)\.downsample\.1", _in_block("bn"), "norm"),
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


def _turned(layer: str, kind: str, weight: str, pool: int) -> Target:
    if kind == "norm":
        return Target(layer, _NORM[weight], lambda x: x, "as it is")
    if weight == "bias":
        if kind.startswith("deltas"):
            return Target(layer, "bias", rows_and_columns, "(dx, dy, dw, dh) to (dy, dx, dh, dw)")
        return Target(layer, "bias", lambda x: x, "as it is")
    turn, how = {
        "conv": (conv_kernel, "[out, in, h, w] to [h, w, in, out]"),
        "deltas conv": (
            lambda x: conv_kernel(rows_and_columns(x)),
            "[out, in, h, w] to [h, w, in, out], (dx, dy, dw, dh) to (dy, dx, dh, dw)",
        ),
        "dense": (lambda x: x.T, "[out, in] to [in, out]"),
        "deltas dense": (
            lambda x: rows_and_columns(x).T,
            "[out, in] to [in, out], (dx, dy, dw, dh) to (dy, dx, dh, dw)",
        ),
        "region": (
            lambda x: conv_kernel(x.reshape(len(x), -1, pool, pool)),
            "[out, in x h x w] to a convolution [h, w, in, out]",
        ),
        "cell": (lambda x: x.T[None, None], "[out, in] to a convolution [1, 1, in, out]"),
        "deconv": (lambda x: x.transpose(2, 3, 1, 0), "[in, out, h, w] to [h, w, out, in]"),
    }[kind]
    return Target(layer, "kernel", turn, how)


def conv_kernel(kernel: np.ndarray) -> np.ndarray:
    """[out, in, h, w] to [h, w, in, out]."""
    return kernel.transpose(2, 3, 1, 0)


def rows_and_columns(array: np.ndarray) -> np.ndarray:
    """[4 n, ...] in the order dx, dy, dw, dh to dy, dx, dh, dw."""
    order = np.arange(len(array)).reshape(-1, 4)[:, [1, 0, 3, 2]].ravel()
    return array[order]
