"""The first convolution's kernel of a network for RGB images, made to fit images of other channels.

Letters: C channels of the new network's images, F filters. Kernels are [height, width, channels, F].

The rule, for a network of C channels and a file of three:

- Where it is not known which channels are red, green and blue, each of the C channels gets the sum of the three kernels
  divided by C. An image all of whose channels are alike is then seen as the RGB network saw it as gray: for C = 1 a
  grayscale image exactly so, and for more channels no response gets larger than the next layers are used to.
- Where it is (RGB_CHANNELS), these three get their kernels, and the others zeros: the network begins as the RGB network
  that it was, and learns what the others are good for. (A kernel of zeros learns: its gradient is that of any other.)

Both take for granted that values are scaled alike: MEAN_PIXEL subtracted, about -128 to 128.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_RGB = 3


def adapt_kernel(kernel: np.ndarray, channels: int, rgb_channels: Sequence[int] | None = None) -> np.ndarray:
    """A kernel [h, w, 3, F] for RGB images as one [h, w, C, F] of the same type; see the rule above.

    Args:
        kernel: as stored.
        channels: C.
        rgb_channels: which of them are red, green and blue; None: it is not known.

    Raises:
        ValueError: a kernel of another shape, or channels that there are not.
    """
    if kernel.ndim != 4 or kernel.shape[2] != _RGB:
        raise ValueError(f"A kernel for RGB images is [height, width, 3, filters]. Received shape: {kernel.shape}.")
    if rgb_channels is None:
        total = kernel.astype(np.float64).sum(axis=2, keepdims=True) / channels
        return np.repeat(total, channels, axis=2).astype(kernel.dtype)
    if len(rgb_channels) != _RGB or not all(0 <= number < channels for number in rgb_channels):
        raise ValueError(f"rgb_channels must be three numbers from 0 to {channels - 1}. Received: {rgb_channels!r}.")
    adapted = np.zeros((*kernel.shape[:2], channels, kernel.shape[3]), kernel.dtype)
    adapted[:, :, list(rgb_channels)] = kernel
    return adapted


def rule_in_words(channels: int, rgb_channels: Sequence[int] | None) -> str:
    """What `adapt_kernel` does, for people."""
    if rgb_channels is not None:
        numbers = ", ".join(str(number) for number in rgb_channels)
        return f"channels {numbers} have the kernels of red, green and blue, the others zeros"
    if channels == 1:
        return "the kernels of red, green and blue were summed"
    return f"each channel has the sum of the kernels of red, green and blue, divided by {channels}"


def first_kernel(
    layers: Mapping[str, Mapping[str, Any]], stored: Mapping[str, Mapping[str, Any]]
) -> tuple[str, str] | None:
    """(layer, weight) of the one kernel that is stored for RGB images and wanted for others; None where it is not one.

    Args:
        layers: the model's variables by layer and weight.
        stored: the file's weights, likewise; both have a `shape`.
    """
    found = []
    for layer in layers.keys() & stored.keys():
        for weight in layers[layer].keys() & stored[layer].keys():
            ours, theirs = tuple(layers[layer][weight].shape), tuple(stored[layer][weight].shape)
            fits = len(ours) == len(theirs) == 4 and ours[:2] == theirs[:2] and ours[3] == theirs[3]
            if fits and theirs[2] == _RGB != ours[2]:
                found.append((layer, weight))
    return found[0] if len(found) == 1 else None
