"""The inference network as one ONNX graph, which OpenVINO and ONNX Runtime run.

Letters: B images, h, w molded size, C channels, A anchors, S proposals of all images, M detections of all images, K
classes (0 is background). Boxes (y1, x1, y2, x2), *normalized*, unless they say otherwise.

Where the Keras network pads (proposals to 1000, detections to 100), this one has lists of open length with the image of
each entry beside them: suppression gives such lists anyway, and no head runs on padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import mrcnn.graph.application_layers  # noqa: F401 - makes its layers known
from mrcnn.config import Config
from mrcnn.data.image_meta import ImageMeta
from mrcnn.engines.base import EngineError
from mrcnn.folding import fold_batch_norm
from mrcnn.graph.arithmetic import Arithmetic
from mrcnn.graph.builder import GraphBuilder
from mrcnn.graph.keras_layers import KerasGraph, values_of
from mrcnn.graph.names import FLOAT32_PREFIX, INPUTS, OUTPUTS
from mrcnn.graph.regions import Regions

# Below any score that a network gives.
_NEVER = -1e30


def network_graph(model: keras.Model, config: Config, metadata: dict[str, str] | None = None) -> Any:
    """The ONNX model of an inference network, float32.

    Args:
        model: of `build_network(config, "inference")`.
        config: what it was built from.
        metadata: to be stored in the file.

    Returns:
        An `onnx.ModelProto`: input_image [B, h, w, C], input_image_meta [B, 12 + K] and input_anchors [B, A, 4],
        float32 -> detections [M, (box, class id, score)] float32, image_index [M] int64, masks [M, mh, mw] float32,
        probabilities of the detected class. Images come in order, the detections of one in no order.

    Raises:
        EngineError: a layer that has no ONNX form here.
    """
    model = fold_batch_norm(model)
    for layer in model.layers:
        if layer.name in ("mrcnn_class_bn1", "mrcnn_class_bn2"):
            raise EngineError(
                f"Layer {layer.name!r} normalizes with the batch's own statistics or by groups, which has no ONNX form "
                "here."
            )
    graph = GraphBuilder()
    image, metas, anchors = INPUTS
    walk = KerasGraph(graph, [(model.inputs[0], graph.Transpose(image, perm=[0, 3, 1, 2]))])
    _, _, *maps = model.get_layer("roi_align_classifier")._inbound_nodes[0].input_tensors
    pyramid = [walk.tensor(feature_map) for feature_map in maps]
    scores_of = "rpn_class_logits" if config.RPN_OBJECTNESS == "sigmoid" else "rpn_class"
    scores, deltas = (walk.tensor(model.get_layer(name).output) for name in (scores_of, "rpn_bbox"))

    parts = _Parts(graph, config, metas, pyramid)
    if config.RPN_PER_LEVEL:
        levels = [walk.tensor(level) for level in model.get_layer(scores_of)._inbound_nodes[0].input_tensors]
        rois, roi_image = parts.proposals_by_level(levels, deltas, anchors)
    else:
        rois, roi_image = parts.proposals(scores, deltas, anchors)
    probabilities, box_deltas = parts.classify(model, rois, roi_image)
    detections, image_index = parts.detections(rois, roi_image, probabilities, box_deltas)
    masks = parts.masks(model, detections, image_index)
    for tensor, name in zip((detections, image_index, masks), OUTPUTS, strict=True):
        graph.rename(tensor, name)
    side = 2 * config.MASK_POOL_SIZE
    channels, columns = config.IMAGE_CHANNEL_COUNT, ImageMeta.size(config.NUM_CLASSES)
    return graph.model(
        {image: ("B", "h", "w", channels), metas: ("B", columns), anchors: ("B", "A", 4)},
        {
            "detections": (np.float32, ("M", 6)),
            "image_index": (np.int64, ("M",)),
            "masks": (np.float32, ("M", side, side)),
        },
        metadata,
    )


class _Parts:
    """What stands between and behind the convolutions, with the tensors that all of it needs."""

    def __init__(self, graph: GraphBuilder, config: Config, metas: str, pyramid: Sequence[str]) -> None:
        self.graph = graph
        self.config = config
        self.arithmetic = Arithmetic(graph)
        self.image_shape = self._meta(metas, "image_shape", 2)  # [B, 2]
        self.window = self._meta(metas, "window", 4)  # [B, 4], pixels
        self.roi_align = Regions(graph, config, self.image_shape, pyramid).roi_align

    def _meta(self, metas: str, field: str, count: int) -> str:
        start = ImageMeta.columns(field).start
        return self.arithmetic.columns(metas, start, start + count)

    # Proposals

    def proposals(self, scores: str, rpn_bbox: str, anchors: str) -> tuple[str, str]:
        """See `ProposalLayer` -> [S, 4] and the image of each [S]."""
        graph, config = self.graph, self.config
        scores = self._foreground(scores)
        scores, best = self._best(scores, config.PRE_NMS_LIMIT)
        boxes = self._candidates(best, rpn_bbox, anchors)
        if config.RPN_MIN_SIZE is not None:
            scores = graph.Where(self._large(boxes), scores, graph.scalar(_NEVER))
        kept = graph.NonMaxSuppression(
            boxes,
            graph.Unsqueeze(scores, graph.integers(1)),
            graph.integers(config.POST_NMS_ROIS_INFERENCE),
            graph.floats(config.RPN_NMS_THRESHOLD),
            *([] if config.RPN_MIN_SIZE is None else [graph.floats(_NEVER / 2)]),
        )
        image_of = graph.Gather(kept, graph.constant(np.int64(0)), axis=1)
        rois = graph.GatherND(boxes, graph.Gather(kept, graph.integers(0, 2), axis=1))
        return graph.rename(rois, FLOAT32_PREFIX + "proposals"), image_of

    def proposals_by_level(self, levels: Sequence[str], rpn_bbox: str, anchors: str) -> tuple[str, str]:
        """The same, limit and suppression for each level; `levels`: the scores of each, [B, A of the level, n]."""
        graph, config = self.graph, self.config
        scores, places, numbers, start = [], [], [], graph.integers(0)
        for level, tensor in enumerate(levels):
            own, best = self._best(self._foreground(tensor), config.PRE_NMS_LIMIT)
            scores.append(own)
            places.append(graph.Add(best, start))
            numbers.append(graph.Expand(graph.integers(level), graph.Shape(best, start=1, end=2)))
            start = graph.Add(start, graph.Shape(tensor, start=1, end=2))
        scores, places = graph.Concat(*scores, axis=1), graph.Concat(*places, axis=1)  # [B, N]
        boxes = self._candidates(places, rpn_bbox, anchors)
        if config.RPN_MIN_SIZE is not None:
            scores = graph.Where(self._large(boxes), scores, graph.scalar(_NEVER))
        # Levels are to the suppression as classes.
        number = graph.Unsqueeze(graph.Concat(*numbers, axis=0), graph.integers(0))
        every = graph.constant(np.arange(len(levels), dtype=np.int64)[:, None])
        member = graph.Unsqueeze(graph.Equal(number, every), graph.integers(0))  # [1, L, N]
        kept = graph.NonMaxSuppression(
            boxes,
            graph.Where(member, graph.Unsqueeze(scores, graph.integers(1)), graph.scalar(_NEVER)),
            graph.integers(config.POST_NMS_ROIS_INFERENCE),
            graph.floats(config.RPN_NMS_THRESHOLD),
            graph.floats(_NEVER / 2),
        )
        pairs = graph.Gather(kept, graph.integers(0, 2), axis=1)  # image and candidate
        nothing = graph.Expand(graph.scalar(_NEVER), graph.Shape(scores))
        scores, best = self._best(
            graph.ScatterND(nothing, pairs, graph.GatherND(scores, pairs)), config.POST_NMS_ROIS_INFERENCE
        )
        real = graph.Transpose(graph.NonZero(graph.Greater(scores, graph.scalar(_NEVER / 2))), perm=[1, 0])
        image_of = graph.Gather(real, graph.constant(np.int64(0)), axis=1)
        candidate = graph.GatherND(best, real)
        pairs = graph.Concat(*(graph.Unsqueeze(x, graph.integers(1)) for x in (image_of, candidate)), axis=1)
        return graph.rename(graph.GatherND(boxes, pairs), FLOAT32_PREFIX + "proposals"), image_of

    def _foreground(self, scores: str) -> str:
        """The last of [B, A, n]: [B, A]."""
        graph = self.graph
        return graph.Gather(scores, graph.constant(np.int64(-1)), axis=2)

    def _best(self, scores: str, limit: int) -> tuple[str, str]:
        """The `limit` best of [B, A], and their places."""
        graph = self.graph
        count = graph.Min(graph.Shape(scores, start=1, end=2), graph.integers(limit))
        return graph.node("TopK", [scores, count], outputs=2, axis=1)

    def _candidates(self, places: str, rpn_bbox: str, anchors: str) -> str:
        """The anchors at `places` [B, N], moved by their deltas and clipped: [B, N, 4]."""
        graph, config = self.graph, self.config
        places = graph.Unsqueeze(places, graph.integers(2))
        boxes = self.arithmetic.decode(
            graph.GatherND(anchors, places, batch_dims=1), graph.GatherND(rpn_bbox, places, batch_dims=1),
            config.RPN_BBOX_STD_DEV, config.BBOX_LOG_LIMIT,
        )  # fmt: skip
        low, high = graph.scalar(0.0), graph.scalar(1.0)
        if config.RPN_CLIP_TO_IMAGE:
            low, high = self.arithmetic.corners(graph.Unsqueeze(self._normalized_window(), graph.integers(1)))
        return graph.rename(self.arithmetic.clip(boxes, low, high), FLOAT32_PREFIX + "candidates")

    def _large(self, boxes: str) -> str:
        shape = self.graph.Unsqueeze(self.image_shape, self.graph.integers(1))
        return self.arithmetic.large_enough(boxes, self.config.RPN_MIN_SIZE, shape)

    # Heads

    def classify(self, model: keras.Model, rois: str, image_of: str) -> tuple[str, str]:
        """Class probabilities [S, K] and deltas [S, K, 4]."""
        graph, config = self.graph, self.config
        pooled, order = self.roi_align(rois, image_of, config.POOL_SIZE, "roi_align_classifier")
        # The first layer's kernel is as large as the crop: a matrix product. As a convolution of 1000 crops it took
        # OpenVINO 2.1 s of 5.5 (0.12 as this; ResNet-101 at 1024 x 1024, float32, two cores).
        if config.BOX_HEAD_CONVS:
            convs = KerasGraph(graph, [(model.get_layer("mrcnn_box_conv1").input, pooled)])
            pooled = convs.tensor(model.get_layer("mrcnn_class_conv1").input)
        x = graph.Reshape(pooled, graph.integers(0, -1))
        for index in range(1, config.BOX_HEAD_FCS + 1):
            layer = model.get_layer(f"mrcnn_class_conv{index}")
            kernel = values_of(layer.kernel).transpose(2, 0, 1, 3).reshape(-1, layer.filters)
            x = graph.Relu(self._dense(x, kernel, layer))
        # Back in the order of the scores, which settles ties: cheap here, dear on the crops.
        back = graph.node("TopK", [order, graph.Shape(order)], outputs=2, axis=0, largest=0)[1]
        x = graph.Gather(x, back, axis=0)
        logits, deltas = (
            self._dense(x, values_of(layer.kernel), layer)
            for layer in (model.get_layer("mrcnn_class_logits"), model.get_layer("mrcnn_bbox_fc"))
        )
        return graph.Softmax(logits, axis=1), graph.Reshape(deltas, graph.integers(0, config.NUM_CLASSES, 4))

    def _dense(self, x: str, kernel: np.ndarray, layer: Any) -> str:
        graph = self.graph
        product = graph.MatMul(x, graph.constant(kernel, np.float32, f"{layer.name}/kernel"), name=layer.name)
        return graph.Add(product, graph.constant(values_of(layer.bias), np.float32, f"{layer.name}/bias"))

    def detections(self, rois: str, image_of: str, probabilities: str, deltas: str) -> tuple[str, str]:
        """See `DetectionLayer` -> [M, 6] and the image of each [M]."""
        graph, config = self.graph, self.config
        choose = self._of_all_classes if config.DETECTION_ALL_CLASSES else self._of_best_class
        chosen, classes, scores, own = choose(probabilities, deltas)
        rois, image_of = graph.Gather(rois, chosen, axis=0), graph.Gather(image_of, chosen, axis=0)
        window = graph.Gather(self._normalized_window(), image_of, axis=0)
        boxes = self.arithmetic.clip(
            self.arithmetic.decode(rois, own, config.BBOX_STD_DEV, config.BBOX_LOG_LIMIT),
            *self.arithmetic.corners(window),
        )
        if config.DETECTION_MIN_SIZE is not None:
            shape = graph.Gather(self.image_shape, image_of, axis=0)
            large = self.arithmetic.where(self.arithmetic.large_enough(boxes, config.DETECTION_MIN_SIZE, shape))
            boxes, classes, scores, image_of = (
                graph.Gather(t, large, axis=0) for t in (boxes, classes, scores, image_of)
            )

        kept = self._suppress(boxes, scores, classes, image_of)
        boxes, classes, scores, image_of = (graph.Gather(t, kept, axis=0) for t in (boxes, classes, scores, image_of))
        columns = [graph.Unsqueeze(t, graph.integers(1)) for t in (graph.Cast(classes, to=1), scores)]
        return graph.Concat(boxes, *columns, axis=1), image_of

    def _of_best_class(self, probabilities: str, deltas: str) -> tuple[str, str, str, str]:
        """Of the regions that count: which they are [M], and the class, score and deltas [M, 4] of the best class."""
        graph, config = self.graph, self.config
        classes = graph.ArgMax(probabilities, axis=1, keepdims=0)
        scores = graph.ReduceMax(probabilities, axes=[1], keepdims=0)
        valid = graph.Greater(classes, graph.constant(np.int64(0)))
        least = config.least_scores()
        if least is not None and np.any(least):
            if np.ndim(least):
                least = graph.Gather(graph.constant(np.asarray(least, np.float32)), classes, axis=0)
            else:
                least = graph.scalar(least)
            valid = graph.And(valid, graph.Not(graph.Less(scores, least)))
        chosen = self.arithmetic.where(valid)
        classes, scores, deltas = (graph.Gather(tensor, chosen, axis=0) for tensor in (classes, scores, deltas))
        return (
            chosen,
            classes,
            scores,
            graph.GatherND(deltas, graph.Unsqueeze(classes, graph.integers(1)), batch_dims=1),
        )

    def _of_all_classes(self, probabilities: str, deltas: str) -> tuple[str, str, str, str]:
        """The same of pairs of a region and a class."""
        graph, config = self.graph, self.config
        foreground = self.arithmetic.columns(probabilities, 1, config.NUM_CLASSES)
        least = config.least_scores() or 0.0
        least = graph.constant(np.asarray(least[1:], np.float32)[None]) if np.ndim(least) else graph.scalar(least)
        pairs = graph.Transpose(graph.NonZero(graph.Not(graph.Less(foreground, least))), perm=[1, 0])
        own = graph.GatherND(deltas, graph.Add(pairs, graph.integers(0, 1)))
        chosen, classes = (graph.Gather(pairs, graph.constant(np.int64(column)), axis=1) for column in (0, 1))
        classes = graph.Add(classes, graph.constant(np.int64(1)))
        return chosen, classes, graph.GatherND(foreground, pairs), own

    def _normalized_window(self) -> str:
        graph = self.graph
        if self.config.BOX_GRID == "image":
            return graph.Div(self.window, graph.Concat(self.image_shape, self.image_shape, axis=1))
        shape = graph.Sub(graph.Concat(self.image_shape, self.image_shape, axis=1), graph.scalar(1.0))
        pixels = graph.Sub(self.window, graph.floats(0, 0, 1, 1))
        # A window that reaches the border is 1 there to the last bit, which x times 1 / x need not be.
        return graph.Where(graph.Equal(pixels, shape), graph.scalar(1.0), graph.Div(pixels, shape))

    def _suppress(self, boxes: str, scores: str, classes: str, image_of: str) -> str:
        """Indices [M], rising, of the detections to keep: class by class (or all classes together) and image by image,
        the best of an image.

        One suppression does all classes of all images, as one image with a class for each pair of them."""
        graph, config = self.graph, self.config
        group, groups = image_of, graph.Shape(self.window, start=0, end=1)
        if not config.DETECTION_NMS_CLASS_AGNOSTIC:
            group = graph.Add(graph.Mul(group, graph.constant(np.int64(config.NUM_CLASSES))), classes)
            groups = graph.Mul(groups, graph.integers(config.NUM_CLASSES))
        numbers = graph.Range(
            graph.constant(np.int64(0)), graph.Squeeze(groups, graph.integers(0)), graph.constant(np.int64(1))
        )
        member = graph.Equal(graph.Unsqueeze(numbers, graph.integers(1)), graph.Unsqueeze(group, graph.integers(0)))
        group_scores = graph.Where(member, graph.Unsqueeze(scores, graph.integers(0)), graph.scalar(-1.0))
        kept = graph.NonMaxSuppression(
            graph.Unsqueeze(boxes, graph.integers(0)),
            graph.Unsqueeze(group_scores, graph.integers(0)),
            graph.integers(config.DETECTION_MAX_INSTANCES),
            graph.floats(config.DETECTION_NMS_THRESHOLD),
            graph.floats(-0.5),
        )
        kept = graph.Gather(kept, graph.constant(np.int64(2)), axis=1)
        # In the order of the list, for ties in score go to the lower index.
        kept = graph.node("TopK", [kept, graph.Shape(kept)], outputs=2, axis=0, largest=0)[0]
        # Of each image the best D: those with fewer than D better ones.
        score, image = graph.Gather(scores, kept, axis=0), graph.Gather(image_of, kept, axis=0)
        score_row, score_column = (graph.Unsqueeze(score, graph.integers(axis)) for axis in (0, 1))
        image_row, image_column = (graph.Unsqueeze(image, graph.integers(axis)) for axis in (0, 1))
        index_row, index_column = (graph.Unsqueeze(kept, graph.integers(axis)) for axis in (0, 1))
        earlier = graph.And(graph.Equal(score_row, score_column), graph.Less(index_row, index_column))
        better = graph.And(
            graph.Equal(image_row, image_column), graph.Or(graph.Greater(score_row, score_column), earlier)
        )
        rank = graph.ReduceSum(graph.Cast(better, to=7), graph.integers(1), keepdims=0)
        best = graph.Less(rank, graph.constant(np.int64(config.DETECTION_MAX_INSTANCES)))
        return graph.Gather(kept, graph.Squeeze(graph.NonZero(best), graph.integers(0)), axis=0)

    def masks(self, model: keras.Model, detections: str, image_of: str) -> str:
        """Probabilities [M, mh, mw] of the detected class: of the last layer's kernel only its column is used.

        The layer before it makes 2 x 2 pixels of each, which share nothing: so it is a convolution of each pixel to the
        channels of four, whose activation runtimes do with it, and only the four numbers that these become in the end
        are put in place. OpenVINO leaves the activation of a transposed convolution to a pass of its own.
        """
        graph, config = self.graph, self.config
        boxes = self.arithmetic.columns(detections, 0, 4)
        pooled, order = self.roi_align(boxes, image_of, config.MASK_POOL_SIZE, "roi_align_mask")
        deconv, last = model.get_layer("mrcnn_mask_deconv"), model.get_layer("mrcnn_mask")
        x = self._four_of_each(KerasGraph(graph, [(model.get_layer("mrcnn_mask_conv1").input, pooled)]), deconv)
        back = graph.node("TopK", [order, graph.Shape(order)], outputs=2, axis=0, largest=0)[1]
        classes = graph.Cast(graph.Gather(detections, graph.constant(np.int64(4)), axis=1), to=7)
        classes = graph.Gather(classes, order, axis=0)
        kernel = values_of(last.kernel)[0, 0].T  # [K, C]
        own = graph.Unsqueeze(
            graph.Gather(graph.constant(kernel, name="mrcnn_mask/kernel"), classes, axis=0), graph.integers(1, 2)
        )
        bias = graph.Gather(graph.constant(values_of(last.bias), name="mrcnn_mask/bias"), classes, axis=0)
        side = config.MASK_POOL_SIZE
        pixels = graph.Reshape(x, graph.integers(0, 4, kernel.shape[1], side * side))
        logits = graph.Add(graph.MatMul(own, pixels), graph.Unsqueeze(bias, graph.integers(1, 2, 3)))
        masks = graph.Reshape(
            graph.Sigmoid(logits), graph.integers(-1, 2, 2, side, side)
        )  # [M, (y, x), mh / 2, mw / 2]
        masks = graph.Reshape(graph.Transpose(masks, perm=[0, 3, 1, 4, 2]), graph.integers(-1, 2 * side, 2 * side))
        return graph.Gather(masks, back, axis=0)

    def _four_of_each(self, walk: KerasGraph, layer: Any) -> str:
        """[M, 4 C, h, w]: the four pixels (upper two first) that a transposed convolution makes of each, C channels."""
        graph, kernel = self.graph, values_of(layer.kernel)  # [2, 2, C, C in]
        weights = kernel.reshape(-1, kernel.shape[-1])[:, :, None, None]
        bias = np.tile(values_of(layer.bias), 4)
        inputs = [walk.tensor(layer.input)]
        inputs += [graph.constant(v, np.float32, f"{layer.name}/{n}") for n, v in (("kernel", weights), ("bias", bias))]
        return walk.activate(layer.activation, graph.node("Conv", inputs, name=layer.name), layer)
