"""Datasets drawn: images with their annotations, and images as training sees them.

Letters: H, W sides of an image; h, w of its small picture; N instances. Boxes are (y1, x1, y2, x2) in *pixels*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mrcnn.colors import as_rgb, instance_colors
from mrcnn.contact_sheet import Tile, contact_sheet
from mrcnn.data.checking import Check
from mrcnn.data.coco import CocoDataset
from mrcnn.data.content import Content
from mrcnn.data.dataset import DatasetError
from mrcnn.data.findings import Level
from mrcnn.data.images import ImageError, read_image
from mrcnn.data.masks import expand_mask, extract_bboxes
from mrcnn.data.rle import decode_crop, encode_masks
from mrcnn.data.samples import load_image_gt
from mrcnn.drawing import draw_instances

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.data.dataset import Dataset

# Classes have colors of their own where there are 2 to so many of them; otherwise instances have.
_MOST_COLORS = 12
# Longer side of each picture on a sheet.
SIDE = 320
_EMPTY = (58, 62, 70)
# Pixels from the picture that points are drawn within: OpenCV's coordinates are 32 bits, of which 8 are fractions.
_FAR = 2**14


Colors = Mapping[int, np.ndarray]


def class_colors(class_ids: Sequence[int]) -> dict[int, np.ndarray]:
    """A color for each class; none where instances are better told apart by theirs: of one class, or very many."""
    if not 2 <= len(class_ids) <= _MOST_COLORS:
        return {}
    return dict(zip(class_ids, instance_colors(len(class_ids)), strict=True))


def annotated_picture(dataset: CocoDataset, image_id: int, side: int, colors: Colors | None = None) -> np.ndarray:
    """A small picture of an image, with the objects drawn where its annotations have them, fitting or not.

    Args:
        dataset: prepared.
        image_id: number of the image.
        side: length of the picture's longer side.
        colors: by the number of each class that there are objects of. None, or none: each object has one, and its
            name.

    Returns:
        uint8 [h, w, 3]; gray, with the objects, where the image cannot be read.
    """
    info = dataset.image_info[image_id]
    image = _image_as_it_is(dataset, image_id)
    shape = image.shape if image is not None else (info["height"], info["width"])
    scale = side / max(shape[:2])
    height, width = (max(1, round(length * scale)) for length in shape[:2])
    picture = np.full((height, width, 3), _EMPTY, np.uint8) if image is None else _resized(image, height, width)
    class_ids = []
    for annotation in info["annotations"]:
        class_id = dataset.map_source_class_id(f"{info['source']}.{annotation['category_id']}")
        class_ids.append(-class_id if annotation.get("iscrowd") else class_id)
    masks = (_small_mask(one["segmentation"], scale, (height, width)) for one in info["annotations"])
    return _drawn(picture, masks, class_ids, dataset.class_names, colors)


def training_picture(
    dataset: Dataset,
    config: Config,
    image_id: int,
    augmentation: Any,
    rng: np.random.Generator,
    side: int,
    colors: Colors | None = None,
) -> tuple[np.ndarray, int]:
    """A small picture of an image as training sees it: augmented, resized and cropped, with its mini-masks expanded.

    Args:
        dataset, config, image_id, augmentation, rng: as for `load_image_gt`.
        side, colors: as for `annotated_picture`.

    Returns:
        The picture, uint8 [h, w, 3], and how many objects it has.

    Raises:
        What `load_image_gt` raises.
    """
    image, _, class_ids, boxes, masks = load_image_gt(dataset, config, image_id, augmentation, rng)
    if image.shape[2] not in (1, 3, 4):
        image = image[..., [0, 1, 2] if image.shape[2] > 3 else 0]
    scale = side / max(image.shape[:2])
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])

    def small_masks() -> Iterator[np.ndarray]:
        for i in range(masks.shape[2]):
            mask = masks[..., i : i + 1]
            mask = expand_mask(boxes[i : i + 1], mask, image.shape) if config.USE_MINI_MASK else mask
            yield _small(mask[..., 0], height, width)

    picture = _resized(as_rgb(image), height, width)
    return _drawn(picture, small_masks(), class_ids.tolist(), dataset.class_names, colors), len(class_ids)


def check_sheet(content: Content, found: Check, count: int, seed: int = 0) -> np.ndarray | None:
    """A sheet of so many images with their annotations: first those that something is wrong with, errors before
    warnings, then others in an order that the seed decides. None where there are no images."""
    if not content.images:
        return None
    dataset = CocoDataset()
    dataset.add_content(content)
    dataset.prepare()
    troubled = found.troubled
    bad = sorted(troubled, key=lambda place: (troubled[place].level != Level.ERROR, place))
    others = [p for p in np.random.default_rng(seed).permutation(dataset.num_images).tolist() if p not in troubled]
    colors = class_colors(np.flatnonzero(found.survey.per_class).tolist())
    tiles = []
    for place in (bad + others)[:count]:
        image, trouble = content.images[place], troubled.get(place)
        remark, level = "", str(Level.NOTE)
        if trouble is not None:
            more = f" And {trouble.count - 1} more." if trouble.count > 1 else ""
            remark, level = f"{trouble.message}{more}", str(trouble.level)
        title = _title(image["file_name"], image)
        tiles.append(Tile(annotated_picture(dataset, place, SIDE, colors), title, remark, level))
    shown = min(len(bad), len(tiles))
    chosen = [f"{shown} of the {len(bad)} that something is wrong with"] if bad else []
    if shown < len(tiles) < len(content.images):
        chosen.append(f"{len(tiles) - shown} {'others ' if bad else ''}by chance")
    return contact_sheet(
        tiles,
        f"{content.path.name}: {len(tiles)} of {len(content.images)} images",
        ", ".join(chosen),
        _legend(colors, dataset),
    )


def training_sheet(
    dataset: Dataset, config: Config, augmentation: Any, count: int, draws: int = 1, seed: int = 0, name: str = ""
) -> np.ndarray:
    """A sheet of samples as training sees them.

    Args:
        dataset: prepared, with an image at least.
        config: of the training.
        augmentation: see `load_image_gt`.
        count: images, drawn by the seed; all where there are not so many.
        draws: samples of each, beside each other.
        seed: of the images and of their samples.
        name: of the dataset, for the heading.
    """
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(np.asarray(dataset.image_ids))[:count].tolist()
    colors = class_colors(range(1, dataset.num_classes))
    tiles = [
        _training_tile(dataset, config, image_id, augmentation, rng, colors)
        for image_id in image_ids
        for _ in range(draws)
    ]
    size = " x ".join(map(str, config.IMAGE_RECTANGLE or config.IMAGE_SHAPE[:2]))
    words = [f"IMAGE_RESIZE_MODE {config.IMAGE_RESIZE_MODE}" + (f", {size}" if _has_one_size(config) else "")]
    words += [f"masks of {' x '.join(map(str, config.MINI_MASK_SHAPE))} in their boxes"] * config.USE_MINI_MASK
    heading = f"{name + ': ' if name else ''}what training sees of {len(image_ids)} of {dataset.num_images} images"
    columns = draws if draws > 1 else None
    return contact_sheet(tiles, heading, ", ".join(words), _legend(colors, dataset), columns)


def _title(name: str, entry: Mapping[str, Any]) -> str:
    return f"{name} (frame {entry['frame']})" if "frame" in entry else name


def _legend(colors: Colors, dataset: Dataset) -> dict[str, np.ndarray]:
    return {dataset.class_names[class_id]: color for class_id, color in colors.items()}


def _has_one_size(config: Config) -> bool:
    return config.IMAGE_RESIZE_MODE in ("square", "crop")


def _training_tile(
    dataset: Dataset, config: Config, image_id: int, augmentation: Any, rng: np.random.Generator, colors: Colors
) -> Tile:
    title = _title(Path(dataset.image_reference(image_id)).name, dataset.image_info[image_id])
    try:
        picture, count = training_picture(dataset, config, image_id, augmentation, rng, SIDE, colors)
    except (OSError, ValueError) as error:  # as training would meet it
        empty = np.full((SIDE * 3 // 4, SIDE, 3), _EMPTY, np.uint8)
        return Tile(empty, title, f"{type(error).__name__}: {error}", str(Level.ERROR))
    if count > config.MAX_GT_INSTANCES:
        remark = f"{count} objects, of which training takes {config.MAX_GT_INSTANCES} (MAX_GT_INSTANCES)"
        return Tile(picture, title, remark, str(Level.WARNING))
    if count == 0 and config.SKIP_EMPTY_IMAGES:
        return Tile(picture, title, "no object is left: it is skipped (SKIP_EMPTY_IMAGES)")
    return Tile(picture, title, f"{count} object{'s' * (count != 1)}")


def _image_as_it_is(dataset: CocoDataset, image_id: int) -> np.ndarray | None:
    """An image in its own size, whatever size its annotations are for; None where it cannot be read."""
    try:
        try:
            return dataset.load_image(image_id)
        except DatasetError:
            info = dataset.image_info[image_id]
            return read_image(info["path"], frame=info.get("frame", 0))
    except (OSError, ImageError, ValueError):  # ValueError: of a name that no file can have
        return None


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)


def _small(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask in another size; of one that is there at least a pixel stays."""
    if mask.shape == (height, width):
        return mask
    values = cv2.resize(np.ascontiguousarray(mask).view(np.uint8) * np.uint8(255), (width, height),
                        interpolation=cv2.INTER_AREA)  # fmt: skip
    most = int(values.max())
    return values >= (128 if most >= 128 else max(most, 1))


def _small_mask(segmentation: Any, scale: float, shape: tuple[int, int]) -> np.ndarray:
    """A segmentation, scaled, as a mask of `shape` [h, w]; what lies outside is lost."""
    if not isinstance(segmentation, dict):
        mask = np.zeros(shape, np.uint8)
        for polygon in segmentation:
            points = np.clip(np.asarray(polygon, np.float64).reshape(-1, 1, 2) * scale - 0.5, -_FAR, _FAR)
            cv2.fillPoly(mask, [np.rint(points * 256).astype(np.int32)], 1, shift=8)
        return mask > 0
    mask = np.zeros(shape, bool)
    crop, top, left = decode_crop(segmentation)
    if crop.size:
        y1, x1 = round(top * scale), round(left * scale)
        y2, x2 = (round((first + length) * scale) for first, length in zip((top, left), crop.shape, strict=True))
        small = _small(crop, max(y2 - y1, 1), max(x2 - x1, 1))
        seen = mask[y1 : y1 + small.shape[0], x1 : x1 + small.shape[1]]
        seen |= small[: seen.shape[0], : seen.shape[1]]
    return mask


def _drawn(
    picture: np.ndarray,
    masks: Iterable[np.ndarray],
    class_ids: Sequence[int],
    class_names: Sequence[str],
    of_class: Colors | None,
) -> np.ndarray:
    """Objects drawn. Their masks come one by one, and are kept as run lengths: there may be thousands."""
    boxes, runs = [], []
    for mask in masks:
        box = extract_bboxes(mask[..., None])
        boxes.append(box[0])
        runs += encode_masks(mask[..., None], box)
    colors = np.array([of_class[abs(class_id)] for class_id in class_ids]) if of_class else None
    result = {"rois": np.reshape(boxes, (-1, 4)), "class_ids": np.array(class_ids, int), "masks": runs}
    return draw_instances(picture, result, class_names, colors=colors, show_labels=not of_class)
