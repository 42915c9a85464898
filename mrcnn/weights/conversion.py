"""What others' weights become here: arrays by layer and weight, and the fate of each tensor; numpy only.

Layouts: a PyTorch convolution is [out, in, h, w] and here [h, w, in, out]; a linear layer [out, in] and [in, out]; the
first fully connected layer of a box head sees a region channel by channel there and pixel by pixel here. Deltas are
(dx, dy, dw, dh) there and (dy, dx, dh, dw) here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcnn.weights.contents import WeightsError, listed
from mrcnn.weights.info import RESNETS

Arrays = dict[str, dict[str, np.ndarray]]
Layer = Callable[[re.Match[str]], str] | str
# Patterns of modules, the layer here, and what it is: a key of `turned`.
Rules = Iterable[tuple[str, Layer, str]]

COUNTER = "a counter of PyTorch's batch normalization"
UNKNOWN = "no layer of these networks"

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
        preset: the name in `mrcnn.presets.PRESETS` of what the weights were trained for; None of a classifier's.
        source: whose weights they are, in words.
    """

    arrays: Arrays = field(default_factory=dict)
    fates: list[Fate] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    source: str = ""

    @property
    def unused(self) -> list[Fate]:
        """Tensors that no layer takes."""
        return [fate for fate in self.fates if fate.target is None]

    def __str__(self) -> str:
        return "\n".join([self.summary(), *map(str, self.fates)])

    def summary(self) -> str:
        """How many tensors are used, and why the others are not, in a line."""
        reasons = Counter(fate.how for fate in self.unused)
        left = "; ".join(f"{count} not: {reason}" for reason, count in reasons.items())
        used = f"{len(self.fates) - len(self.unused)} of {len(self.fates)} tensors are used"
        return f"{used}{f' ({left})' if left else ''}; preset {self.preset}"


class Shapes(dict[str, tuple[int, ...]]):
    """Shapes of tensors by name. One that is asked for and is not there is an error that names it."""

    def __missing__(self, name: str) -> tuple[int, ...]:
        raise WeightsError(f"The state dict is not whole: it has no {name}.")

    def dimensions(self, name: str, count: int) -> tuple[int, ...]:
        """The shape of a tensor that has to have so many dimensions, none of them 0."""
        shape = self[name]
        if len(shape) != count or 0 in shape:
            raise WeightsError(f"{name} should have {count} dimensions, none of them 0. Received shape: {shape}.")
        return shape

    def matching(self, pattern: str) -> list[str]:
        """Names that match a pattern, whole."""
        return [name for name in self if re.fullmatch(pattern, name)]


@dataclass(frozen=True)
class Target:
    """Where a tensor goes, and how it is turned."""

    layer: str
    weight: str
    turn: Callable[[np.ndarray], np.ndarray]
    how: str


Route = Callable[[str], tuple[Target | None, str]]


def apply(found: Conversion, tensors: Iterable[tuple[str, str, np.ndarray]], route: Route) -> None:
    """Put tensors where they belong, and note their fates.

    Args:
        found: is filled.
        tensors: today's name, the name in the state dict, and the array of each.
        route: today's name -> its target; or None, and why it is not used.

    Raises:
        WeightsError: a tensor of another shape than its layer's; two for one place; or some that no layer takes.
    """
    for name, old, array in tensors:
        array = np.asarray(array)
        target, reason = route(name)
        if target is None:
            found.fates.append(Fate(old, array.shape, None, reason))
            continue
        layer = found.arrays.setdefault(target.layer, {})
        if target.weight in layer:
            raise WeightsError(f"Two tensors are for {target.layer}/{target.weight}; the second is {old}.")
        if array.dtype.kind not in "f":
            raise WeightsError(f"{old} holds no weights but values of type {array.dtype}.")
        try:
            turned = target.turn(array)
        except ValueError as error:
            raise WeightsError(f"{old} of shape {array.shape} is for no {target.layer}: {error}.") from error
        layer[target.weight] = np.ascontiguousarray(turned, np.float32)
        found.fates.append(Fate(old, array.shape, f"{target.layer}/{target.weight}", target.how))
    strange = [fate.name for fate in found.unused if fate.how == UNKNOWN]
    if strange:
        raise WeightsError(f"No layer takes these tensors: {listed(strange)}. Is it a network of another kind?")


def route_by(rules: Rules, name: str, pool: int) -> tuple[Target | None, str]:
    """Where a tensor goes by rules: the first whose pattern matches its module, whole. `pool`: the side of what the box
    head sees of a region."""
    module, _, weight = name.rpartition(".")
    for pattern, layer, kind in rules:
        match = re.fullmatch(pattern, module)
        if match and weight in (_NORM if kind == "norm" else ("weight", "bias")):
            named = layer(match) if callable(layer) else match.expand(layer)
            return turned(named, kind, weight, pool), ""
    return None, UNKNOWN


def turned(layer: str, kind: str, weight: str, pool: int) -> Target:
    """How a weight of a kind of layer is turned.

    Args:
        layer: its name here.
        kind: "conv", "dense", "deconv", "norm"; "region", "cell": the first and second fully connected layer of a box
            head; "deltas conv", "deltas dense".
        weight: "weight", "bias" and, of a "norm", "running_mean", "running_var".
        pool: see `route_by`.
    """
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


def block_letters(stage: int, block: int) -> str:
    """ "2a" for the first block of stage 2, "4za" for the 27th of stage 4; see `mrcnn.layers.resnet.block_name`."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return f"{stage}{letters[block] if block < 26 else 'z' + letters[block - 26]}"


def in_block(kind: str, first_stage: int) -> Callable[[re.Match[str]], str]:
    """A layer's name from a match of (stage, block[, number of the convolution]), `kind` "res" or "bn": conv2 of
    layer3.5, with `first_stage` 1, is res4f_branch2b. Without a number it is the shortcut."""

    def layer(match: re.Match[str]) -> str:
        branch = "2" + "abc"[int(match[3]) - 1] if match.lastindex == 3 else "1"
        return f"{kind}{block_letters(int(match[1]) + 2 - first_stage, int(match[2]))}_branch{branch}"

    return layer


def region_layer(shapes: Shapes, name: str, channels: int) -> tuple[int, int]:
    """Outputs of a box head's first fully connected layer, and the side of the regions of so many channels that it
    sees."""
    outputs, inputs = shapes.dimensions(name, 2)
    pool = math.isqrt(inputs // channels)
    if inputs != channels * pool**2:
        raise WeightsError(f"{name} has {inputs} inputs, which are no square region of {channels} channels.")
    return outputs, pool


def backbone_of(shapes: Shapes, block: str, first_stage: int) -> str:
    """The name of a ResNet of torchvision's kind, as BACKBONE has it.

    Args:
        shapes: of the tensors of a state dict, by name.
        block: the pattern of a block's name, with groups for its stage and number, such as r"layer(\\d)\\.(\\d+)".
        first_stage: the number that the first stage with blocks has there.

    Raises:
        WeightsError: there is no such ResNet here.
    """
    pattern = re.compile(block + r"\.conv1\.weight")
    found = [match for match in map(pattern.fullmatch, shapes) if match]
    if not found:
        raise WeightsError("The state dict is not whole: it has no blocks of a ResNet.")
    counts = Counter(int(match[1]) for match in found)
    blocks = tuple(counts[first_stage + index] for index in range(4))
    first = next((m for m in found if int(m[1]) == first_stage and int(m[2]) == 0), found[0])
    prefix = first[0].removesuffix("conv1.weight")
    bottleneck = f"{prefix}conv3.weight" in shapes
    inner = shapes.dimensions(f"{prefix}conv2.weight", 4)
    key = (blocks, bottleneck, inner[0] // inner[1], inner[0])
    if key not in RESNETS:
        raise WeightsError(
            f"There is no backbone of {key[0]} {'bottlenecks' if bottleneck else 'basic blocks'} in {key[2]} groups, "
            f"{key[3]} wide. Known: {', '.join(RESNETS.values())}."
        )
    return RESNETS[key]
