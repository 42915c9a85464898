"""Augmentation: random changes of an image and its instances together.

Letters: H, W sides in pixels, C channels, N instances.

An augmentation is any callable `(image [H, W, C], masks bool [H, W, N], rng: numpy.random.Generator) ->
(image, masks)`. The sides may change, but not the number of instances or channels. It draws all chance from
`rng`, so that equal seeds give equal images, and it must leave its input arrays as they are. Several threads
call it at once. Instances of which no pixel is left are dropped later, by themselves.

One that adds instances, leaves some out, or wants another image has a method besides, which is called in its place:
`with_classes(image, masks, class_ids int32 [N], rng, another) -> (image, masks, class_ids)`. Class ids, negative for
crowds, travel with their masks. `another(rng)` loads a random image of the same source, (image, masks, class_ids), of
as many channels, as it is in the dataset.
"""

from mrcnn.data.augmentation.color import Brightness, Color, Contrast
from mrcnn.data.augmentation.copy_paste import CopyPaste
from mrcnn.data.augmentation.geometry import Affine, Flip, RandomCrop, Rotate, Rotate90, ScaleJitter
from mrcnn.data.augmentation.protocol import (
    Another,
    Augmentation,
    Compose,
    Labeled,
    Sometimes,
    as_augmentation,
    augment,
    augment_labeled,
)
from mrcnn.data.augmentation.recipes import recipe
from mrcnn.data.augmentation_adapters import AugmentationError, ImgaugAugmentation, KeywordAugmentation

__all__ = [
    "Affine",
    "Another",
    "Augmentation",
    "AugmentationError",
    "Brightness",
    "Color",
    "Compose",
    "Contrast",
    "CopyPaste",
    "Flip",
    "ImgaugAugmentation",
    "KeywordAugmentation",
    "Labeled",
    "RandomCrop",
    "Rotate",
    "Rotate90",
    "ScaleJitter",
    "Sometimes",
    "as_augmentation",
    "augment",
    "augment_labeled",
    "recipe",
]
