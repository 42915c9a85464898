"""Arithmetic of boxes as ONNX nodes.

Letters: any leading axes. Boxes (y1, x1, y2, x2), *normalized*.
"""

from __future__ import annotations

from collections.abc import Sequence

from mrcnn.graph.builder import GraphBuilder


class Arithmetic:
    """Writes nodes into a graph; tensors are known by their names."""

    def __init__(self, graph: GraphBuilder) -> None:
        self.graph = graph

    def columns(self, x: str, start: int, end: int, axis: int = 1) -> str:
        """x[..., start:end, ...]."""
        graph = self.graph
        return graph.Slice(x, graph.integers(start), graph.integers(end), graph.integers(axis))

    def sides(self, boxes: str) -> list[str]:
        """[..., 4] -> four of [..., 1]."""
        return [self.columns(boxes, i, i + 1, axis=-1) for i in range(4)]

    def decode(self, boxes: str, deltas: str, std_dev: Sequence[float], log_limit: float) -> str:
        """See `mrcnn.ops.boxes.decode_deltas`: the same steps in the same order."""
        graph = self.graph
        dy, dx, dh, dw = self.sides(graph.Mul(deltas, graph.floats(*std_dev)))
        y1, x1, y2, x2 = self.sides(boxes)
        half = graph.scalar(0.5)
        starts, ends = [], []
        for low, high, move, grow in ((y1, y2, dy, dh), (x1, x2, dx, dw)):
            size = graph.Sub(high, low)
            center = graph.Add(graph.Add(low, graph.Mul(half, size)), graph.Mul(move, size))
            size = graph.Mul(size, graph.Exp(graph.Min(grow, graph.scalar(log_limit))))
            starts.append(graph.Sub(center, graph.Mul(half, size)))
            ends.append(graph.Add(starts[-1], size))
        return graph.Concat(*starts, *ends, axis=-1)

    def clip(self, boxes: str, low: str, high: str) -> str:
        """Boxes cut to what lies between `low` and `high`."""
        return self.graph.Max(self.graph.Min(boxes, high), low)

    def corners(self, window: str) -> tuple[str, str]:
        """[..., 4] -> (y1, x1, y1, x1) and (y2, x2, y2, x2), for `clip`."""
        graph = self.graph
        low, high = self.columns(window, 0, 2, axis=-1), self.columns(window, 2, 4, axis=-1)
        return graph.Concat(low, low, axis=-1), graph.Concat(high, high, axis=-1)

    def large_enough(self, boxes: str, min_size: float, shape: str) -> str:
        """See `mrcnn.ops.boxes.large_enough`: boxes [..., 4], shape [..., 2] that broadcasts -> [...] bool."""
        graph = self.graph
        extent = graph.Sub(self.columns(boxes, 2, 4, axis=-1), self.columns(boxes, 0, 2, axis=-1))
        pixels = graph.Mul(extent, shape)
        fine = graph.And(
            graph.Greater(extent, graph.scalar(0.0)), graph.Not(graph.Less(pixels, graph.scalar(min_size)))
        )
        least = graph.ReduceMin(graph.Cast(fine, to=1), axes=[-1], keepdims=0)
        return graph.Greater(least, graph.scalar(0.5))

    def where(self, mask: str) -> str:
        """Places [n] where a mask [N] is true."""
        return self.graph.Squeeze(self.graph.NonZero(mask), self.graph.integers(0))
