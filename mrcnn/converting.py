"""Others' weights as a weights file of this package: with the configuration that computes what they were trained for,
and the names of their classes, so that the file alone is enough to detect with. No framework is needed.

Letters: K classes (0 is background).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn import presets
from mrcnn.config import Config
from mrcnn.data.coco_names import COCO_NAMES, names_by_category
from mrcnn.files import atomic_path, require_folder
from mrcnn.habits import script_level
from mrcnn.weights.contents import WeightsError, refuse_non_finite
from mrcnn.weights.conversion import Conversion
from mrcnn.weights.info import inspect_weights
from mrcnn.weights.layout import backbone_layout, check_whole, network_layout
from mrcnn.weights.writing import keras2_entries, write_file, write_keras2, write_metadata

# Raised when a file converts to something else than before: what is kept of older conversions is made anew then.
VERSION = 2

# Fields that say what the numbers of trained weights mean. Others, such as the grid of ROIAlign, are often changed when
# training goes on from them.
_HANG_ON = (
    "RESNET_STRIDE_IN_3X3", "SYMMETRIC_PADDING", "NORM_EPSILON", "MEAN_PIXEL", "STD_PIXEL", "IMAGE_CHANNEL_ORDER",
    "RPN_BBOX_STD_DEV", "BBOX_STD_DEV",
)  # fmt: skip

_TORCHVISION_COCO = 91  # COCO's category ids, of which ten are not used, and the background


@dataclass(frozen=True)
class Prepared:
    """Weights and all that is stored beside them, seen to fit each other.

    Attributes:
        conversion: what the weights are from.
        config: fields by name: all of a Mask R-CNN's, those that a backbone decides of a classifier's.
        class_names: [K], the background first; None: not known.
    """

    conversion: Conversion
    config: dict[str, Any]
    class_names: tuple[str, ...] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def prepare(
    conversion: Conversion, settings: Mapping[str, Any] | None = None, class_names: Sequence[str] | None = None
) -> Prepared:
    """Make the configuration of converted weights, and see that they are whole and fit it.

    Args:
        conversion: of `mrcnn.weights.recognition.convert_file`.
        settings: fields over what the weights give away, such as RESNET_STRIDE_IN_3X3, which they do not.
        class_names: [K], the background first. None: COCO's where there are as many classes as its models have.

    Raises:
        ConfigError: a field that is none, or cannot be.
        WeightsError: weights are missing, too many, of another shape, or not finite.
    """
    values = {**conversion.fields, **(settings or {})}
    whole = conversion.preset is not None
    if not whole:
        if class_names is not None:
            raise WeightsError("Names of classes are for a Mask R-CNN. These are the weights of a backbone.")
        check_whole(conversion.arrays, backbone_layout(Config.from_dict(values)))
        _refuse_non_finite(conversion)
        stored = Config.from_dict(values).to_dict()
        return Prepared(conversion, {name: stored[name] for name in values})
    config = presets.subclass(Config, conversion.preset).from_dict(values)
    _check_anchors(conversion, config)
    check_whole(conversion.arrays, network_layout(config))
    _refuse_non_finite(conversion)
    if class_names is None:
        class_names = _coco_names(conversion, config.NUM_CLASSES)
    elif len(class_names) != config.NUM_CLASSES:
        raise WeightsError(
            f"The network has {config.NUM_CLASSES} classes, background included. Received: {len(class_names)} names."
        )
    return Prepared(conversion, config.to_dict(), None if class_names is None else tuple(class_names))


def write_converted(prepared: Prepared, path: str | Path, origin: str) -> None:
    """Write converted weights with what goes with them, in the Keras 2 layout; the file appears whole or not at all.

    Args:
        prepared: of `prepare`.
        path: ending in `.h5`. An existing file is replaced.
        origin: what they were converted from, for the file.

    Raises:
        WeightsError: the name ends otherwise, or writing failed.
        FileNotFoundError, IsADirectoryError: there is no such folder, or it is one.
    """
    path = Path(path)
    check_name(path)
    arrays = prepared.conversion.arrays
    whole = prepared.conversion.preset is not None
    config = Config.from_dict(prepared.config)
    layout = network_layout(config) if whole else backbone_layout(config)
    layers = {layer: {weight: arrays[layer][weight] for weight in weights} for layer, weights in layout.items()}
    metadata = {
        "config": prepared.config,
        **({"class_names": list(prepared.class_names)} if prepared.class_names is not None else {}),
        **({"preset": prepared.conversion.preset} if whole else {}),
        "converted_from": f"{prepared.conversion.source} ({origin})",
        "conversion": VERSION,
        **prepared.metadata,
    }

    def write(file: h5py.File) -> None:
        write_keras2(file, keras2_entries(layers))
        write_metadata(file, metadata)

    with atomic_path(os.path.realpath(path)) as temporary:
        write_file(temporary, write)


def tell_of_differences(path: str | Path, config: Config) -> None:
    """Warn where converted weights are loaded into a network that computes otherwise what they hang on: their shapes do
    not tell."""
    if not Path(path).is_file():  # a name, of what is of the network's own kind
        return
    metadata = inspect_weights(path).metadata
    stored = metadata.get("config")
    if "conversion" not in metadata or not isinstance(stored, dict):
        return
    fields = config.to_dict()
    differing = [
        f"{name} is {fields[name]} and was {stored[name]}"
        for name in _HANG_ON
        if name in stored and not _alike(fields[name], stored[name])
    ]
    if differing:
        preset = f" (preset {metadata['preset']})" if "preset" in metadata else ""
        warnings.warn(
            f"{path}, {metadata.get('converted_from')}, was trained for another network{preset}: "
            f"{'; '.join(differing)}. What it computes will not be what it did.",
            stacklevel=script_level(),
        )


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    one, other = np.ravel(np.asarray(one, float)), np.ravel(np.asarray(other, float))
    try:
        return bool(np.allclose(one, other, rtol=1e-4, atol=0))
    except ValueError:  # other channels
        return False


def check_name(path: str | Path) -> None:
    """Refuse a path that converted weights cannot be written to.

    Raises:
        WeightsError: it does not end in .h5, or in .weights.h5, which is another layout's name.
        FileNotFoundError, IsADirectoryError: see `mrcnn.files.require_folder`.
    """
    name = Path(path).name
    if not name.endswith(".h5") or name.endswith(".weights.h5"):
        raise WeightsError(f"Converted weights go to a file named .h5 (not .weights.h5). Received: {path}.")
    require_folder(path)


def _check_anchors(conversion: Conversion, config: Config) -> None:
    found = conversion.arrays.get("rpn_bbox_pred", {}).get("bias")
    if found is not None and len(found) != 4 * len(config.RPN_ANCHOR_RATIOS):
        raise WeightsError(
            f"The network has {len(found) // 4} anchors at each place, and RPN_ANCHOR_RATIOS (width / height) are "
            f"{config.RPN_ANCHOR_RATIOS}. Give the ratios that it was made with."
        )


def _refuse_non_finite(conversion: Conversion) -> None:
    arrays = {
        f"{layer}/{weight}": array for layer, weights in conversion.arrays.items() for weight, array in weights.items()
    }
    refuse_non_finite(arrays, "There is")


def _coco_names(conversion: Conversion, num_classes: int) -> tuple[str, ...] | None:
    """COCO's names, where the number of classes says that they are meant."""
    if conversion.preset.startswith("torchvision") and num_classes == _TORCHVISION_COCO:
        return names_by_category()
    return COCO_NAMES if num_classes == len(COCO_NAMES) else None
