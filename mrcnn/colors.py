"""Pictures as uint8 RGB, and colors for instances. Colors are (red, green, blue) from 0 to 1.

Letters: H, W height and width, C channels.
"""

from __future__ import annotations

import colorsys

import numpy as np


def as_rgb(image: np.ndarray) -> np.ndarray:
    """A picture of any kind as uint8 [H, W, 3], always a copy.

    Values that fit 8 bits (0 to 255) are taken as they are, bool and floats from 0 to 1 are multiplied by
    255, and anything else (16-bit images, negative values) is stretched so that the least finite value
    becomes 0 and the greatest 255. An alpha channel is dropped.

    Args:
        image: [H, W], or [H, W, C] of 1, 3 or 4 channels, any real number type.

    Raises:
        ValueError: another shape.
    """
    image = np.asarray(image)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or image.size == 0:
        raise ValueError(
            "An image to draw on must be [H, W], or [H, W, C] of 1, 3 or 4 channels. "
            f"Received shape: {image.shape}. "
            "Of an image with other channels pass the ones to see: image[..., :3]."
        )
    if channels == 4:
        image = image[..., :3]
    image = _as_bytes(image)
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.array(image, order="C")


def _as_bytes(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    values = image.astype(np.float32)
    finite = np.isfinite(values)
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    if np.issubdtype(image.dtype, np.floating) and low >= 0 and high <= 1:
        values *= 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / (high - low) if high > low else 0)
    return np.rint(np.clip(np.where(finite, values, 0), 0, 255)).astype(np.uint8)


def random_colors(
    N: int,
    bright: bool = True,
    seed: int | np.random.Generator | None = None,
) -> list[tuple[float, float, float]]:
    """`N` colors of evenly spaced hues in random order; the same `seed` (or generator state), the same
    one."""
    hues = (np.arange(N) / max(N, 1)).tolist()
    value = 1.0 if bright else 0.7
    colors = [colorsys.hsv_to_rgb(hue, 1.0, value) for hue in hues]
    return [colors[i] for i in np.random.default_rng(seed).permutation(N)]


def instance_colors(count: int) -> np.ndarray:
    """`count` colors [count, 3] that differ well, neighbors in the list most of all, and look equally bright.

    Hues advance by the golden angle at changing lightness in the OKLCH color space (Ottosson 2020).
    """
    index = np.arange(count)
    hue = 2 * np.pi * ((0.08 + index * 0.6180339887) % 1)
    lightness = np.array([0.76, 0.68, 0.84])[index % 3]
    chroma = 0.17
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=1,
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(cones**3 @ to_linear.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
