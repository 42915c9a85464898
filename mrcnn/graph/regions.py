"""ROIAlign as ONNX nodes: crops of boxes out of the pyramid.

Letters: S boxes of all images, B images, C channels. Boxes (y1, x1, y2, x2), *normalized*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mrcnn.config import Config
from mrcnn.graph.arithmetic import Arithmetic
from mrcnn.graph.builder import GraphBuilder
from mrcnn.graph.names import FLOAT32_PREFIX
from mrcnn.ops.boxes import LEVEL_SLACK

_MODES = {"legacy": "half_pixel", "aligned": "half_pixel", "unaligned": "output_half_pixel"}


class Regions:
    """Cuts boxes out of feature maps.

    Args:
        graph: where the nodes go.
        config: ROI_ALIGN, ROI_SAMPLING_RATIO and ROI_LEVELS are read.
        image_shape: [B, 2] (height, width) of the molded images, pixels.
        pyramid: P2..P5, [B, C, h, w].
    """

    def __init__(self, graph: GraphBuilder, config: Config, image_shape: str, pyramid: Sequence[str]) -> None:
        self.graph = graph
        self.config = config
        self.image_shape = image_shape
        self.pyramid = list(pyramid)
        self.arithmetic = Arithmetic(graph)

    def roi_align(self, boxes: str, image_of: str, size: int, name: str) -> tuple[str, str]:
        """Crops [S, C, size, size] of boxes [S, 4], level after level, and the order [S] in which they come."""
        graph, config = self.graph, self.config
        legacy = config.ROI_ALIGN == "legacy"
        shapes = graph.Gather(self.image_shape, image_of, axis=0)
        levels = self._levels(boxes, shapes)
        crops, orders = [], []
        for level, feature_map in enumerate(self.pyramid, start=2):
            here = graph.Equal(levels, graph.scalar(float(level)))
            order = graph.Squeeze(graph.NonZero(here), graph.integers(0))
            own, inside = graph.Gather(boxes, order, axis=0), None
            if legacy:
                regions, inside = self._regions(own, feature_map, size)
                inside = graph.rename(inside, f"{FLOAT32_PREFIX}{name}_p{level}_inside")
            else:
                regions = self._cells(own, feature_map)
            regions = graph.rename(regions, f"{FLOAT32_PREFIX}{name}_p{level}_regions")
            crop = graph.RoiAlign(
                feature_map, regions, graph.Gather(image_of, order, axis=0), name=f"{name}_p{level}",
                coordinate_transformation_mode=_MODES[config.ROI_ALIGN], mode="avg", output_height=size,
                output_width=size, sampling_ratio=1 if legacy else int(config.ROI_SAMPLING_RATIO), spatial_scale=1.0,
            )  # fmt: skip
            crops.append(graph.Mul(crop, inside) if legacy else crop)
            orders.append(order)
        return graph.Concat(*crops, axis=0, name=name), graph.Concat(*orders, axis=0)

    def _levels(self, boxes: str, shapes: str) -> str:
        """See `mrcnn.ops.roi_align.pyramid_levels`: [S] float32."""
        graph = self.graph
        y1, x1, y2, x2 = self.arithmetic.sides(boxes)
        area = graph.Mul(self.arithmetic.columns(shapes, 0, 1), self.arithmetic.columns(shapes, 1, 2))
        share = graph.Mul(graph.Sub(y2, y1), graph.Sub(x2, x1))
        if self.config.ROI_LEVELS == "floor":
            ratio = graph.Div(graph.Sqrt(graph.Mul(share, area)), graph.scalar(224.0))
        else:
            ratio = graph.Div(graph.Sqrt(share), graph.Div(graph.scalar(224.0), graph.Sqrt(area)))
        octave = graph.Div(graph.Log(graph.Max(ratio, graph.scalar(1e-30))), graph.scalar(math.log(2.0)))
        if self.config.ROI_LEVELS == "floor":
            level = graph.Floor(graph.Add(octave, graph.scalar(4.0 + LEVEL_SLACK)))
        else:
            level = graph.Add(graph.Round(octave), graph.scalar(4.0))
        last = float(1 + len(self.pyramid))
        return graph.Squeeze(graph.Clip(level, graph.scalar(2.0), graph.scalar(last)), graph.integers(1))

    def _cells(self, boxes: str, feature_map: str) -> str:
        """Boxes [S, 4] in cells of the map, [S, (x1, y1, x2, y2)]."""
        graph = self.graph
        size = graph.Cast(graph.Shape(feature_map, start=2, end=4), to=1)  # [height, width]
        cells = graph.Mul(boxes, graph.Concat(size, size, axis=0))
        return graph.Gather(cells, graph.integers(1, 0, 3, 2), axis=1)

    def _regions(self, boxes: str, feature_map: str, size: int) -> tuple[str, str]:
        """legacy: the regions whose bins have their centers where the legacy grid has its samples, see
        `mrcnn.ops.roi_align`, and what of them counts.

        The grid lays its outermost samples on the borders of the box, RoiAlign one sample at the center of each bin: so
        a region is half a step larger than its box on each side.

        Returns:
            [S, (x1, y1, x2, y2)] in cells of the map, and [S, 1, size, size] of 1 and 0.
        """
        graph = self.graph
        map_shape = graph.Cast(graph.Shape(feature_map, start=2, end=4), to=1)  # [height, width]
        last = graph.Sub(map_shape, graph.scalar(1.0))
        start, end = self.arithmetic.columns(boxes, 0, 2), self.arithmetic.columns(boxes, 2, 4)  # [S, (y, x)]
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
                graph.Unsqueeze(self.arithmetic.columns(inside, i, i + 1), graph.integers(1, axis)),
                graph.Reshape(ones, shape),
            )
            for i, axis, shape in ((0, 3, graph.integers(1, 1, -1, 1)), (1, 2, graph.integers(1, 1, 1, -1)))
        )
        return graph.Mul(rows, columns)
