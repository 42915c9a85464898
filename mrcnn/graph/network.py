"""The inference network as one ONNX graph, which OpenVINO and ONNX Runtime run.

Letters: B images, h, w molded size, C channels, A anchors, S proposals of all images, M detections of all images, K
classes (0 is background). Boxes (y1, x1, y2, x2), *normalized*, unless they say otherwise.

Where the Keras network pads (proposals to 1000, detections to 100), this one has lists of open length with the image of
each entry beside them: suppression gives such lists anyway, and no head runs on padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.data.image_meta import ImageMeta
from mrcnn.engines.base import EngineError
from mrcnn.folding import fold_batch_norm
from mrcnn.graph.builder import GraphBuilder
from mrcnn.graph.keras_layers import KerasGraph, values_of
from mrcnn.graph.names import FLOAT32_PREFIX, INPUTS, OUTPUTS
from mrcnn.ops.boxes import MAX_LOG_SCALE


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
                f"Layer {layer.name!r} normalizes with the batch's own statistics, which has no ONNX form here."
            )
    graph = GraphBuilder()
    image, metas, anchors = INPUTS
    walk = KerasGraph(graph, [(model.inputs[0], graph.Transpose(image, perm=[0, 3, 1, 2]))])
    pyramid = [walk.tensor(model.get_layer(f"fpn_p{level}").output) for level in (2, 3, 4, 5)]
    scores, deltas = (walk.tensor(model.get_layer(name).output) for name in ("rpn_class", "rpn_bbox"))

    parts = _Parts(graph, config, metas, pyramid)
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
        self.pyramid = list(pyramid)
        self.image_shape = self._meta(metas, "image_shape", 2)  # [B, 2]
        self.window = self._meta(metas, "window", 4)  # [B, 4], pixels

    def _meta(self, metas: str, field: str, count: int) -> str:
        start = ImageMeta.columns(field).start
        return self._columns(metas, start, start + count)

    def _columns(self, x: str, start: int, end: int, axis: int = 1) -> str:
        graph = self.graph
        return graph.Slice(x, graph.integers(start), graph.integers(end), graph.integers(axis))

    def _sides(self, boxes: str) -> list[str]:
        """[..., 4] -> four of [..., 1]."""
        return [self._columns(boxes, i, i + 1, axis=-1) for i in range(4)]

    def _decode(self, boxes: str, deltas: str, std_dev: Sequence[float]) -> str:
        """See `mrcnn.ops.boxes.decode_deltas`: the same steps in the same order."""
        graph = self.graph
        dy, dx, dh, dw = self._sides(graph.Mul(deltas, graph.floats(*std_dev)))
        y1, x1, y2, x2 = self._sides(boxes)
        half = graph.scalar(0.5)
        starts, ends = [], []
        for low, high, move, grow in ((y1, y2, dy, dh), (x1, x2, dx, dw)):
            size = graph.Sub(high, low)
            center = graph.Add(graph.Add(low, graph.Mul(half, size)), graph.Mul(move, size))
            size = graph.Mul(size, graph.Exp(graph.Min(grow, graph.scalar(MAX_LOG_SCALE))))
            starts.append(graph.Sub(center, graph.Mul(half, size)))
            ends.append(graph.Add(starts[-1], size))
        return graph.Concat(*starts, *ends, axis=-1)

    def _clip(self, boxes: str, low: str, high: str) -> str:
        return self.graph.Max(self.graph.Min(boxes, high), low)

    # Proposals

    def proposals(self, rpn_class: str, rpn_bbox: str, anchors: str) -> tuple[str, str]:
        """See `ProposalLayer` -> [S, 4] and the image of each [S]."""
        graph, config = self.graph, self.config
        scores = graph.Squeeze(self._columns(rpn_class, 1, 2, axis=2), graph.integers(2))
        limit = graph.Min(graph.Shape(scores, start=1, end=2), graph.integers(config.PRE_NMS_LIMIT))
        scores, best = graph.node("TopK", [scores, limit], outputs=2, axis=1)
        best = graph.Unsqueeze(best, graph.integers(2))
        deltas = graph.GatherND(rpn_bbox, best, batch_dims=1)
        boxes = self._decode(graph.GatherND(anchors, best, batch_dims=1), deltas, config.RPN_BBOX_STD_DEV)
        boxes = graph.rename(self._clip(boxes, graph.scalar(0.0), graph.scalar(1.0)), FLOAT32_PREFIX + "candidates")
        kept = graph.NonMaxSuppression(
            boxes,
            graph.Unsqueeze(scores, graph.integers(1)),
            graph.integers(config.POST_NMS_ROIS_INFERENCE),
            graph.floats(config.RPN_NMS_THRESHOLD),
        )
        image_of = graph.Gather(kept, graph.constant(np.int64(0)), axis=1)
        rois = graph.GatherND(boxes, graph.Gather(kept, graph.integers(0, 2), axis=1))
        return graph.rename(rois, FLOAT32_PREFIX + "proposals"), image_of

    # ROIAlign

    def roi_align(self, boxes: str, image_of: str, size: int, name: str) -> tuple[str, str]:
        """Crops [S, C, size, size] of boxes [S, 4], level after level, and the order [S] in which they come."""
        graph = self.graph
        shapes = graph.Gather(self.image_shape, image_of, axis=0)
        levels = self._levels(boxes, shapes)
        crops, orders = [], []
        for level, feature_map in enumerate(self.pyramid, start=2):
            here = graph.Equal(levels, graph.scalar(float(level)))
            order = graph.Squeeze(graph.NonZero(here), graph.integers(0))
            regions, inside = self._regions(graph.Gather(boxes, order, axis=0), feature_map, size)
            regions = graph.rename(regions, f"{FLOAT32_PREFIX}{name}_p{level}_regions")
            inside = graph.rename(inside, f"{FLOAT32_PREFIX}{name}_p{level}_inside")
            crop = graph.RoiAlign(
                feature_map, regions, graph.Gather(image_of, order, axis=0), name=f"{name}_p{level}",
                coordinate_transformation_mode="half_pixel", mode="avg", output_height=size, output_width=size,
                sampling_ratio=1, spatial_scale=1.0,
            )  # fmt: skip
            crops.append(graph.Mul(crop, inside))
            orders.append(order)
        return graph.Concat(*crops, axis=0, name=name), graph.Concat(*orders, axis=0)

    def _levels(self, boxes: str, shapes: str) -> str:
        """See `mrcnn.ops.roi_align.pyramid_levels`: [S] float32."""
        graph = self.graph
        y1, x1, y2, x2 = self._sides(boxes)
        area = graph.Mul(self._columns(shapes, 0, 1), self._columns(shapes, 1, 2))
        size = graph.Sqrt(graph.Mul(graph.Sub(y2, y1), graph.Sub(x2, x1)))
        ratio = graph.Div(size, graph.Div(graph.scalar(224.0), graph.Sqrt(area)))
        octave = graph.Div(graph.Log(graph.Max(ratio, graph.scalar(1e-30))), graph.scalar(math.log(2.0)))
        level = graph.Add(graph.Round(octave), graph.scalar(4.0))
        last = float(1 + len(self.pyramid))
        return graph.Squeeze(graph.Clip(level, graph.scalar(2.0), graph.scalar(last)), graph.integers(1))

    def _regions(self, boxes: str, feature_map: str, size: int) -> tuple[str, str]:
        """The regions whose bins have their centers where the legacy grid has its samples (see `mrcnn.ops.roi_align`),
        and what of them counts.

        The grid lays its outermost samples on the borders of the box, RoiAlign one sample at the center of each bin: so
        a region is half a step larger than its box on each side.

        Returns:
            [S, (x1, y1, x2, y2)] in cells of the map, and [S, 1, size, size] of 1 and 0.
        """
        graph = self.graph
        map_shape = graph.Cast(graph.Shape(feature_map, start=2, end=4), to=1)  # [height, width]
        last = graph.Sub(map_shape, graph.scalar(1.0))
        start, end = self._columns(boxes, 0, 2), self._columns(boxes, 2, 4)  # [S, (y, x)]
        step = self._divide(graph.Mul(graph.Sub(end, start), last), size - 1)
        first = graph.Mul(start, last)
        corner = graph.Add(graph.Sub(first, graph.Mul(step, graph.scalar(0.5))), graph.scalar(0.5))
        swap = graph.integers(1, 0)
        corner = graph.Gather(corner, swap, axis=1)
        extent = graph.Mul(graph.Gather(step, swap, axis=1), graph.scalar(float(size)))
        regions = graph.Concat(corner, graph.Add(corner, extent), axis=1)
        return regions, self._inside(first, step, last, size)

    def _divide(self, x: str, count: int) -> str:
        """[S, 2] divided by a whole number, rounded as IEEE 754 has it, for the border samples hang on the last bit.

        OpenVINO multiplies with a reciprocal where a graph divides; but a mean it divides: that of x and zeros."""
        graph = self.graph
        padded = graph.Pad(graph.Unsqueeze(x, graph.integers(2)), graph.integers(0, 0, 0, 0, 0, count - 1))
        return graph.ReduceMean(padded, axes=[2], keepdims=0)

    def _inside(self, first: str, step: str, last: str, size: int) -> str:
        """legacy: the last sample of a box that ends at the border of the map may lie beyond it by a rounding error,
        and is 0 then."""
        graph = self.graph
        end = graph.Add(first, graph.Mul(step, graph.scalar(float(size - 1))))
        inside = graph.Cast(graph.LessOrEqual(end, last), to=1)  # [S, (y, x)]
        ones = graph.constant(np.arange(size) < size - 1, np.float32)  # all but the last sample
        rows, columns = (
            graph.Max(
                graph.Unsqueeze(self._columns(inside, i, i + 1), graph.integers(1, axis)), graph.Reshape(ones, shape)
            )
            for i, axis, shape in ((0, 3, graph.integers(1, 1, -1, 1)), (1, 2, graph.integers(1, 1, 1, -1)))
        )
        return graph.Mul(rows, columns)

    # Heads

    def classify(self, model: keras.Model, rois: str, image_of: str) -> tuple[str, str]:
        """Class probabilities [S, K] and deltas [S, K, 4]."""
        graph, config = self.graph, self.config
        pooled, order = self.roi_align(rois, image_of, config.POOL_SIZE, "roi_align_classifier")
        # The first layer's kernel is as large as the crop: a matrix product. As a convolution of 1000 crops it took
        # OpenVINO 2.1 s of 5.5 (0.12 as this; ResNet-101 at 1024 x 1024, float32, two cores).
        x = graph.Reshape(pooled, graph.integers(0, -1))
        for name in ("mrcnn_class_conv1", "mrcnn_class_conv2"):
            layer = model.get_layer(name)
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
        chosen = graph.Squeeze(graph.NonZero(valid), graph.integers(0))
        rois, image_of, classes, scores, deltas = (
            graph.Gather(tensor, chosen, axis=0) for tensor in (rois, image_of, classes, scores, deltas)
        )
        own = graph.GatherND(deltas, graph.Unsqueeze(classes, graph.integers(1)), batch_dims=1)
        window = graph.Gather(self._normalized_window(), image_of, axis=0)
        low, high = (
            graph.Concat(part, part, axis=1) for part in (self._columns(window, 0, 2), self._columns(window, 2, 4))
        )
        boxes = self._clip(self._decode(rois, own, config.BBOX_STD_DEV), low, high)

        kept = self._suppress(boxes, scores, classes, image_of)
        boxes, classes, scores, image_of = (graph.Gather(t, kept, axis=0) for t in (boxes, classes, scores, image_of))
        columns = [graph.Unsqueeze(t, graph.integers(1)) for t in (graph.Cast(classes, to=1), scores)]
        return graph.Concat(boxes, *columns, axis=1), image_of

    def _normalized_window(self) -> str:
        graph = self.graph
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
        boxes = self._columns(detections, 0, 4)
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
