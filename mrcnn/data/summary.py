"""A dataset in figures, and what of a configuration they speak for. Letters: M images, N objects, K classes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.data.anchor_fit import FAIR_IOU, best_overlaps
from mrcnn.data.molding import as_channels
from mrcnn.data.survey import Survey

if TYPE_CHECKING:
    from mrcnn.config import Config

# Weights are proposed where the most frequent class has so many times the objects of the rarest.
_IMBALANCE = 3
_LARGEST_WEIGHT = 10.0
_MOST_CLASSES = 30


def channel_means(images: Iterable[Any], config: Config) -> np.ndarray | None:
    """Mean of each channel over images, all pixels of an image alike and all images alike: [C], for MEAN_PIXEL. None
    where there is no image."""
    means = [as_channels(image, config.IMAGE_CHANNEL_COUNT).mean(axis=(0, 1), dtype=np.float64) for image in images]
    return np.mean(means, axis=0) if means else None


def class_weights(per_class: np.ndarray) -> list[float] | None:
    """Weights for CLASS_WEIGHTS by the number [K] of each class's objects: the root of how many times fewer they are
    than those of the most frequent class, 10 at most; 1 for the background and for classes without objects. None
    where the classes are about as frequent."""
    counts = np.asarray(per_class[1:], float)
    there = counts[counts > 0]
    if len(there) < 2 or there.max() < _IMBALANCE * there.min():
        return None
    weights = np.where(counts > 0, np.sqrt(there.max() / np.maximum(counts, 1)), 1.0)
    return [1.0, *(round(float(weight), 2) for weight in np.minimum(weights, _LARGEST_WEIGHT))]


def proposals(seen: Survey, config: Config, means: np.ndarray | None = None) -> dict[str, Any]:
    """Fields of the configuration that the data speaks for changing, with their values."""
    found: dict[str, Any] = {}
    most = int(seen.per_image.max(initial=0))
    for name in ("MAX_GT_INSTANCES", "DETECTION_MAX_INSTANCES"):
        if most > getattr(config, name):
            found[name] = math.ceil(most / 10) * 10
    weights = class_weights(seen.per_class)
    if weights is not None:
        found["CLASS_WEIGHTS"] = weights
    if means is not None:
        found["MEAN_PIXEL"] = [round(float(mean), 1) for mean in means]
    return found


def figures(seen: Survey, config: Config) -> dict[str, Any]:
    """The dataset in figures that JSON can hold. Lengths are in pixels."""
    per_image, sides = seen.per_image, seen.sides
    return {
        "images": seen.total,
        "images_looked_at": len(seen.image_ids),
        "images_failed": seen.failed,
        "failures": list(seen.failures),
        "images_without_objects": int((per_image == 0).sum()),
        "image_heights": _spread(seen.shapes[:, 0]),
        "image_widths": _spread(seen.shapes[:, 1]),
        "molded_to": sorted({(int(height), int(width)) for height, width in seen.molded}),
        "objects": len(seen.boxes),
        "crowds": seen.crowds,
        "objects_per_image": _spread(per_image),
        "object_sides_molded": _spread(sides),
        "classes": {
            name: {"objects": int(objects), "images": int(images)}
            for name, objects, images in zip(
                seen.class_names[1:], seen.per_class[1:], seen.images_per_class[1:], strict=True
            )
        },
    }


def lines(told: dict[str, Any]) -> list[str]:
    """`figures` for people."""
    looked_at, total = told["images_looked_at"], told["images"]
    some = "" if looked_at + told["images_failed"] == total else f", of which {looked_at} were looked at"
    rows = [f"images:           {total}{some}; {size_in_words(told)}"]
    if told["images_failed"]:
        rows.append(f"unreadable:       {told['images_failed']}: {'; '.join(told['failures'])}")
    crowds = f", and {told['crowds']} crowds" if told["crowds"] else ""
    rows.append(f"objects:          {told['objects']}{crowds}")
    if told["objects"]:
        each, side = told["objects_per_image"], told["object_sides_molded"]
        rows.append(
            f"in an image:      {each['least']:.0f} to {each['most']:.0f}, {each['median']:.0f} in the middle; "
            f"{told['images_without_objects']} images have none"
        )
        rows.append(
            f"size when molded: {side['least']:.0f} to {side['most']:.0f} pixels (root of the box's area), half of "
            f"them {side['quarter']:.0f} to {side['three_quarters']:.0f}"
        )
    classes = sorted(told["classes"].items(), key=lambda item: -item[1]["objects"])
    width = max((len(name) for name, _ in classes), default=0)
    rows.append(f"{'class':{width}}  objects   share  images")
    for name, counts in classes[:_MOST_CLASSES]:
        share = counts["objects"] / max(told["objects"], 1)
        rows.append(f"{name:{width}}  {counts['objects']:7}  {share:6.1%}  {counts['images']:6}")
    if len(classes) > _MOST_CLASSES:
        rows.append(f"and {len(classes) - _MOST_CLASSES} more classes (--json has all)")
    return rows


def size_histogram(seen: Survey, config: Config) -> list[dict[str, Any]]:
    """Objects by the root of their box's area once images are resized, from one power of two to the next, and how many
    of them an anchor overlaps by an IoU of 0.5; with the scales of RPN_ANCHOR_SCALES that lie there."""
    if not len(seen.boxes):
        return []
    octaves = np.floor(np.log2(np.maximum(seen.sides, 1))).astype(int)
    reached = best_overlaps(seen.boxes, seen.molded[seen.owners], config) >= FAIR_IOU
    return [
        {
            "from": 2**octave if octave else 0,
            "to": 2 ** (octave + 1),
            "objects": int((octaves == octave).sum()),
            "with_anchor": int(reached[octaves == octave].sum()),
            "anchor_scales": [scale for scale in config.RPN_ANCHOR_SCALES if 2**octave <= scale < 2 ** (octave + 1)],
        }
        for octave in range(octaves.min(), octaves.max() + 1)
    ]


def size_in_words(told: dict[str, Any]) -> str:
    """The sizes of a dataset's images, height x width, and what they are molded to."""
    if not told["molded_to"]:
        return "no size is known"
    low, high = ([told[f"image_{side}s"][end] for side in ("height", "width")] for end in ("least", "most"))
    sizes = f"{low[0]:.0f} x {low[1]:.0f}"
    if low != high:
        sizes += f" to {high[0]:.0f} x {high[1]:.0f}"
    molded = told["molded_to"]
    to = f"{molded[0][0]} x {molded[0][1]}" if len(molded) == 1 else f"{len(molded)} sizes"
    return f"{sizes} pixels (height x width), molded to {to}"


def config_lines(fields: dict[str, Any]) -> list[str]:
    """Fields as they are written into a subclass of `Config`."""
    arrays = ("MEAN_PIXEL",)
    return [f"{name} = {f'np.array({value})' if name in arrays else value}" for name, value in fields.items()]


def _spread(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(("least", "quarter", "median", "three_quarters", "most"), 0.0)
    least, quarter, median, three_quarters, most = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return {"least": least, "quarter": quarter, "median": median, "three_quarters": three_quarters, "most": most}
