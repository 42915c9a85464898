"""Floating-point operations of a detection: convolutions, transposed convolutions and dense layers.

    python -m benchmarks.flops [--side 1024] [--peer-python PATH] [--output FILE.json]

A multiplication and an addition count as two. Ours are counted layer by layer from the Keras network: with all
proposals and all detections there, and the last mask layer for all classes, as the original computes it (engines that
compute the detected class alone do less). torchvision's are counted by PyTorch as it runs.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Parts by the start of a layer's name, in the order in which they are tried; what is left is the backbone's.
PARTS = (
    ("fpn_", "feature pyramid"),
    ("rpn_", "region proposals"),
    ("mrcnn_mask", "mask head"),
    ("mrcnn_", "box head"),
    ("", "backbone"),
)


def part_of(name: str) -> str:
    """The part of the network that a layer belongs to."""
    return next(part for start, part in PARTS if name.startswith(start))


def count_flops(model: Any, input_shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """Operations of a functional Keras model for inputs of these shapes, by layer name.

    A layer that is called several times counts as often. Nested models are followed.
    """
    import keras

    counts: dict[str, int] = {}
    watched = [layer for layer in _leaves(model) if _is_counted(layer)]
    originals = [(layer, layer.compute_output_spec) for layer in watched]

    def watch(layer: Any, original: Any) -> Any:
        def compute_output_spec(inputs: Any, *arguments: Any, **options: Any) -> Any:
            outputs = original(inputs, *arguments, **options)
            counts[layer.name] = counts.get(layer.name, 0) + _layer_flops(layer, inputs.shape, outputs.shape)
            return outputs

        return compute_output_spec

    try:
        for layer, original in originals:
            layer.compute_output_spec = watch(layer, original)
        model.compute_output_spec(
            [keras.KerasTensor(shape, tensor.dtype) for shape, tensor in zip(input_shapes, model.inputs, strict=True)]
        )
    finally:
        for layer, _ in originals:
            del layer.compute_output_spec
    return counts


def by_part(counts: dict[str, int]) -> dict[str, int]:
    """The same by part of the network, in the order of the figure."""
    order = ("backbone", "feature pyramid", "region proposals", "box head", "mask head")
    sums = dict.fromkeys(order, 0)
    for name, count in counts.items():
        sums[part_of(name)] += count
    return sums


def _leaves(model: Any) -> list[Any]:
    found = []
    for layer in model.layers:
        found += _leaves(layer) if hasattr(layer, "layers") else [layer]
    return found


def _is_counted(layer: Any) -> bool:
    from keras import layers

    return isinstance(layer, layers.Conv2D | layers.Conv2DTranspose | layers.Dense)


def _layer_flops(layer: Any, inputs: Sequence[int], outputs: Sequence[int]) -> int:
    """Every weight of the kernel is used once for each position: of the outputs; of the inputs, if transposed."""
    from keras import layers

    positions = inputs if isinstance(layer, layers.Conv2DTranspose) else outputs
    return 2 * math.prod(positions[:-1]) * math.prod(layer.kernel.shape)


def our_flops(side: int) -> dict[str, int]:
    """Of our ResNet-101 network, by part, for a photo of this side."""
    from benchmarks.ours import config
    from mrcnn.network import build_network

    settings = config(side)
    anchors = sum(
        math.prod(shape) * len(settings.RPN_ANCHOR_RATIOS) for shape in settings.backbone_shapes((side, side))
    )
    shapes = [(1, side, side, 3), (1, int(settings.IMAGE_META_SIZE)), (1, anchors, 4)]
    return by_part(count_flops(build_network(settings, "inference"), shapes))


def torchvision_flops(side: int) -> dict[str, int]:
    """Of torchvision's network, by part, counted while it looks at the photo."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks import torchvision_peer
    from benchmarks.photo import load_photo

    photo = load_photo(side)
    model = torchvision_peer.build(side)
    run = lambda: model([torchvision_peer.to_tensor(photo)])  # noqa: E731
    torchvision_peer.settle(model, model.roi_heads.box_predictor.cls_score, run)
    with torch.inference_mode(), FlopCounterMode(display=False, depth=4) as counter:
        run()
    sums = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    boxes = ("roi_heads.box_head", "roi_heads.box_predictor")
    masks = ("roi_heads.mask_head", "roi_heads.mask_predictor")
    return {
        "backbone": sums["MaskRCNN.backbone.body"],
        "feature pyramid": sums["MaskRCNN.backbone.fpn"],
        "region proposals": sums["MaskRCNN.rpn"],
        "box head": sum(sums[f"MaskRCNN.{name}"] for name in boxes),
        "mask head": sum(sums[f"MaskRCNN.{name}"] for name in masks),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flops", description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1024, help="of the square photo: %(default)s")
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter with torchvision; without it, only ours")
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    parser.add_argument("--torchvision", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.torchvision:  # in the peers' interpreter
        print(json.dumps(torchvision_flops(arguments.side)))
        return 0
    columns = {"ours": our_flops(arguments.side)}
    if arguments.peer_python:
        command = [arguments.peer_python, "-m", "benchmarks.flops", "--torchvision", "--side", str(arguments.side)]
        done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
        if done.returncode:
            print(f"torchvision could not be counted: {done.stderr.strip()[-500:]}", file=sys.stderr)
            return 1
        columns["torchvision"] = json.loads(done.stdout.splitlines()[-1])
    print(f"{'GFLOP':18}" + "".join(f"{name:>14}" for name in columns))
    for part in columns["ours"]:
        print(f"{part:18}" + "".join(f"{counts[part] / 1e9:14.1f}" for counts in columns.values()))
    print(f"{'sum':18}" + "".join(f"{sum(counts.values()) / 1e9:14.1f}" for counts in columns.values()))
    if arguments.output:
        told = {"side": arguments.side, "flops": columns}
        arguments.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
