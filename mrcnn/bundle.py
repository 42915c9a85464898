"""Exported models: a folder with the network in one runtime's format, and beside it all that detection needs to know.

`model.json` holds the configuration (and with it how images are resized and molded), the class names, the precision and
what was checked when it was written. Reading it takes the standard library and numpy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrcnn.config import Config, ConfigError
from mrcnn.files import atomic_folder

MODEL_FILE = "model.json"

# Rises when a reader of an older number could not read it right.
_VERSION = 1
# Only Python code can make these, and an exported model has their outcome inside.
_FUNCTIONS = ("BACKBONE", "COMPUTE_BACKBONE_SHAPE")


class BundleError(Exception):
    """A folder that is no exported model, or one that is damaged or of a newer kind."""


@dataclass(frozen=True)
class Bundle:
    """An exported model.

    Attributes:
        folder: where it is.
        format: one of `mrcnn.formats.FORMATS`.
        file: the network's file (or folder) in it.
        precision: what it was exported for: "float32", "bfloat16" or "int8".
        config: its configuration.
        class_names: [K], the background's first; None where the names are not known.
        checks: what was measured when it was written.
    """

    folder: Path
    format: str
    file: str
    precision: str
    config: Config
    class_names: tuple[str, ...] | None = None
    checks: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The network's file (or folder)."""
        return self.folder / self.file


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file in a folder and those below it, by its path from there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def is_bundle(path: str | Path) -> bool:
    """Whether a path is that of an exported model, whole or not: a folder with a `model.json`."""
    return (Path(path) / MODEL_FILE).is_file()


def read_bundle(folder: str | Path) -> Bundle:
    """Read an exported model's description, and see that its files are whole.

    Raises:
        FileNotFoundError: there is no such folder.
        BundleError: it is no exported model, or a damaged one; the message names the file.
    """
    folder = Path(folder)
    path = folder / MODEL_FILE
    if not folder.exists():
        raise FileNotFoundError(f"There is no exported model {folder}.")
    if not path.is_file():
        raise BundleError(f"{folder} is no exported model: it holds no {MODEL_FILE}. `mrcnn export` makes one.")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        version = told["format_version"]
        if version > _VERSION:
            raise BundleError(f"{path} is of version {version}; this package reads up to {_VERSION}. Update it.")
        sizes = {str(name): int(size) for name, size in told["files"].items()}
        names = told["class_names"]
        bundle = Bundle(
            folder, told["format"], told["file"], told["precision"], Config.from_dict(told["config"]),
            None if names is None else tuple(names), told.get("checks", {}),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise BundleError(f"{path} cannot be used: {type(error).__name__}: {error}. Export the model again.") from error
    for name, size in sizes.items():
        there = (folder / name).stat().st_size if (folder / name).is_file() else None
        if there != size:
            found = "is missing" if there is None else f"has {there} bytes"
            raise BundleError(f"{folder / name} {found}; {size} bytes were exported. Copy or export the model again.")
    return bundle


def write_bundle(
    folder: str | Path,
    format: str,
    precision: str,
    config: Config,
    class_names: Sequence[str] | None,
    write: Callable[[Path], str],
    check: Callable[[Bundle], dict[str, Any]],
) -> Bundle:
    """Write an exported model, whole or not at all.

    Args:
        folder: to be made; one that is an exported model already is replaced.
        write: folder -> name of the network's file (or folder), which it has written there.
        check: looks at the model before it takes its place, and raises if something is wrong with it; what it returns
            is stored.

    Raises:
        BundleError: the configuration cannot be stored.
        FileExistsError: the folder is there and is something else.
    """
    folder = Path(folder)
    if folder.exists() and not is_bundle(folder):
        raise FileExistsError(f"{folder} exists and is no exported model. Choose another name, or remove it.")
    stored = _portable(config)
    with atomic_folder(folder) as temporary:
        file = write(temporary)
        bundle = Bundle(temporary, format, file, precision, config, None if class_names is None else tuple(class_names))
        checks = check(bundle)
        told = {
            "format_version": _VERSION,
            "format": format,
            "file": file,
            "precision": precision,
            "class_names": None if class_names is None else list(class_names),
            "config": stored,
            "preprocessing": _preprocessing(config),
            "checks": checks,
            "files": file_sizes(temporary),
        }
        (temporary / MODEL_FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return read_bundle(folder)


def _portable(config: Config) -> dict[str, Any]:
    """The configuration as JSON, without what is a function."""
    if callable(config.BACKBONE) and config.COMPUTE_BACKBONE_SHAPE is not None:
        for side in (64, 192, 256, 1024):
            shapes = [[-(-side // stride)] * 2 for stride in config.BACKBONE_STRIDES]
            if [list(shape) for shape in config.backbone_shapes((side, side)).tolist()] != shapes:
                raise BundleError(
                    "COMPUTE_BACKBONE_SHAPE gives other sizes than those of BACKBONE_STRIDES, and an exported model "
                    "cannot carry a function. Give the backbone levels of the sizes ceil(side / stride)."
                )
    stored = config.to_dict()
    for name in _FUNCTIONS:
        if callable(getattr(config, name)):
            del stored[name]
    return stored


_BOXES = {"legacy": "(pixels - [0, 0, 1, 1]) / ([h, w, h, w] - 1)", "image": "pixels / [h, w, h, w]"}


def _preprocessing(config: Config) -> dict[str, Any]:
    """In words and numbers, for those who run the network without this package; detection reads the configuration."""
    order = -1 if config.IMAGE_CHANNEL_ORDER == "bgr" else 1
    return {
        "channels": config.IMAGE_CHANNEL_ORDER.upper()
        if config.IMAGE_CHANNEL_COUNT == 3
        else (str(config.IMAGE_CHANNEL_COUNT)),
        "layout": "[images, height, width, channels] float32",
        "resize_mode": config.IMAGE_RESIZE_MODE,
        "min_side": config.IMAGE_MIN_DIM,
        "max_side": config.IMAGE_MAX_DIM,
        "sides_multiple_of": config.IMAGE_SIZE_MULTIPLE,
        "interpolation": config.IMAGE_INTERPOLATION,
        **(
            {"padding": "below and right", "padding_value_after_the_mean_is_subtracted": 0}
            if config.IMAGE_PAD_CORNER
            else {"padding": "on all sides", "padding_value_before_the_mean_is_subtracted": 0}
        ),
        "subtract": [float(value) for value in config.MEAN_PIXEL[::order]],
        "divide": [float(value) for value in config.STD_PIXEL[::order]],
        "boxes": f"(y1, x1, y2, x2), normalized: {_BOXES[config.BOX_GRID]} in the molded image",
    }
