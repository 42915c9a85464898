"""Augmentations that change values and leave every pixel in its place.

Letters: H, W sides in pixels, C channels, N instances.
"""

from __future__ import annotations

import numpy as np

from mrcnn.data.augmentation.arguments import between, probability
from mrcnn.data.augmentation.pixels import greatest, linear, mean
from mrcnn.data.augmentation_adapters import Pair
from mrcnn.data.molding import LUMINANCE

# RGB to luminance and two differences of color (YIQ), in whose plane hue is an angle. Gray has no differences: their
# rows sum to 0.
_TO_YIQ = np.array([np.array(LUMINANCE) / sum(LUMINANCE), [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


class Brightness:
    """Add the same amount to all pixels, drawn evenly from -`limit` to `limit`.

    Args:
        limit: as a share of the type's greatest value (255 for floats); 0.2 is a visible change.
    """

    def __init__(self, limit: float = 0.2) -> None:
        self.limit = probability("limit", limit)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        return linear(image, 1.0, rng.uniform(-self.limit, self.limit) * greatest(image.dtype)), masks


class Contrast:
    """Stretch values away from the image's mean, or pull them in, by a factor drawn evenly from 1 - `limit`
    to 1 + `limit`."""

    def __init__(self, limit: float = 0.2) -> None:
        self.limit = probability("limit", limit)

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        factor = rng.uniform(1 - self.limit, 1 + self.limit)
        return linear(image, factor, (1 - factor) * mean(image)), masks


class Color:
    """Brightness, contrast, saturation and hue at once, each drawn evenly. The latter two are for images of three
    channels, which are taken for RGB; others get the first two.

    It is one linear map of the channels, so that nothing is cut off in between, and gray stays gray.

    Args:
        brightness: see `Brightness`.
        contrast: see `Contrast`.
        saturation: colors are stretched away from gray of their luminance, by a factor from 1 - this to 1 + this.
        hue: greatest turn of the color circle, as a share of it, at most 0.5; 0.02 is a visible change.
    """

    def __init__(
        self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2, hue: float = 0.02
    ) -> None:
        self.brightness = probability("brightness", brightness)
        self.contrast = probability("contrast", contrast)
        self.saturation = probability("saturation", saturation)
        self.hue = between("hue", hue, above=-0.5 / 1e9, most=0.5)[1]

    def __call__(self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> Pair:
        shift = rng.uniform(-self.brightness, self.brightness) * greatest(image.dtype)
        factor = rng.uniform(1 - self.contrast, 1 + self.contrast)
        saturation = rng.uniform(1 - self.saturation, 1 + self.saturation)
        angle = rng.uniform(-self.hue, self.hue) * 2 * np.pi
        shift += (1 - factor) * mean(image)
        if image.shape[2] != 3 or (self.saturation == 0 and self.hue == 0):
            return linear(image, factor, shift), masks
        cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        return linear(image, factor * _FROM_YIQ @ turn @ _TO_YIQ, shift), masks
