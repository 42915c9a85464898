"""Pascal VOC's segmentation layout: JPEGImages, SegmentationObject, SegmentationClass, ImageSets/Segmentation.

Also what labelme's labelme2voc.py, and CVAT as "Segmentation mask", write in this layout. Letters: H, W sides of an
image in pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mrcnn.data.content import Content, Kind
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats.building import ONLY_CLASS, Builder
from mrcnn.data.formats.files import find_image, read_text, watched
from mrcnn.data.formats.label_images import label_values
from mrcnn.data.images import ImageError, read_values
from mrcnn.data.rle import encode_labels

NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# Pixels around objects that belong to nothing: a number, and the color that the palette has there.
_VOID = 255
_VOID_COLOR = 224 << 16 | 224 << 8 | 192
_NO_CLASS = ("background", "ignore", "")
_OBJECTS = ("SegmentationObject", "SegmentationObjectPNG")
_CLASSES = ("SegmentationClass", "SegmentationClassPNG")


def voc_root(path: Path) -> Path | None:
    """The folder of a dataset that a folder is, or a list of images `ImageSets/Segmentation/*.txt` belongs to; None
    where there is none."""
    root = path
    if path.suffix == ".txt" and path.parent.parent.name == "ImageSets":
        root = path.parent.parent.parent
    return root if _folder(root, _OBJECTS) is not None else None


def read_voc(path: Path, images: Path | None = None, split: str | None = None) -> Content:
    """Read a dataset.

    Each number in SegmentationObject is an instance, of the class that SegmentationClass has for most of its pixels;
    without such a folder all are of one class. Void pixels (255) belong to none.

    Args:
        path: the folder that has SegmentationObject, or a list of its images, `ImageSets/Segmentation/train.txt`.
        images: the folder of the images. None: JPEGImages.
        split: the name of such a list. None: the list that `path` is, else all images.

    Raises:
        FileNotFoundError: there is no such folder or list.
        DatasetError: it is not in this layout.
    """
    root = voc_root(path)
    if root is None:
        raise DatasetError(f"{path} is not in Pascal VOC's layout: it must have a folder SegmentationObject.")
    objects, classes = _folder(root, _OBJECTS), _folder(root, _CLASSES)
    listed = path if path.suffix == ".txt" else root / "ImageSets" / "Segmentation" / f"{split}.txt" if split else None
    if listed is not None:
        names = [line.strip() for line in read_text(listed).splitlines() if line.strip()]
    else:
        names = sorted({file.stem for folder in (objects, classes or objects) for file in folder.glob("*.png")})
    names_of = _class_names(root)
    known = dict.fromkeys(names_of[False].values()) if classes is not None else [ONLY_CLASS]
    builder = Builder("voc", path, root, known)
    folder = root / "JPEGImages" if images is None else images
    for name in watched(names, "reading masks"):
        file = objects / f"{name}.png"
        try:
            labels, is_color = _read(file)
            of_class = None if classes is None else _read(classes / f"{name}.png")
            if of_class is not None and of_class[0].shape != labels.shape:
                raise ImageError(f"{classes / name}.png is of another size than {file}.")
        except (FileNotFoundError, ImageError) as error:
            builder.reject_image(listed or file, name if listed else "", Kind.FILE, str(error))
            continue
        image = builder.add_image(find_image(name, [folder]), file, f"image {name}", labels.shape)
        if image is None:
            continue
        numbers, encoded = encode_labels(labels, (0, _VOID_COLOR if is_color else _VOID))
        found = {} if of_class is None else _classes_of(labels, of_class[0], names_of[of_class[1]])
        for number, segmentation in zip(numbers, encoded, strict=True):
            entry = f"instance {number}"
            if of_class is None:
                builder.add_instance(image, ONLY_CLASS, segmentation, file, entry)
            elif number in found:
                builder.add_instance(image, found[number], segmentation, file, entry)
            else:
                builder.reject(file, entry, Kind.CLASS, f"has no pixel of a class that is known in {classes}.")
    return builder.finish()


def _classes_of(labels: np.ndarray, of_class: np.ndarray, names: dict[int, str]) -> dict[int, str]:
    """The class that most pixels of each instance have, of those that `names` knows.

    Args:
        labels: [H, W], numbers of the instances.
        of_class: [H, W], values of the classes.
        names: of the classes, by their values.
    """
    known = np.isin(of_class, list(names))
    pairs = np.stack([labels[known], of_class[known]]).astype(np.int64)
    pairs, counts = np.unique(pairs[0] << 32 | pairs[1], return_counts=True)
    order = np.argsort(counts, kind="stable")  # the last of an instance, which stays in the dict, has the most pixels
    return {pair >> 32: names[pair & 0xFFFFFFFF] for pair in pairs[order].tolist()}


def _read(file: Path) -> tuple[np.ndarray, bool]:
    """Numbers [H, W] of an image's pixels, and whether they are colors."""
    values = next(read_values(file))
    return label_values(values, str(file), grays_are_colors=True), values.ndim == 3 and values.shape[2] >= 3


def _folder(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first of the folders that has PNG files; the first that there is where none has."""
    there = [root / name for name in names if (root / name).is_dir()]
    return next((folder for folder in there if any(folder.glob("*.png"))), there[0] if there else None)


def _class_names(root: Path) -> dict[bool, dict[int, str]]:
    """Names of the classes by the value (False) and by the color (True) that their pixels have: of labelmap.txt (CVAT),
    class_names.txt (labelme), else VOC's own."""
    colors: list[int | None] = []
    if (root / "labelmap.txt").is_file():
        lines = [line for line in read_text(root / "labelmap.txt").splitlines() if line and not line.startswith("#")]
        names = [line.split(":")[0].strip() for line in lines]
        colors = [_number_of(line.split(":")[1]) if ":" in line else None for line in lines]
    elif (root / "class_names.txt").is_file():
        names = [line.strip() for line in read_text(root / "class_names.txt").splitlines() if line.strip()]
        names = names[1:] if names[:1] == ["__ignore__"] else names
    else:
        names = ["background", *NAMES]
    numbered = [(number, name) for number, name in enumerate(names) if name.strip("_").lower() not in _NO_CLASS]
    colors += [None] * (len(names) - len(colors))
    of_color = {_color(number) if colors[number] is None else colors[number]: name for number, name in numbered}
    return {False: dict(numbered), True: of_color}


def _number_of(text: str) -> int | None:
    """A color "r,g,b" as `label_values` numbers it."""
    try:
        red, green, blue = (int(value) for value in text.split(","))
    except ValueError:
        return None
    return red << 16 | green << 8 | blue


def _color(number: int) -> int:
    """The color of VOC's palette: the number's bits go to red, green and blue in turn, the lowest to the highest."""
    red = green = blue = 0
    for place in range(8):
        red |= (number >> 3 * place & 1) << 7 - place
        green |= (number >> 3 * place + 1 & 1) << 7 - place
        blue |= (number >> 3 * place + 2 & 1) << 7 - place
    return red << 16 | green << 8 | blue
