"""ImageNet weights of backbones: for those of keras.applications Keras's own files, fetched as all released weights."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mrcnn.applications import APPLICATIONS, PREFIX, application_of
from mrcnn.config import Config
from mrcnn.downloads import Release, fetch_release
from mrcnn.layers.keras_backbone import application, weighted_layers
from mrcnn.released import IMAGENET, find_weights, imagenet_name
from mrcnn.weights import LoadReport, WeightsError, inspect_weights
from mrcnn.weights.channels import adapt_kernel, rule_in_words
from mrcnn.weights.info import MASK_RCNN
from mrcnn.weights.variables import layer_names, model_layers

_RGB = 3
_WEIGHTLESS = "mrcnn_bbox"  # which scripts exclude with the class layers
_HASHES = {32: "md5", 64: "sha256"}
_lock = threading.Lock()


def fetch_imagenet(config: Config) -> Path:
    """The path of the ImageNet weights for a configuration's backbone, fetched first where they have to be: of one of
    keras.applications Keras's own file, else what `mrcnn.released.imagenet_name` says.

    Raises:
        DownloadError: they could not be fetched, or there are none.
    """
    name = application_of(config.BACKBONE)
    if name is None:
        return find_weights(imagenet_name(config))
    fetched: list[Path] = []
    _released(name, fetched)
    return fetched[-1]


def load_application(
    network: keras.Model, config: Config, weights: str | Path, exclude: str | Iterable[str] | None = ()
) -> LoadReport | None:
    """Give a backbone of keras.applications the weights of Keras's own file for it, all of them or none.

    Args:
        network: of `build_network`.
        config: its configuration.
        weights: "imagenet", or the path of a file that Keras wrote for the network without its top.
        exclude: names of layers to leave as they are.

    Returns:
        A report; None where the backbone is none of keras.applications, or `weights` are something else.

    Raises:
        DownloadError: they could not be fetched.
        WeightsError: they do not fit.
    """
    name = application_of(config.BACKBONE)
    path = Path(weights)
    if name is None:
        return None
    if path.is_file() and inspect_weights(path).kind != MASK_RCNN:
        source, where = _of_file(name, path), str(path)
    elif weights == IMAGENET and not path.exists():
        source, where = _released(name, []), f"the weights of {PREFIX}{name}"
    else:
        return None
    excluded = {exclude} if isinstance(exclude, str) else set(exclude or ())
    unknown = sorted(excluded - layer_names(network).keys() - {_WEIGHTLESS})
    if unknown:
        raise WeightsError(f"exclude names {', '.join(map(repr, unknown))}, of which the network has no layers.")
    theirs = {layer: kept.weights for layer, kept in weighted_layers(source).items() if layer not in excluded}
    return _assign(network, config, name, theirs, where, tuple(sorted(excluded)))


def _assign(
    network: keras.Model, config: Config, name: str, theirs: dict[str, list[Any]], where: str, excluded: tuple[str, ...]
) -> LoadReport:
    """Give a network the variables of an application, by layer; `where` they are from, in words."""
    ours, adapted, changes = model_layers(network), "", []
    lacking = sorted(theirs.keys() - ours.keys())
    if lacking:
        raise WeightsError(f"The network has no layers {', '.join(lacking)}, for which {where} are. Is it another?")
    for layer, variables in theirs.items():
        for variable, value in zip(ours[layer].values(), variables, strict=True):
            array = keras.ops.convert_to_numpy(value)
            if array.ndim == 4 and not changes:
                array, adapted = _first_kernel(array, config, name)
                adapted = adapted and f"{layer}/{variable.name}: {adapted}"
            if tuple(variable.shape) != array.shape:
                raise WeightsError(
                    f"{layer}/{variable.name} is {tuple(variable.shape)} in the network, {array.shape} in {where}."
                )
            if not np.isfinite(array).all():
                raise WeightsError(f"{layer}/{variable.name} holds NaN or infinity in {where}.")
            changes.append((variable, array))
    for variable, array in changes:
        variable.assign(array)
    parameters = sum(array.size for _, array in changes)
    return LoadReport(loaded=tuple(theirs), excluded=excluded, parameters=parameters, adapted=adapted)


def _first_kernel(kernel: np.ndarray, config: Config, name: str) -> tuple[np.ndarray, str]:
    """The first kernel [h, w, 3, F] of an application for a configuration's images, and what was done, in words."""
    told = []
    if APPLICATIONS[name].blue_first != (config.IMAGE_CHANNEL_ORDER == "bgr"):
        kernel = np.ascontiguousarray(kernel[:, :, ::-1])
        told.append(f"the order of channels turned round, to {config.IMAGE_CHANNEL_ORDER}")
    channels = config.IMAGE_CHANNEL_COUNT
    if channels != _RGB:
        kernel = adapt_kernel(kernel, channels, config.RGB_CHANNELS)
        told.append(f"3 channels (RGB) to {channels}, {rule_in_words(channels, config.RGB_CHANNELS)}")
    return kernel, "; ".join(told)


def _released(name: str, fetched: list[Path]) -> keras.Model:
    """An application with the weights that Keras releases for it; the path of their file is put into `fetched`."""

    def fetch(fname: str, origin: str, *args: Any, file_hash: str | None = None, **kwargs: Any) -> str:
        hashed = {_HASHES[len(file_hash)]: file_hash} if file_hash else {}
        release = Release(origin, fname, **hashed, foreign=True)
        fetched.append(fetch_release(release, f"{IMAGENET} for {PREFIX}{name}", None, None, True))
        return str(fetched[-1])

    with _own_downloads(fetch):
        try:
            return application(name, _RGB, IMAGENET)
        except ValueError as error:
            raise WeightsError(
                f"{', '.join(map(str, fetched))} does not fit keras.applications.{name} of Keras {keras.__version__}: "
                f"{error}"
            ) from error


def _of_file(name: str, path: Path) -> keras.Model:
    try:
        return application(name, _RGB, str(path))
    except (ValueError, OSError, KeyError) as error:
        raise WeightsError(
            f"{path} is no file of keras.applications.{name} without its top (..._notop.h5): {error}"
        ) from error


@contextlib.contextmanager
def _own_downloads(fetch: Any) -> Iterator[None]:
    """Let keras.applications fetch its files with `fetch`: resumed after a break, not at all where that is forbidden,
    and with errors that say what to do. Keras alone knows their names, places and hashes."""
    module = sys.modules[keras.utils.get_file.__module__]
    with _lock:
        before = module.get_file
        module.get_file = fetch
        try:
            yield
        finally:
            module.get_file = before
