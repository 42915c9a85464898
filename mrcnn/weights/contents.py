"""What a weights file holds: reads the layouts of Keras 1, 2 and 3 with numpy and h5py alone.

A file is read as `{layer: {weight: StoredWeight}}`, nested models flattened, whatever its layout:

* Keras 2 (and 1): root attribute `layer_names`, a group for each layer with an attribute `weight_names`,
  datasets such as `/conv1/conv1/kernel:0`. Names may be bytes or str and be split over `layer_names0`,
  `layer_names1`, ...; the file of a whole model has all this below `model_weights`; a nested model is one
  group (`/rpn_model/rpn_conv_shared/...`).
* Keras 3 (`.weights.h5`): `/layers/<class>_<n>/vars/<index>`, the layer's name in an attribute of `vars`.
  Weights have an index and no name.

Nothing in a file is ever executed or unpickled, and no link out of the file is followed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

KERAS2 = "keras2"
KERAS3 = "keras3"

RPN_GROUP = "rpn_model"
RPN_LAYERS = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
OPTIMIZER_GROUP = "optimizer_weights"

# Keras 1's names of weights; its `running_std` holds the variance.
_KERAS1_WEIGHTS = {
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}

_LISTED = 8  # names that a message lists before it says how many more there are

# What HDF5 files are mistaken for, by first bytes.
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip archive: of a PyTorch file `mrcnn convert` makes weights, of a .keras file Keras does"),
    (b"\x1f\x8b", "a gzip archive: decompress it first"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file it stands for"),
    (b"<", "an HTML or XML page: the download went wrong"),
    (b"\x80", "a pickle: of one that holds arrays or tensors alone `mrcnn convert` makes weights"),
)


class WeightsError(ValueError):
    """Weights that cannot be read, do not fit the model, or cannot be written.

    `report` is the `LoadReport` where the model and the file were compared, else None.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class StoredWeight:
    """One dataset of a file: its path inside the file, shape and dtype."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Contents:
    """What a file holds. In the Keras 3 layout weights are named "0", "1", ..., or "part/0" in composite
    layers."""

    layout: str
    layers: dict[str, dict[str, StoredWeight]]
    names: frozenset[str] = field(default_factory=frozenset)  # of all layers and groups, weightless ones too


def listed(names: Collection[Any], separator: str = ", ") -> str:
    """Names for a message: the first few, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return separator.join(str(name) for name in names[:_LISTED]) + more


@contextmanager
def open_weights(path: str | Path) -> Iterator[h5py.File]:
    """Open a weights file for reading; whatever HDF5 has to say against it becomes a `WeightsError`.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: it is no HDF5 file, or a damaged one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if not path.is_file():
        raise WeightsError(f"{path} is not a file. A weights file (.h5) is wanted.")
    if not h5py.is_hdf5(path):
        raise WeightsError(f"{path} is not an HDF5 weights file: {describe(path)}.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except WeightsError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise WeightsError(
            f"{path} ({path.stat().st_size} bytes) is truncated or damaged: {error}. Fetch or save it again."
        ) from error


def describe(path: Path) -> str:
    """What a file is that is none of weights, by its first bytes, in words."""
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if not head:
        return "it is empty"
    for magic, name in _OTHER_FORMATS:
        if head.startswith(magic):
            return f"it is {name}"
    return f"it begins with {head[:8]!r}"


def read_contents(file: h5py.File, known: Collection[str] = RPN_LAYERS) -> Contents:
    """List the weights of an open file; no array is read.

    Args:
        file: from `open_weights`.
        known: names of the layers to expect. They settle whether a group is a layer or a nested model, and
            that `rpn_conv_shared_1/kernel:0`, as TensorFlow 1 wrote for the second model of a session, is
            rpn_conv_shared.

    Raises:
        WeightsError: the layout is none of those above, or contradicts itself.
    """
    root = file
    if _names(file, "layer_names") is None and isinstance(file.get("model_weights"), h5py.Group):
        root = file["model_weights"]
    names = _names(root, "layer_names")
    if names is not None:
        return _read_keras2(root, names, frozenset(known))
    if isinstance(file.get("layers"), h5py.Group):
        return _read_keras3(file)
    raise WeightsError(
        f"{file.filename} is an HDF5 file, but not one of Keras weights: it has neither the attribute "
        f"layer_names nor a group layers. It holds: {', '.join(sorted(file)[:8]) or 'nothing'}."
    )


def read_array(file: h5py.File, weight: StoredWeight) -> np.ndarray:
    """The values of one weight. Shape and dtype stand in `weight`, so nothing is allocated unawares."""
    return file[weight.path][()]


def _names(node: h5py.Group, key: str) -> list[str] | None:
    """An attribute that lists names, put together again where it is split over key0, key1, ...; None without
    it."""
    if key in node.attrs:
        values = list(np.atleast_1d(node.attrs[key]))
    elif f"{key}0" in node.attrs:
        values, index = [], 0
        while f"{key}{index}" in node.attrs:
            values.extend(np.atleast_1d(node.attrs[f"{key}{index}"]))
            index += 1
    else:
        return None
    for value in values:
        if not isinstance(value, (bytes, str)):
            raise WeightsError(f"{node.file.filename}: {node.name} lists {value!r} in {key}, where names belong.")
    return [value.decode("utf8") if isinstance(value, bytes) else str(value) for value in values]


def stored_weight(file: h5py.File, group: h5py.Group, name: str) -> StoredWeight:
    """The dataset `name` of a group of `file`, as long as it lies in that file.

    Raises:
        WeightsError: there is none, or it points elsewhere.
    """
    where = f"{file.filename}: {group.name}/{name}"
    if name not in group:
        raise WeightsError(f"{where} is listed, but not in the file: it is damaged.")
    item = group[name]
    if not isinstance(item, h5py.Dataset):
        raise WeightsError(f"{where} is not an array: the file is damaged.")
    if item.file.filename != file.filename or item.is_virtual or item.external:
        raise WeightsError(f"{where} points to another file. Such links are not followed.")
    if item.shape is None:
        raise WeightsError(f"{where} is empty: the file is damaged.")
    return StoredWeight(f"{group.name.rstrip('/')}/{name}", tuple(item.shape), item.dtype)


def _read_keras2(root: h5py.Group, groups: Sequence[str], known: frozenset[str]) -> Contents:
    layers: dict[str, dict[str, StoredWeight]] = {}
    for name in groups:
        group = root.get(name)
        if not isinstance(group, h5py.Group):
            raise WeightsError(f"{root.file.filename}: the layer {name} is listed, but not in the file: it is damaged.")
        weight_names = _names(group, "weight_names") or []
        for weight_name, (layer, short) in zip(weight_names, _owners(name, weight_names, known), strict=True):
            if short in layers.setdefault(layer, {}):
                raise WeightsError(
                    f"{root.file.filename} holds {layer}/{short} twice: which one is meant is not clear."
                )
            layers[layer][short] = stored_weight(root.file, group, weight_name)
    return Contents(KERAS2, layers, frozenset(groups) | frozenset(layers))


def _owners(group: str, weight_names: Sequence[str], known: frozenset[str]) -> list[tuple[str, str]]:
    """The (layer, weight) that each weight name of a group stands for."""
    paths = [re.sub(r":\d+$", "", name).split("/") for name in weight_names]
    owners = {tuple(path[:-1]) for path in paths}
    numbered = re.compile(re.escape(group) + r"(_\d+)?")
    if group in known or (len(owners) == 1 and all(numbered.fullmatch("/".join(owner) or group) for owner in owners)):
        return [(group, _keras1_name(short, group)) for short in short_names(paths)]
    layers = []
    for path in paths:
        layer = path[-2] if len(path) > 1 else group
        if layer not in known and (match := re.fullmatch(r"(.+)_\d+", layer)) and match[1] in known:
            layer = match[1]
        layers.append((layer, _keras1_name(path[-1], layer)))
    return layers


def _keras1_name(short: str, layer: str) -> str:
    """`conv1_W_1` of layer conv1 is a kernel; names of Keras 2 stay as they are."""
    if match := re.fullmatch(re.escape(layer) + r"_([A-Za-z]+(?:_[a-z]+)*)(_\d+)?", short):
        return _KERAS1_WEIGHTS.get(match[1], match[1])
    return short


def short_names(paths: Sequence[Sequence[str]]) -> list[str]:
    """Names of the weights of one layer from their paths: the last component where that tells them apart
    (`kernel`), else what is left after the part they share (`query/kernel`)."""
    last = [path[-1] for path in paths]
    if len(set(last)) == len(last):
        return last
    shared = 0
    while all(len(path) > shared + 1 and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    return ["/".join(path[shared:]) for path in paths]


def _read_keras3(file: h5py.File) -> Contents:
    layers: dict[str, dict[str, StoredWeight]] = {}
    names: set[str] = set()
    _walk_keras3(file, file, None, "", layers, names)
    return Contents(KERAS3, layers, frozenset(names))


def _walk_keras3(
    file: h5py.File,
    node: h5py.Group,
    layer: str | None,
    part: str,
    layers: dict[str, dict[str, StoredWeight]],
    names: set[str],
) -> None:
    """Collect the weights at and below a node. `layer` is the composite layer that the node is a part of, if
    any."""
    variables = node.get("vars")
    if isinstance(variables, h5py.Group):
        name = variables.attrs.get("name")
        name = name.decode("utf8") if isinstance(name, bytes) else name
        indices = sorted((key for key in variables if key.isdigit()), key=int)
        if name is None and indices:
            raise WeightsError(
                f"{file.filename} does not name its layers: an early Keras 3 wrote it. Load it with "
                "keras_model.load_weights and save it again."
            )
        if name is not None:
            names.add(str(name))
            if layer is None:
                layer = str(name)
                if indices and layer in layers:
                    raise WeightsError(f"{file.filename} holds two layers named {layer}.")
            else:
                part = f"{part}{name}/"
        for index in indices:
            layers.setdefault(str(layer), {})[f"{part}{index}"] = stored_weight(file, variables, index)
    for key in node:
        child = node.get(key)
        if key == "vars" or not isinstance(child, h5py.Group):
            continue
        if key == "layers":  # of a model: each is a layer in its own right
            for inner_key in sorted(child, key=_natural):
                inner = child.get(inner_key)
                if isinstance(inner, h5py.Group):
                    _walk_keras3(file, inner, None, "", layers, names)
        elif node.name != "/":  # beside the layers, the root holds an optimizer and the like
            _walk_keras3(file, child, layer, part, layers, names)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts conv2d_2 before conv2d_10."""
    return [(int(piece or 0), "") if piece.isdigit() else (0, piece) for piece in re.split(r"(\d+)", name)]


def keras3_names(names: Sequence[str], stored: Mapping[str, StoredWeight]) -> dict[str, StoredWeight]:
    """Give the weights of one layer, stored by index in the Keras 3 layout, the names that the model has for
    them.

    Args:
        names: of the model's weights of this layer, in order, such as "kernel" or "query/kernel".
        stored: the file's, such as "0" or "query/0".

    Returns:
        The stored weights by name; one without a counterpart keeps its index.
    """
    wanted: dict[str, list[str]] = {}
    for name in names:
        wanted.setdefault(name.rpartition("/")[0], []).append(name)
    parts = {key.rpartition("/")[0] for key in stored}
    named = {}
    for key, weight in stored.items():
        part, _, index = key.rpartition("/")
        if len(parts) == 1 and len(wanted) == 1:  # a wrapper: what is inside may bear any name
            part = next(iter(wanted))
        same = wanted.get(part, [])
        named[same[int(index)] if int(index) < len(same) else key] = weight
    return named


def refuse_non_finite(arrays: Mapping[str, np.ndarray], what: str, cure: str = "") -> None:
    """Refuse arrays with NaN or infinity in them.

    Args:
        arrays: by the names that a message gives them.
        what: how the message begins, such as "There is".
        cure: what would do, in a sentence.

    Raises:
        WeightsError: names those that are not finite.
    """
    broken = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if broken:
        raise WeightsError(f"{what} NaN or infinity in {len(broken)} weights: {listed(broken)}. {cure}".rstrip())
