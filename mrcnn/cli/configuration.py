"""What the commands share: weights by file or name, and the configuration and class names that go with them.

Letters: K classes (0 is the background).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcnn.backend import require_backend
from mrcnn.cli import CommandError, note
from mrcnn.config import Config, is_backbone_name
from mrcnn.data.coco_names import COCO_NAMES
from mrcnn.quiet import hidden_error_stream
from mrcnn.selection import asked_scores, class_of

# An exported model does without Keras and HDF5: what needs them is imported where weights are read.
if TYPE_CHECKING:
    import argparse

    from mrcnn.data.coco import CocoDataset
    from mrcnn.model import MaskRCNN
    from mrcnn.weights.info import WeightsInfo

_DERIVED_FROM = {
    "BATCH_SIZE": "IMAGES_PER_GPU",
    "IMAGE_SHAPE": "IMAGE_MIN_DIM and IMAGE_MAX_DIM, or IMAGE_RECTANGLE",
    "IMAGE_META_SIZE": "NUM_CLASSES",
}

# What a configuration tells of the machine that the weights were trained on.
_OF_A_MACHINE = ("GPUS", "GPU_MEMORY")


@dataclass(frozen=True)
class Network:
    """A network at inference, with its classes.

    `class_names` [K] begin with the background's; `names_known` tells whether they are more than numbers.
    """

    model: MaskRCNN
    class_names: tuple[str, ...]
    names_known: bool


def find_weights(weights: str) -> Path:
    """The file that a path, a name (nuclei, and those of `mrcnn.released`) or a URL stands for; fetched where it has to
    be.

    Raises:
        FileNotFoundError: there is no such file.
        DownloadError: it could not be fetched.
    """
    if Path(weights).exists():
        return Path(weights)
    if weights == "nuclei":
        from mrcnn.nuclei import shipped_weights

        return shipped_weights()
    from mrcnn.released import find_weights as find_released

    return find_released(weights)


def start_backend(verbose: bool) -> None:
    """Import the framework that Keras runs on.

    Args:
        verbose: False: without what TensorFlow writes meanwhile about instruction sets and missing GPUs. It writes that
            to the error stream before its own logging can be turned down.

    Raises:
        ImportError: none is installed.
    """
    if require_backend() != "tensorflow" or verbose:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with hidden_error_stream():
        importlib.import_module("tensorflow")


def load_network(
    weights: str,
    settings: Iterable[tuple[str, Any]],
    classes: str | None,
    min_confidence: float | Mapping[str, float] | None,
    verbose: bool = False,
    prepare: Callable[[], None] | None = None,
) -> Network:
    """Build the network that a weights file is for, and load it.

    Args:
        weights: see `find_weights`.
        settings: fields of the configuration, over what the file tells.
        classes: names of the classes without the background, separated by commas; None: the file's.
        min_confidence: DETECTION_MIN_CONFIDENCE, for all classes or for some, by name; None: as configured.
        verbose: see `start_backend`.
        prepare: called when the framework has been imported and before it is used.

    Raises:
        CommandError, ConfigError, WeightsError: the file or the settings cannot be used.
    """
    from mrcnn.weights.info import MASK_RCNN, inspect_weights

    path = find_weights(weights)
    info = inspect_weights(path)
    if info.kind != MASK_RCNN:
        raise CommandError(f"{path} holds no Mask R-CNN but: {info.kind}. Detection needs a trained network.")
    values = for_detection(stored_values(info))
    by_class = min_confidence if isinstance(min_confidence, Mapping) else {}
    if min_confidence is not None and not by_class:
        values |= {"DETECTION_MIN_CONFIDENCE": min_confidence, "DETECTION_CLASS_CONFIDENCE": None}
    config = make_config(info, values, settings)
    names, known = class_names(path, info.class_names, classes, config.NUM_CLASSES)
    if by_class:
        least = asked_scores(config).tolist()
        for class_id, value in class_numbers(by_class, names).items():
            least[class_id] = value
        config.DETECTION_CLASS_CONFIDENCE = least
    start_backend(verbose)
    if prepare is not None:
        prepare()
    from mrcnn.model import MaskRCNN

    model = MaskRCNN("inference", config, model_dir="logs")
    model.keras_model.load_weights(path)  # of a run, MaskRCNN's own would say that it goes on with it
    return Network(model, names, known)


def class_numbers(by_class: Mapping[str, float], names: Sequence[str]) -> dict[int, float]:
    """What is given by names of classes, or by their numbers, by number.

    Raises:
        ValueError: a class that is not there.
    """
    return {
        class_of(int(name) if name.isdecimal() and name not in names else name, len(names), names): value
        for name, value in by_class.items()
    }


def for_detection(values: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration's values with those that only make sense in training replaced: images come one at a
    time, and whole instead of as random crops."""
    crops = values.get("IMAGE_RESIZE_MODE") == "crop"
    whole = {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": None} if crops else {}
    return {**values, "IMAGES_PER_GPU": 1, "GPU_COUNT": 1, **whole}


def stored_values(info: WeightsInfo) -> dict[str, Any]:
    """The configuration that a weights file tells: the one stored in it, else what its shapes give away."""
    fields = Config.fields()
    if info.config is not None:
        unknown = sorted(set(info.config) - set(fields))
        if unknown:
            note(f"{info.path} stores fields that this version does not know, and does without: {', '.join(unknown)}.")
        return {name: value for name, value in info.config.items() if name in fields and name not in _OF_A_MACHINE}
    values: dict[str, Any] = {name: value for name, value in info.fields.items() if name in fields}
    if info.backbone is not None:
        values["BACKBONE"] = info.backbone
    note(
        f"{info.path} stores no configuration. Its shapes tell: "
        f"{', '.join(f'{name} {value}' for name, value in values.items())}. The rest is default; --config changes it."
    )
    ratios = info.fields.get("len(RPN_ANCHOR_RATIOS)")
    if ratios is not None and ratios != len(Config.RPN_ANCHOR_RATIOS):
        note(f"It was made with {ratios} anchor ratios: give them, as in --config RPN_ANCHOR_RATIOS=0.5,1,2.")
    return values


def fields_of(settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Settings of the command line as fields.

    Raises:
        CommandError: a field that follows from others.
    """
    fields = dict(settings)
    for name in fields.keys() & _DERIVED_FROM.keys():
        raise CommandError(f"{name} follows from {_DERIVED_FROM[name]}: set that instead.")
    return fields


def make_config(info: WeightsInfo | None, values: Mapping[str, Any], settings: Iterable[tuple[str, Any]]) -> Config:
    """A configuration of `values`, and over them the settings of the command line.

    Raises:
        CommandError: a setting of a field that follows from others, or a backbone that only Python code can build.
        ConfigError: an unknown field, or a value that cannot work.
    """
    settings = fields_of(settings)
    values = {**values, **settings}
    backbone = values.get("BACKBONE")
    if info is not None and backbone is not None and "BACKBONE" not in settings and not is_backbone_name(backbone):
        raise CommandError(
            f"{info.path} was made with a backbone of its own ({backbone}), which the command line cannot build: use "
            "mrcnn.MaskRCNN from Python with that backbone in the Config."
        )
    return Config.from_dict(values)


def class_names(
    path: Path, stored: Sequence[str] | None, classes: str | None, num_classes: int
) -> tuple[tuple[str, ...], bool]:
    """Names of all classes, the background's first, and whether they are more than numbers.

    Args:
        path: of the weights or the exported model.
        stored: names that it tells.
        classes: names that the user gives, see `load_network`.
        num_classes: K.

    Raises:
        CommandError: `classes` are not as many as the network has.
    """
    if classes is not None:
        return named_classes(path, classes, num_classes), True
    if stored is not None and len(stored) == num_classes:
        return tuple(stored), True
    if num_classes == len(COCO_NAMES):
        return COCO_NAMES, True
    return ("BG", *(f"class {number}" for number in range(1, num_classes))), False


def named_classes(path: Path, classes: str, num_classes: int) -> tuple[str, ...]:
    """Names that the user gives, with the background's before them; arguments and errors as for `class_names`."""
    names = tuple(name.strip() for name in classes.split(","))
    if len(names) != num_classes - 1 or not all(names):
        raise CommandError(
            f"--classes must name the {num_classes - 1} classes of {path} without the background, separated "
            f"by commas. Received: {len(names)} ({classes})."
        )
    return ("BG", *names)


def annotated_images(path: str, images: str | None, args: argparse.Namespace, split: str | None = None) -> CocoDataset:
    """A dataset of any of the formats, prepared.

    Args:
        path: of the annotation file or folder.
        images: the folder of its images. None: where the format has them.
        args: with what `mrcnn.cli.data_options.add_format` added.
        split: the part of the set to take, where a format has one for each; --split goes before it.

    Raises:
        FileNotFoundError, DatasetError: the file or its images are missing, or cannot be used.
    """
    from mrcnn.data.formats import load_dataset

    return load_dataset(path, images, args.data_format, args.split or split, args.class_attribute)
