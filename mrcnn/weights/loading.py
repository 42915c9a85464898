"""Loading and saving: a model's variables against what a file holds.

Layers are matched by name, nested models flattened, and weights by theirs (`kernel`, `gamma`); those of the
Keras 3 layout, which does not name them, by place. Everything is checked before the first weight is assigned.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.files import atomic_path
from mrcnn.habits import script_level
from mrcnn.weights.channels import adapt_kernel, first_kernel, rule_in_words
from mrcnn.weights.contents import (
    KERAS3,
    Contents,
    StoredWeight,
    WeightsError,
    keras3_names,
    listed,
    open_weights,
    read_array,
    read_contents,
    refuse_non_finite,
)
from mrcnn.weights.info import is_backbone, likely_cures
from mrcnn.weights.optimizer import write_optimizer
from mrcnn.weights.state import write_state
from mrcnn.weights.variables import dtype_of, layer_names, model_layers, to_numpy
from mrcnn.weights.writing import (
    copy_reduced,
    keras2_entries,
    reduced,
    write_file,
    write_keras2,
    write_metadata,
)

# May always be excluded: people list it with the class layers, though it has no weights (it is a Reshape).
_WEIGHTLESS = ("mrcnn_bbox",)


@dataclass(frozen=True)
class Mismatch:
    """A weight that differs between model and file. `model` and `file` are a shape or, where that is what
    differs, a dtype; "absent" where one side lacks the weight."""

    layer: str
    weight: str
    model: str
    file: str

    def __str__(self) -> str:
        return f"{self.layer}/{self.weight}: model {self.model}, file {self.file}"


@dataclass(frozen=True)
class LoadReport:
    """What became of each layer that holds weights, by name."""

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # in the model, not in the file
    unexpected: tuple[str, ...] = ()  # in the file, not in the model
    mismatched: tuple[Mismatch, ...] = ()
    excluded: tuple[str, ...] = ()
    parameters: int = 0  # how many numbers were loaded
    adapted: str = ""  # what was made to fit other channels, and how

    @property
    def complete(self) -> bool:
        """Whether everything loaded that was not excluded."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"loaded: {len(self.loaded)} layers, {self.parameters:,} parameters"] if self.loaded else []
        for title, names in (
            ("excluded", self.excluded),
            ("missing from the file", self.missing),
            ("unexpected in the file", self.unexpected),
            ("mismatch", self.mismatched),
        ):
            if names:
                lines.append(f"{title} ({len(names)}): {listed(names, '; ' if names is self.mismatched else ', ')}")
        if self.adapted:
            lines.append(f"adapted: {self.adapted}")
        return "\n".join(lines) or "no weights"


def load_weights(
    model: Any,
    path: str | Path,
    exclude: str | Iterable[str] | None = (),
    only: str | None = None,
    adapt_channels: bool = False,
    rgb_channels: Sequence[int] | None = None,
) -> LoadReport:
    """Load a weights file into a Keras model, whole or not at all.

    Args:
        model: a built Keras model.
        path: a file in the Keras 2 layout (`.h5`: the released files, or of a whole model; Keras 1's names of
            weights too) or in that of Keras 3 (`.weights.h5`). The contents decide, not the name. float16 and
            float64 arrays are cast to the variable's dtype.
        exclude: names of layers to leave as they are, such as those that depend on the number of classes. The
            name of a nested model stands for its layers. A warning tells of names that no layer has.
        only: "backbone" loads the backbone alone and pays no attention to pyramid, RPN and heads, in model or
            file: for the files of ImageNet classifiers. All of the backbone must be there.
        adapt_channels: True: the first kernel of a file for RGB images is made to fit a model for images of other
            channels, by the rule of `mrcnn.weights.channels`; a warning and the report say so. False: it does not fit.
        rgb_channels: which of the model's channels are red, green and blue; None: it is not known.

    Returns:
        The report. Nothing is missing, unexpected or mismatched in it, or this would have raised.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file cannot be read, or does not fit (`.report` holds the report then, and the
            message the likely cure), or holds NaN or infinity, or nothing that `exclude` names exists. The model
            is as it was.
    """
    path = Path(path)
    if only not in (None, "backbone"):
        raise WeightsError(f'only must be "backbone" or None. Received: {only!r}.')
    layers = model_layers(model)
    with open_weights(path) as file:
        contents = read_contents(file, layers.keys())
    excluded = _excluded(model, contents, layers, exclude, path)
    wanted = {name: weights for name, weights in layers.items() if _counts(name, excluded, only)}
    stored = {
        name: keras3_names(list(wanted[name]), weights) if contents.layout == KERAS3 and name in wanted else weights
        for name, weights in contents.layers.items()
        if weights and _counts(name, excluded, only)
    }
    place = first_kernel(wanted, stored) if adapt_channels else None
    if place is not None:
        layer, key = place
        shape = tuple(wanted[layer][key].shape)
        stored[layer] = {**stored[layer], key: replace(stored[layer][key], shape=shape)}
    report = _compare(wanted, stored, tuple(sorted(excluded & (layers.keys() | contents.layers.keys()))))
    if not report.complete:
        raise WeightsError(_complaint(path, wanted, stored, report, only), report)

    with open_weights(path) as file:
        arrays = [
            (variable, f"{name}/{weight}", read_array(file, stored[name][weight]))
            for name, weights in wanted.items()
            for weight, variable in weights.items()
        ]
    if place is not None:
        arrays = [
            (variable, name, adapt_kernel(array, shape[2], rgb_channels) if name == f"{layer}/{key}" else array)
            for variable, name, array in arrays
        ]
    arrays = [(variable, name, array.astype(dtype_of(variable), copy=False)) for variable, name, array in arrays]
    refuse_non_finite({name: array for _, name, array in arrays}, f"{path} holds", "Use an earlier checkpoint.")
    for variable, _, array in arrays:
        variable.assign(array)
    if place is not None:
        told = f"{layer}/{key} of 3 channels (RGB) to {shape[2]}: {rule_in_words(shape[2], rgb_channels)}"
        report = replace(report, adapted=told)
        warnings.warn(f"{path} is for RGB images. Adapted {told}.", stacklevel=2)
    return report


def save_weights(
    model: Any,
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
    optimizer: Any = None,
    dtype: str | None = None,
    state: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Save a Keras model's weights; the file appears whole or not at all (temporary file, flush, rename).

    Args:
        model: a built Keras model.
        path: ending in `.weights.h5` for the Keras 3 layout, else in `.h5` or `.hdf5` for that of Keras 2,
            which the original Mask R-CNN reads. An existing file is replaced.
        metadata: what JSON can hold (config, class_names, epoch, ...), for the root attribute
            `mrcnn_metadata`.
        optimizer: a built Keras optimizer whose state is saved too, in the group `optimizer_weights`.
        dtype: "float16" halves the file (kernels only: biases and statistics stay float32); None or "float32"
            does not.
        state: arrays that training goes on from, by name; see `read_state`.

    Raises:
        WeightsError: the name ends otherwise, weights are NaN or infinite, two layers share a name, metadata
            is no JSON, or writing failed. What was at `path` is still there.
        FileNotFoundError: there is no such directory.
    """
    path = Path(path)
    if path.suffix not in (".h5", ".hdf5"):
        raise WeightsError(f"A weights file is named .h5 (Keras 2 layout) or .weights.h5 (Keras 3). Received: {path}.")
    if dtype not in (None, "float32", "float16"):
        raise WeightsError(f'dtype must be "float32" or "float16". Received: {dtype!r}.')
    layers = {
        name: {weight: to_numpy(variable) for weight, variable in weights.items()}
        for name, weights in model_layers(model).items()
    }
    arrays = {f"{name}/{weight}": array for name, weights in layers.items() for weight, array in weights.items()}
    refuse_non_finite(arrays, "Not saved: the model holds", f"{path} is as it was.")
    half = dtype == "float16"
    with atomic_path(os.path.realpath(path)) as temporary:  # through a link, not in its place
        if path.name.endswith(".weights.h5"):
            _write_keras3(model, temporary, half)
        else:
            if half:
                layers = {name: {key: reduced(array) for key, array in it.items()} for name, it in layers.items()}
            write_file(temporary, lambda file: write_keras2(file, keras2_entries(layers)))

        def add(file: h5py.File) -> None:
            if metadata is not None:
                write_metadata(file, metadata)
            if optimizer is not None:
                write_optimizer(file, optimizer)
            if state is not None:
                write_state(file, state)

        if metadata is not None or optimizer is not None or state is not None:
            write_file(temporary, add, mode="r+")
        _verify(model, temporary)


def _excluded(
    model: Any, contents: Contents, layers: Collection[str], exclude: str | Iterable[str] | None, path: Path
) -> set[str]:
    wanted = [exclude] if isinstance(exclude, str) else list(exclude or ())
    ours = layer_names(model)
    known = {*ours, *contents.names, *_WEIGHTLESS}
    strange = [name for name in wanted if name not in known]
    if strange:
        near = {match: None for name in strange for match in difflib.get_close_matches(str(name), sorted(known), n=3)}
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        names = ", ".join(map(repr, strange))
        told = (
            f"exclude names {names}, which {'is' if len(strange) == 1 else 'are'} no layer of the model or of {path}."
        )
        if len(strange) == len(wanted):
            raise WeightsError(told + hint)
        warnings.warn(told + hint, stacklevel=script_level())  # for one of many the original did without a word
    excluded: set[str] = set()
    for name in wanted:
        if name in known:
            excluded.update((name, *ours.get(name, ())))
    return excluded


def _counts(name: str, excluded: Collection[str], only: str | None) -> bool:
    return name not in excluded and (only is None or is_backbone(name))


def _compare(
    layers: Mapping[str, Mapping[str, Any]],
    stored: Mapping[str, Mapping[str, StoredWeight]],
    excluded: tuple[str, ...],
) -> LoadReport:
    mismatched = []
    for name in layers.keys() & stored.keys():
        for weight in {**layers[name], **stored[name]}:
            variable, other = layers[name].get(weight), stored[name].get(weight)
            if variable is None or other is None:
                sides = ("absent" if side is None else str(tuple(side.shape)) for side in (variable, other))
                mismatched.append(Mismatch(name, weight, *sides))
            elif tuple(variable.shape) != other.shape:
                mismatched.append(Mismatch(name, weight, str(tuple(variable.shape)), str(other.shape)))
            elif other.dtype.kind not in ("f" if dtype_of(variable).kind == "f" else "iu"):
                mismatched.append(Mismatch(name, weight, str(dtype_of(variable)), str(other.dtype)))
    wrong = {mismatch.layer for mismatch in mismatched}
    order = {name: index for index, name in enumerate(layers)}
    loaded = tuple(name for name in layers if name in stored and name not in wrong)
    return LoadReport(
        loaded=loaded,
        missing=tuple(name for name in layers if name not in stored),
        unexpected=tuple(name for name in stored if name not in layers),
        mismatched=tuple(sorted(mismatched, key=lambda mismatch: order[mismatch.layer])),
        excluded=excluded,
        parameters=sum(int(np.prod(weight.shape)) for name in loaded for weight in stored[name].values()),
    )


def _complaint(path: Path, layers: Any, stored: Any, report: LoadReport, only: str | None) -> str:
    ours, theirs = (
        {name: {key: tuple(weight.shape) for key, weight in weights.items()} for name, weights in side.items()}
        for side in (layers, stored)
    )
    cures = likely_cures(ours, theirs, only)
    reason = f": {'; '.join(cures)}." if cures else "."
    details = str(LoadReport(missing=report.missing, unexpected=report.unexpected, mismatched=report.mismatched))
    return f"{path} does not fit the model, nothing was loaded{reason}\n{details}"


def _write_keras3(model: Any, path: Path, half: bool) -> None:
    """Let Keras write its own layout. For float16 the file is copied, since HDF5 gives no space back."""
    written = path.with_name(f"{path.name}.weights.h5")  # Keras insists on this ending
    try:
        model.save_weights(str(written))
        if half:
            with h5py.File(written, "r") as source:
                write_file(path, lambda file: copy_reduced(source, file, skip=("optimizer",)))
        else:
            os.replace(written, path)
    except OSError as error:
        raise WeightsError(f"Writing {path} failed: {error}. Is the disk full?") from error
    finally:
        written.unlink(missing_ok=True)


def _verify(model: Any, path: Path) -> None:
    """Read back what a file lists, so that one that could not be loaded again is never put in place."""
    layers = model_layers(model)
    with open_weights(path) as file:
        contents = read_contents(file, layers.keys())
    stored = contents.layers
    if contents.layout == KERAS3:
        stored = {name: keras3_names(list(layers.get(name, ())), weights) for name, weights in stored.items()}
    report = _compare(layers, {name: weights for name, weights in stored.items() if weights}, ())
    if not report.complete:
        raise WeightsError(
            f"The model cannot be saved in this layout; what was written does not fit it.\n{report}", report
        )
