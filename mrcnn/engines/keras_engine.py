"""The network run by Keras, on TensorFlow, JAX or PyTorch.

Letters: B images, h, w molded size, C channels, A anchors, D detections with padding, N real ones of all images, K
classes (0 is background). Boxes (y1, x1, y2, x2), *normalized*.

It runs in two parts, images to detections and detections to masks, so that no mask is made of what is not there, nor
for a class that was not detected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mrcnn.config import Config
from mrcnn.data.image_meta import ImageMeta
from mrcnn.engines.base import EngineError, Raw, check_threads, precision_name
from mrcnn.folding import fold_batch_norm
from mrcnn.layers.roi_heads import PyramidROIAlign

# JAX compiles once for each number of detections; so it is rounded up to a power of two, and to this at least.
_JAX_LEAST = 8


class KerasEngine:
    """Runs an inference network with Keras; see `mrcnn.engines.base.Engine`.

    Args:
        model: of `build_network(config, "inference")`.
        config: what it was built from.
        precision: "float32" or "bfloat16", for the convolutions; boxes, scores and masks are float32.
        threads: for TensorFlow and PyTorch, how many work on one operation; see `set_threads`.
        fold: whether to run a copy of the network, its batch normalization folded (see `fold_batch_norm`), which later
            changes of the weights do not reach. Without it the weights are the model's own, as they are at each run.
            None: for bfloat16, which needs a copy, alone.

    Raises:
        EngineError: a precision or a number of threads that cannot be had.
        ValueError: an argument that means nothing.
    """

    name = "keras"

    def __init__(
        self,
        model: keras.Model,
        config: Config,
        precision: str = "float32",
        threads: int | None = None,
        fold: bool | None = None,
    ) -> None:
        self.precision = precision_name(precision)
        if self.precision not in ("float32", "bfloat16"):
            raise EngineError(f"The keras engine computes in float32 or bfloat16. Received: precision {precision!r}.")
        if fold is False and self.precision != "float32":
            raise EngineError("bfloat16 runs a folded copy of the network. Received: fold False. Leave it out.")
        set_threads(threads)
        self.threads = threads
        self.config = config
        if fold or self.precision != "float32":
            model = fold_batch_norm(model, None if self.precision == "float32" else self.precision)
        self.device = _device(model)
        self._mask_shape = tuple(model.outputs[3].shape[2:4])

        self._align, maps, self._head = _mask_head(model.outputs[3])
        detector = keras.Model(model.inputs, [model.outputs[0], *maps], name="mask_rcnn_detect")
        image, meta, anchors = (_signature(tensor) for tensor in model.inputs)
        self._find = _compiled(lambda *inputs: detector(list(inputs), training=False), model, [image, meta, anchors])
        rows = [((None, 4), "float32"), ((None,), "int32"), ((None,), "int32"), ((None,), "float32")]
        self._segment = _compiled(self._masks, model, [*rows, *(_signature(tensor) for tensor in maps)])

    def run(self, molded: np.ndarray, metas: np.ndarray, anchors: np.ndarray) -> list[Raw]:
        """molded [B, h, w, C], metas [B, 12 + K] and anchors [B, A, 4], normalized; all float32 -> B of `Raw`."""
        metas = np.asarray(metas, np.float32)
        detections, *maps = self._find(np.asarray(molded, np.float32), metas, np.asarray(anchors, np.float32))
        detections = ops.convert_to_numpy(detections)
        real = detections[..., 4] > 0  # which come first
        found, counts = detections[real], real.sum(axis=1)
        if not len(found):
            masks = np.zeros((0, *self._mask_shape), np.float32)
        else:
            height, width, _ = ImageMeta.parse(metas)["image_shape"].T
            image = np.repeat(np.arange(len(detections), dtype=np.int32), counts)
            rows = [found[:, :4], image, found[:, 4].astype(np.int32), (height * width).astype(np.float32)[image]]
            if keras.backend.backend() == "jax":
                rows = [_fill_up(row) for row in rows]
            masks = ops.convert_to_numpy(self._segment(*rows, *maps))[: len(found)]
        return [
            (detections[index, :count], part)
            for index, (count, part) in enumerate(zip(counts, np.split(masks, np.cumsum(counts)[:-1]), strict=True))
        ]

    def _masks(self, boxes: Any, image: Any, classes: Any, area: Any, *maps: Any) -> Any:
        """boxes [N, 4], the image [N] and the class [N] of each and the area [N] of its image in pixels, P2..P5
        [B, H, W, C] -> masks [N, mh, mw] of these classes."""
        x = self._align.cut(boxes[None], area[None], maps, image[None])[0]
        *layers, last = self._head
        for layer in layers:
            x = layer(x, training=False) if isinstance(layer, keras.layers.BatchNormalization) else layer(x)
        # `last` is a 1x1 convolution to K masks, of which this is the one that is wanted.
        kernel = ops.take(ops.transpose(last.kernel[0, 0]), classes, axis=0)
        bias = ops.take(last.bias, classes)[:, None, None]
        return last.activation(ops.einsum("nhwc,nc->nhw", ops.cast(x, "float32"), kernel) + bias)


def set_threads(threads: int | None) -> None:
    """Let Keras's backend use so many threads for one operation, in the whole process; None leaves it as it is.

    Raises:
        EngineError: JAX, which cannot be told; or TensorFlow after its first operation, such as building a network.
        ValueError: not a whole number from 1 on.
    """
    check_threads(threads)
    if threads is None:
        return
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
    elif backend == "tensorflow":
        import tensorflow as tf

        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError as error:
            raise EngineError(
                f"TensorFlow has started with another number of threads than {threads}, and keeps it. Call "
                "mrcnn.engines.keras_engine.set_threads before a network is built, or set TF_NUM_INTRAOP_THREADS."
            ) from error
    else:
        raise EngineError(
            f"{backend} cannot be told a number of threads. Received: threads {threads}. Leave it out, or let the "
            "process have fewer cores (taskset)."
        )


def preset_threads(threads: int | None, engine: str) -> None:
    """`set_threads` before a network is built, after which TensorFlow takes no number; for an engine that runs it.

    Args:
        threads: see `set_threads`.
        engine: "keras"; "auto", for which a backend that cannot be told is no error; or another, which has its own.

    Raises:
        EngineError, ValueError: as `set_threads`, for "keras".
    """
    if engine not in ("keras", "auto"):
        return
    try:
        set_threads(threads)
    except EngineError:
        if engine == "keras":
            raise


def _mask_head(masks: Any) -> tuple[PyramidROIAlign, list[Any], list[Any]]:
    """What the network's output `masks` is made by: the ROIAlign layer, the feature maps that it is given, and the
    layers that follow it in their order."""
    head = []
    while True:
        history = masks._keras_history
        call = history.operation._inbound_nodes[history.node_index]
        if isinstance(call.operation, PyramidROIAlign):
            _, _, *maps = call.input_tensors
            return call.operation, maps, head[::-1]
        if isinstance(call.operation, keras.layers.Layer):  # and not one of the reshapes between
            head.append(call.operation)
        masks = call.input_tensors[0]


def _compiled(function: Callable[..., Any], model: keras.Model, signature: Sequence[Any]) -> Callable[..., Any]:
    """`function`, which uses the weights of `model`, as the backend runs it best.

    Args:
        function: takes and gives tensors.
        model: see above.
        signature: shape and dtype of each argument; TensorFlow then makes one graph, whatever the open sizes.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, input_signature=[tf.TensorSpec(*argument) for argument in signature])
    if backend == "jax":
        import jax

        def with_weights(values: list[Any], *arguments: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
                return function(*arguments)

        # The weights are arguments: as constants of the program they would be copied, and never change.
        program = jax.jit(with_weights)
        return lambda *arguments: program([variable.value for variable in model.variables], *arguments)

    import torch

    def without_gradients(*arguments: Any) -> Any:
        with torch.no_grad():
            return function(*(ops.convert_to_tensor(argument) for argument in arguments))

    return without_gradients


def _signature(tensor: Any) -> tuple[Any, str]:
    """Shape, open but for the channels, and dtype."""
    return (*[None] * (len(tensor.shape) - 1), tensor.shape[-1]), tensor.dtype


def _fill_up(rows: np.ndarray) -> np.ndarray:
    """rows [N, ...] and zeros after them, to the next power of two."""
    count = max(_JAX_LEAST, 1 << (len(rows) - 1).bit_length())
    return np.concatenate([rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)])


def _device(model: keras.Model) -> str:
    """Where the weights of a model are, in a word: "CPU", "GPU:0"."""
    value = model.variables[0].value
    if keras.backend.backend() == "jax":
        device = next(iter(value.devices()))
        name = f"{device.platform}:{device.id}"
    else:  # /job:localhost/replica:0/task:0/device:CPU:0, or cuda:0
        name = str(value.device).rpartition("device:")[2]
    kind, _, number = name.upper().partition(":")
    return "CPU" if kind == "CPU" else f"{kind.replace('CUDA', 'GPU')}:{number or 0}"
