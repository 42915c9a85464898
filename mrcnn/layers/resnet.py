"""Backbones: image -> C1..C5, feature maps of strides 2, 4, 8, 16 and 32 (Deep Residual Learning, table 1).

Layer names are the weights contract: `res{stage}{block}_branch{2a,2b,2c,1}` and `bn{stage}{block}_branch...`.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import partial
from typing import Any

from keras import layers

from mrcnn.layers.normalization import BatchNorm


def resnet(
    image: Any,
    blocks: tuple[int, int, int, int],
    stage5: bool = True,
    train_bn: bool | None = False,
) -> list[Any]:
    """A ResNet of bottleneck blocks.

    Args:
        image: [B, H, W, channels], H and W multiples of 32.
        blocks: blocks in stages 2 to 5: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101.
        stage5: False leaves the last stage out; C5 is None then.
        train_bn: see `BatchNorm`.

    Returns:
        [C1, C2, C3, C4, C5].
    """
    x = layers.ZeroPadding2D(3)(image)
    x = layers.Conv2D(64, 7, strides=2, name="conv1")(x)
    x = BatchNorm(train_bn, name="bn_conv1")(x)
    x = layers.Activation("relu")(x)
    c1 = x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    features = [c1]
    widths = ((64, 256), (128, 512), (256, 1024), (512, 2048))
    for stage, (count, (inner, outer)) in enumerate(zip(blocks, widths, strict=True), start=2):
        if stage == 5 and not stage5:
            features.append(None)
            break
        for block in range(count):
            x = bottleneck(
                x, inner, outer, f"{stage}{string.ascii_lowercase[block]}", train_bn,
                strides=2 if block == 0 and stage > 2 else 1, project=block == 0,
            )  # fmt: skip
        features.append(x)
    return features


def bottleneck(
    x: Any,
    inner: int | tuple[int, int],
    outer: int,
    name: str,
    train_bn: bool | None,
    *,
    strides: int = 1,
    project: bool = False,
    kernel_size: int = 3,
    use_bias: bool = True,
) -> Any:
    """1x1, 3x3, 1x1 convolutions and a shortcut; `project` gives the shortcut a 1x1 convolution. The stride sits in
    the first 1x1, as in the paper, and not in the 3x3 as in later implementations."""
    conv, bn = f"res{name}_branch", f"bn{name}_branch"
    first, second = inner if isinstance(inner, tuple) else (inner, inner)
    shortcut = x
    x = layers.Conv2D(first, 1, strides=strides, use_bias=use_bias, name=conv + "2a")(x)
    x = layers.Activation("relu")(BatchNorm(train_bn, name=bn + "2a")(x))
    x = layers.Conv2D(second, kernel_size, padding="same", use_bias=use_bias, name=conv + "2b")(x)
    x = layers.Activation("relu")(BatchNorm(train_bn, name=bn + "2b")(x))
    x = BatchNorm(train_bn, name=bn + "2c")(layers.Conv2D(outer, 1, use_bias=use_bias, name=conv + "2c")(x))
    if project:
        shortcut = layers.Conv2D(outer, 1, strides=strides, use_bias=use_bias, name=conv + "1")(shortcut)
        shortcut = BatchNorm(train_bn, name=bn + "1")(shortcut)
    return layers.Activation("relu", name=f"res{name}_out")(layers.Add()([x, shortcut]))


def resnet14(image: Any, stage5: bool = True, train_bn: bool | None = False) -> list[Any]:
    """A small ResNet of basic blocks (two 3x3 convolutions), 1.1 million parameters: for a CPU and a few classes.

    Arguments and result as for `resnet`.
    """
    x = layers.Conv2D(24, 3, strides=2, padding="same", name="conv1")(image)
    x = layers.Activation("relu")(BatchNorm(train_bn, name="bn_conv1")(x))
    features = [x]
    for stage, (count, width) in enumerate(((2, 32), (2, 64), (1, 128), (1, 160)), start=2):
        if stage == 5 and not stage5:
            features.append(None)
            break
        for block in range(count):
            x = basic_block(x, width, f"{stage}{string.ascii_lowercase[block]}", train_bn, down=block == 0)
        features.append(x)
    return features


def basic_block(x: Any, width: int, name: str, train_bn: bool | None, *, down: bool) -> Any:
    """Two 3x3 convolutions and a shortcut; `down` halves the map and gives the shortcut a 1x1 convolution."""
    conv, bn = f"res{name}_branch", f"bn{name}_branch"
    shortcut, strides = x, 2 if down else 1
    x = layers.Conv2D(width, 3, strides=strides, padding="same", name=conv + "2a")(x)
    x = layers.Activation("relu")(BatchNorm(train_bn, name=bn + "2a")(x))
    x = BatchNorm(train_bn, name=bn + "2b")(layers.Conv2D(width, 3, padding="same", name=conv + "2b")(x))
    if down:
        shortcut = layers.Conv2D(width, 1, strides=strides, name=conv + "1")(shortcut)
        shortcut = BatchNorm(train_bn, name=bn + "1")(shortcut)
    return layers.Activation("relu", name=f"res{name}_out")(layers.Add()([x, shortcut]))


BACKBONES: dict[str, Callable[..., list[Any]]] = {
    "resnet50": partial(resnet, blocks=(3, 4, 6, 3)),
    "resnet101": partial(resnet, blocks=(3, 4, 23, 3)),
    "resnet14": resnet14,
}
