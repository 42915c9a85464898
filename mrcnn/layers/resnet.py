"""Backbones: image -> C1..C5, feature maps of strides 2, 4, 8, 16 and 32 (Deep Residual Learning, table 1).

Layer names are the weights contract: `res{stage}{block}_branch{2a,2b,2c,1}` and `bn{stage}{block}_branch...`.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from keras import layers

from mrcnn.layers.normalization import Norm


@dataclass(frozen=True)
class Style:
    """In what ResNets differ that have the same blocks. The defaults are the original's.

    Attributes:
        norm: the normalization behind each convolution.
        use_bias: whether convolutions have a bias.
        stride_in_3x3: whether the stride of a bottleneck sits in its 3x3 convolution, or in its first 1x1.
        symmetric: whether windows with a stride are padded alike on both sides, or as TensorFlow's "same" has it.
    """

    norm: Norm = field(default_factory=Norm)
    use_bias: bool = True
    stride_in_3x3: bool = False
    symmetric: bool = False

    def conv(self, x: Any, width: int, size: Any, name: str, strides: Any = 1, groups: int = 1) -> Any:
        """A convolution padded to keep the size of the map, but for its strides."""
        padding = "valid" if size == 1 else "same"
        if self.symmetric and strides != 1 and size != 1:
            x, padding = layers.ZeroPadding2D(size // 2)(x), "valid"
        return layers.Conv2D(
            width, size, strides=strides, padding=padding, use_bias=self.use_bias, groups=groups, name=name
        )(x)

    def pool(self, x: Any) -> Any:
        """The 3x3 max-pool of the stem, of a map that is nowhere negative."""
        if self.symmetric:
            return layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
        return layers.MaxPooling2D(3, strides=2, padding="same")(x)


def resnet(
    image: Any,
    blocks: Sequence[int],
    stage5: bool = True,
    train_bn: bool | None = False,
    style: Style | None = None,
    *,
    basic: bool = False,
    groups: int = 1,
    group_width: int = 64,
) -> list[Any]:
    """A ResNet.

    Args:
        image: [B, H, W, channels], H and W multiples of 32.
        blocks: blocks in stages 2 to 5: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101.
        stage5: False leaves the last stage out; C5 is None then.
        train_bn: see `BatchNorm`; without `style`.
        style: None: the original's, with `train_bn`.
        basic: blocks of two 3x3 convolutions (ResNet-18 and -34), not bottlenecks.
        groups, group_width: of the 3x3 convolutions: 32 and 8 make ResNeXt-101 32x8d, 1 and 128 a wide ResNet.

    Returns:
        [C1, C2, C3, C4, C5].
    """
    style = Style(Norm("batch", train_bn)) if style is None else style
    x = layers.ZeroPadding2D(3)(image)
    x = layers.Conv2D(64, 7, strides=2, use_bias=style.use_bias, name="conv1")(x)
    x = style.norm.after(x, "bn_conv1")
    x = layers.Activation("relu")(x)
    c1 = x = style.pool(x)
    features = [c1]
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=2):
        if stage == 5 and not stage5:
            features.append(None)
            break
        for block in range(count):
            name, first = f"{stage}{block_name(block)}", block == 0
            strides = 2 if first and stage > 2 else 1
            if basic:
                x = basic_block(x, width, name, style=style, strides=strides, project=first and stage > 2)
                continue
            inner = width * group_width // 64 * groups
            x = bottleneck(
                x, inner, 4 * width, name, style=style, strides=strides, project=first, groups=groups
            )  # fmt: skip
        features.append(x)
    return features


def block_name(index: int) -> str:
    """a, b, ... z, and for the 36 blocks of ResNet-152 on to za, zb, ..."""
    letters = string.ascii_lowercase
    return letters[index] if index < len(letters) else "z" + letters[index - len(letters)]


def bottleneck(
    x: Any,
    inner: int | tuple[int, int],
    outer: int,
    name: str,
    train_bn: bool | None = False,
    *,
    strides: Any = 1,
    project: bool = False,
    kernel_size: Any = 3,
    use_bias: bool = True,
    style: Style | None = None,
    groups: int = 1,
) -> Any:
    """1x1, 3x3, 1x1 convolutions and a shortcut; `project` gives the shortcut a 1x1 convolution. `train_bn` and
    `use_bias` are those of the original's style; see `resnet`."""
    style = Style(Norm("batch", train_bn), use_bias) if style is None else style
    conv, bn = f"res{name}_branch", f"bn{name}_branch"
    first, second = inner if isinstance(inner, tuple) else (inner, inner)
    in_1x1, in_3x3 = (1, strides) if style.stride_in_3x3 else (strides, 1)
    shortcut = x
    x = style.conv(x, first, 1, conv + "2a", in_1x1)
    x = layers.Activation("relu")(style.norm.after(x, bn + "2a"))
    x = style.conv(x, second, kernel_size, conv + "2b", in_3x3, groups)
    x = layers.Activation("relu")(style.norm.after(x, bn + "2b"))
    x = style.norm.after(style.conv(x, outer, 1, conv + "2c"), bn + "2c")
    if project:
        shortcut = style.norm.after(style.conv(shortcut, outer, 1, conv + "1", strides), bn + "1")
    return layers.Activation("relu", name=f"res{name}_out")(layers.Add()([x, shortcut]))


def resnet14(image: Any, stage5: bool = True, train_bn: bool | None = False, style: Style | None = None) -> list[Any]:
    """A small ResNet of basic blocks (two 3x3 convolutions), 1.1 million parameters: for a CPU and a few classes.

    Arguments and result as for `resnet`.
    """
    style = Style(Norm("batch", train_bn)) if style is None else style
    x = style.conv(image, 24, 3, "conv1", 2)
    x = layers.Activation("relu")(style.norm.after(x, "bn_conv1"))
    features = [x]
    for stage, (count, width) in enumerate(((2, 32), (2, 64), (1, 128), (1, 160)), start=2):
        if stage == 5 and not stage5:
            features.append(None)
            break
        for block in range(count):
            first = block == 0
            x = basic_block(
                x, width, f"{stage}{block_name(block)}", style=style, strides=2 if first else 1, project=first
            )
        features.append(x)
    return features


def basic_block(x: Any, width: int, name: str, *, style: Style, strides: int = 1, project: bool = False) -> Any:
    """Two 3x3 convolutions and a shortcut; `project` gives the shortcut a 1x1 convolution."""
    conv, bn = f"res{name}_branch", f"bn{name}_branch"
    shortcut = x
    x = style.conv(x, width, 3, conv + "2a", strides)
    x = layers.Activation("relu")(style.norm.after(x, bn + "2a"))
    x = style.norm.after(style.conv(x, width, 3, conv + "2b"), bn + "2b")
    if project:
        shortcut = style.norm.after(style.conv(shortcut, width, 1, conv + "1", strides), bn + "1")
    return layers.Activation("relu", name=f"res{name}_out")(layers.Add()([x, shortcut]))


# By the names of `mrcnn.config_rules.BACKBONES`; those with x and wide are torchvision's.
BACKBONES: dict[str, Callable[..., list[Any]]] = {
    "resnet50": partial(resnet, blocks=(3, 4, 6, 3)),
    "resnet101": partial(resnet, blocks=(3, 4, 23, 3)),
    "resnet152": partial(resnet, blocks=(3, 8, 36, 3)),
    "resnet18": partial(resnet, blocks=(2, 2, 2, 2), basic=True),
    "resnet34": partial(resnet, blocks=(3, 4, 6, 3), basic=True),
    "resnext50_32x4d": partial(resnet, blocks=(3, 4, 6, 3), groups=32, group_width=4),
    "resnext101_32x8d": partial(resnet, blocks=(3, 4, 23, 3), groups=32, group_width=8),
    "resnext101_64x4d": partial(resnet, blocks=(3, 4, 23, 3), groups=64, group_width=4),
    "wide_resnet50_2": partial(resnet, blocks=(3, 4, 6, 3), group_width=128),
    "wide_resnet101_2": partial(resnet, blocks=(3, 4, 23, 3), group_width=128),
    "resnet14": resnet14,
}
