"""Networks of keras.applications as backbones: image -> C2..C5, found by the sizes of their feature maps.

Layers keep the names that they have there, so that these are the weights contract; those that Keras has numbered, by
what was built before them, are numbered anew: `backbone_layer_normalization_0`.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import layers

from mrcnn.layers.normalization import BatchNorm

STRIDES = (4, 8, 16, 32)

# Of the image whose feature maps are looked at: odd multiples of 32, which all maps up to stride 16 can halve.
_HEIGHT, _WIDTH = 672, 736
_SIZES_LISTED = 6

# Left out: how values are scaled is the configuration's affair (MEAN_PIXEL, STD_PIXEL). And what drops something at
# random, for then a frozen backbone would not be one, and training would not be the same on any number of devices.
_LEFT_OUT = ("Rescaling", "Normalization", "Dropout", "SpatialDropout2D", "StochasticDepth")


class BackboneError(ValueError):
    """A network that cannot be a backbone. The message says why."""


def keras_backbone(image: Any, name: str, train_bn: bool | None = False, frozen: bool = False) -> list[Any]:
    """A network of keras.applications without its top, its layers new and part of the image's graph.

    Args:
        image: [B, H, W, channels], H and W multiples of 32; scaled as the network was trained on, channels RGB (see
            `mrcnn.applications`).
        name: such as "EfficientNetV2B0".
        train_bn: see `BatchNorm`, which its batch normalizations are.
        frozen: they never train; see `BatchNorm`.

    Returns:
        [C2, C3, C4, C5]: of the feature maps of strides 4, 8 and 16 that the next ones are made of, that of the most
        channels (the first, where several have as many); and the last of stride 32.

    Raises:
        BackboneError: this version of Keras has no such network, or the network no feature maps of these strides.
    """
    network = application(name, image.shape[-1])
    names = stable_names(network)

    def clone(operation: Any) -> Callable[..., Any]:
        if type(operation).__name__ in _LEFT_OUT:
            return lambda x, *args, **kwargs: x
        if isinstance(operation, keras.Sequential):
            inner = [clone(layer) for layer in operation.layers]
            return lambda x, *args, **kwargs: functools.reduce(lambda y, layer: layer(y), inner, x)
        if not isinstance(operation, layers.Layer):
            return operation
        config = {**operation.get_config(), "name": names[id(operation)]}
        if type(operation) is layers.BatchNormalization:
            return BatchNorm.from_config({**config, "train_bn": False if frozen else train_bn, "frozen": frozen})
        return type(operation).from_config(config)

    levels = keras.Model(network.input, pyramid_levels(network))
    return list(keras.models.clone_model(levels, input_tensors=image, clone_function=clone).outputs)


def application(name: str, channels: int, weights: str | None = None) -> keras.Model:
    """A network of keras.applications without its top and, where it can do without, without its preprocessing.

    Args:
        name: such as "EfficientNetV2B0".
        channels: of its images.
        weights: None: random ones; "imagenet", or the path of a file of these.

    Raises:
        BackboneError: this version of Keras has no such network.
    """
    build = getattr(keras.applications, name, None)
    if build is None or not callable(build):
        raise BackboneError(f"keras.applications of Keras {keras.__version__} has no {name}.")
    plain = {"include_preprocessing": False} if "include_preprocessing" in inspect.signature(build).parameters else {}
    with warnings.catch_warnings():  # of channels other than 1 and 3, and of images of another size than the weights'
        warnings.simplefilter("ignore", UserWarning)
        return build(include_top=False, weights=weights, input_shape=(_HEIGHT, _WIDTH, channels), **plain)


def weighted_layers(network: keras.Model) -> dict[str, Any]:
    """The layers of an application that hold weights and are taken over, by the names that they have in ours."""
    names = stable_names(network)
    return {
        names[id(layer)]: layer
        for layer in _flat_layers(network)
        if layer.weights and type(layer).__name__ not in _LEFT_OUT
    }


def stable_names(network: keras.Model) -> dict[int, str]:
    """Names of an application's layers by their ids, sequences of layers flattened."""
    numbers: Counter[str] = Counter()
    names = {}
    for layer in _flat_layers(network):
        given = layer.name
        kind = _snake_case(type(layer).__name__)
        if re.fullmatch(rf"{kind}(_\d+)?", given):  # by Keras
            given = f"backbone_{kind}_{numbers[kind]}"
            numbers[kind] += 1
        names[id(layer)] = given
    return names


def pyramid_levels(network: keras.Model) -> list[Any]:
    """The tensors C2..C5 of an application; see `keras_backbone`.

    Raises:
        BackboneError: some are not there.
    """
    maps = [tensor for node in _nodes(network) for tensor in node.outputs if len(tensor.shape) == 4]
    followers: dict[int, list[Any]] = {}
    for node in _nodes(network):
        for tensor in node.input_tensors:
            followers.setdefault(id(tensor), []).extend(out for out in node.outputs if len(out.shape) == 4)

    def leads_on(tensor: Any, stride: int) -> bool:
        """Whether a map of twice the stride is made of this one, with no other map of its own stride between."""
        return any(
            _stride(after) == 2 * stride
            or (_stride(after) == stride and not _is_exact(after, stride) and leads_on(after, stride))  # it is padded
            for after in followers.get(id(tensor), ())
        )

    found = {}
    for stride in STRIDES:
        exact = [tensor for tensor in maps if _is_exact(tensor, stride)]
        if stride == STRIDES[-1]:
            found[stride] = [tensor for tensor in exact if tensor is network.outputs[0]]
        else:
            found[stride] = [tensor for tensor in exact if leads_on(tensor, stride)]
    if not all(found.values()):
        raise BackboneError(_complaint(network.name, maps))
    # Inside a block there are narrow maps, which are only a part of what the next level is made of.
    return [max(found[stride], key=lambda tensor: tensor.shape[-1]) for stride in STRIDES]


def _nodes(network: keras.Model) -> Iterator[Any]:
    """The calls of an application's operations, each after those that it depends on."""
    for operation in network.operations:
        yield from (node for node in operation._inbound_nodes if not node.is_input)


def _flat_layers(network: keras.Model) -> Iterator[Any]:
    for layer in network.layers:
        if isinstance(layer, keras.Sequential):
            yield from _flat_layers(layer)
        else:
            yield layer


def _snake_case(name: str) -> str:
    """ "zero_padding2d" of "ZeroPadding2D": what Keras calls layers of a class, before it numbers them."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _stride(tensor: Any) -> int:
    """The power of two that a map's stride is nearest to."""
    return 2 ** round(math.log2(_HEIGHT / tensor.shape[1]))


def _is_exact(tensor: Any, stride: int) -> bool:
    """Whether a map has the size of the image, divided by a stride."""
    return (tensor.shape[1] * stride, tensor.shape[2] * stride) == (_HEIGHT, _WIDTH)


def _complaint(name: str, maps: list[Any]) -> str:
    strides = sorted({_stride(tensor) for tensor in maps if _is_exact(tensor, _stride(tensor))})
    whole = {(_HEIGHT // stride, _WIDTH // stride) for stride in strides}
    sizes = sorted({tuple(tensor.shape[1:3]) for tensor in maps} - whole, reverse=True)
    others = ", ".join(f"{height} x {width}" for height, width in sizes[:_SIZES_LISTED])
    return (
        f"{name} has feature maps of the strides {', '.join(map(str, strides)) or '(none)'}, and a feature pyramid is "
        "made of strides 4, 8, 16 and 32."
        + (f" Its other maps, of an image of {_HEIGHT} x {_WIDTH}: {others}." if others else "")
    )
