"""Mask R-CNNs as detectron2's code and configurations state them, put together of torchvision's operators, run on
photos, and all that they compute on the way written down. detectron2 itself is no package that could be installed.

    python -m tests.torchvision.detectron2_peer FOLDER

Runs under an interpreter that has torch and torchvision, and needs nothing of this package. FOLDER holds `photos.npz`;
for each case come `CASE_weights.npz`, a state dict under detectron2's names, and `CASE.npz`, as `peer` writes them.

Read: detectron2/modeling (backbone/resnet.py, backbone/fpn.py, proposal_generator/rpn.py, proposal_utils.py,
anchor_generator.py, box_regression.py, poolers.py, roi_heads/fast_rcnn.py, mask_head.py, postprocessing.py),
layers/mask_ops.py, data/transforms (ResizeShortestEdge), configs/Base-RCNN-FPN.yaml and configs/new_baselines.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

from tests.torchvision.peer import (
    DELTA_SPREAD,
    DETECTRON2_CASES,
    LOGIT_SPREAD,
    MASK_SPREAD,
    MAX_SIZE,
    MIN_SIZE,
    NUM_CLASSES,
    OBJECTNESS_SPREAD,
    PROPOSALS,
)

CLASSES = NUM_CLASSES - 1  # without the background
MEAN = (103.53, 116.28, 123.675)  # blue, green, red
CLIP = math.log(1000 / 16)


@dataclass
class Network:
    """Functions over a state dict, which grows as they first run.

    Attributes:
        large_heads: four convolutions and one layer in the box head, normalizations in all heads and the pyramid.
        rpn_convs: how many the RPN has before its outputs.
        group_norm: in place of frozen batch normalization; `tracked`: of one that was trained.
        groups, group_width: of the blocks' 3x3 convolutions in the first stage.
        stride_in_3x3: of blocks; else in their first 1x1, as MSRA has it.
        std: what pixels are divided by: blue, green, red.
        settling: its weights are given the activations of trained ones.
    """

    large_heads: bool = False
    rpn_convs: int = 1
    group_norm: bool = False
    tracked: bool = False
    groups: int = 1
    group_width: int = 64
    stride_in_3x3: bool = False
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    settling: bool = True
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    seen: dict[str, Any] = field(default_factory=dict)

    def weight(self, name: str, *shape: int) -> torch.Tensor:
        if name not in self.state:
            scale = 0.0 if len(shape) == 1 else math.sqrt(2 / math.prod(shape[1:]))
            self.state[name] = torch.randn(shape) * scale
        return self.state[name]

    def layer(self, x: Any, name: str, outputs: int, size: int = 0, spread: float | None = None) -> Any:
        """A convolution with a bias, or, of size 0, a linear layer; with `spread` its outputs have that deviation."""
        kernel = (outputs, x.shape[1], size, size) if size else (outputs, x.shape[1])
        weight, bias = self.weight(f"{name}.weight", *kernel), self.weight(f"{name}.bias", outputs)

        def run() -> torch.Tensor:
            return F.conv2d(x, weight, bias, padding=size // 2) if size else F.linear(x, weight, bias)

        if self.settling and spread is not None and name not in self.settled:
            self.settled.add(name)
            weight.mul_(spread / run().std())
            bias.sub_(run().mean((0, 2, 3) if size else 0))
        return run()

    def normed(
        self, x: Any, name: str, outputs: int, size: int, stride: int = 1, gain: float = 1.0, groups: int = 1
    ) -> Any:
        """A convolution and its normalization."""
        weight = self.weight(f"{name}.weight", outputs, x.shape[1] // groups, size, size)
        x = F.conv2d(x, weight, None, stride, size // 2, groups=groups)
        norm = f"{name}.norm"
        if self.settling and norm not in self.settled:
            self.settled.add(norm)
            self.state[f"{norm}.weight"] = gain * (1 + 0.1 * torch.randn(outputs))
            self.state[f"{norm}.bias"] = 0.1 * torch.randn(outputs)
            if not self.group_norm:
                self.state[f"{norm}.running_mean"] = x.mean((0, 2, 3))
                self.state[f"{norm}.running_var"] = x.var((0, 2, 3)).clamp_min(1e-6)
            if self.tracked:
                self.state[f"{norm}.num_batches_tracked"] = torch.tensor(5)
        scales = [self.state[f"{norm}.{part}"] for part in ("weight", "bias")]
        if self.group_norm:
            return F.group_norm(x, 32, *scales, eps=1e-5)
        statistics = (self.state[f"{norm}.{part}"] for part in ("running_mean", "running_var"))
        return F.batch_norm(x, *statistics, *scales, training=False, eps=1e-5)

    def body(self, x: Any) -> list[Any]:
        """A ResNet or ResNeXt of 50 layers."""
        x = F.relu(self.normed(x, "backbone.bottom_up.stem.conv1", 64, 7, 2))
        x = F.max_pool2d(x, 3, 2, 1)
        maps = []
        for stage, (blocks, scale) in enumerate(zip((3, 4, 6, 3), (1, 2, 4, 8), strict=True), start=2):
            outputs, width = 256 * scale, self.groups * self.group_width * scale
            for block in range(blocks):
                name = f"backbone.bottom_up.res{stage}.{block}"
                stride = 2 if block == 0 and stage > 2 else 1
                strides = (1, stride) if self.stride_in_3x3 else (stride, 1)
                y = F.relu(self.normed(x, f"{name}.conv1", width, 1, strides[0]))
                y = F.relu(self.normed(y, f"{name}.conv2", width, 3, strides[1], groups=self.groups))
                y = self.normed(y, f"{name}.conv3", outputs, 1, gain=0.2)
                x = F.relu(y + (self.normed(x, f"{name}.shortcut", outputs, 1, stride) if block == 0 else x))
            maps.append(x)
        return maps

    def pyramid(self, maps: list[Any]) -> list[Any]:
        conv = self.normed if self.large_heads else self.layer
        merged, levels = None, []
        for level, x in zip((5, 4, 3, 2), maps[::-1], strict=True):
            lateral = conv(x, f"backbone.fpn_lateral{level}", 256, 1)
            merged = lateral if merged is None else lateral + F.interpolate(merged, scale_factor=2.0, mode="nearest")
            levels.insert(0, conv(merged, f"backbone.fpn_output{level}", 256, 3))
        return [*levels, F.max_pool2d(levels[-1], 1, 2)]

    def proposals(self, levels: list[Any], size: tuple[int, int]) -> Any:
        rpn, scores, boxes, kept_levels = "proposal_generator.rpn_head.", [], [], []
        outputs: dict[str, list[Any]] = {"logits": [], "deltas": [], "anchors": []}
        for number, x in enumerate(levels):
            for name in ("conv.conv0", "conv.conv1") if self.rpn_convs == 2 else ("conv",):
                x = F.relu(self.layer(x, rpn + name, 256, 3))
            logits = self.layer(x, rpn + "objectness_logits", 3, 1, spread=OBJECTNESS_SPREAD)
            deltas = self.layer(x, rpn + "anchor_deltas", 12, 1, spread=DELTA_SPREAD)
            logits = logits.permute(0, 2, 3, 1).reshape(-1)
            deltas = deltas.permute(0, 2, 3, 1).reshape(-1, 4)
            anchors = grid(x.shape[2:], 4 * 2**number, 32 * 2**number)
            for name, value in (("logits", logits), ("deltas", deltas), ("anchors", anchors)):
                outputs[name].append(value)
            best = logits.sort(descending=True).indices[:1000]
            scores.append(logits[best])
            boxes.append(decode(deltas[best], anchors[best], (1.0, 1.0, 1.0, 1.0)))
            kept_levels.append(torch.full((len(best),), number))
        self.seen |= {name: torch.cat(values) for name, values in outputs.items()}
        boxes, scores, kept_levels = clip(torch.cat(boxes), size), torch.cat(scores), torch.cat(kept_levels)
        fine = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
        boxes, scores, kept_levels = boxes[fine], scores[fine], kept_levels[fine]
        return boxes[batched_nms(boxes, scores, kept_levels, 0.7)[:PROPOSALS]]

    def box_head(self, x: Any) -> tuple[Any, Any]:
        if self.large_heads:
            for number in range(1, 5):
                x = F.relu(self.normed(x, f"roi_heads.box_head.conv{number}", 256, 3))
        x = x.flatten(1)
        for number in (1,) if self.large_heads else (1, 2):
            x = F.relu(self.layer(x, f"roi_heads.box_head.fc{number}", 1024))
        scores = self.layer(x, "roi_heads.box_predictor.cls_score", CLASSES + 1, spread=LOGIT_SPREAD)
        return scores, self.layer(x, "roi_heads.box_predictor.bbox_pred", 4 * CLASSES, spread=0.5)

    def mask_head(self, x: Any) -> Any:
        for number in range(1, 5):
            name = f"roi_heads.mask_head.mask_fcn{number}"
            x = F.relu(self.normed(x, name, 256, 3) if self.large_heads else self.layer(x, name, 256, 3))
        name = "roi_heads.mask_head.deconv"
        weight, bias = self.weight(f"{name}.weight", x.shape[1], 256, 2, 2), self.weight(f"{name}.bias", 256)
        x = F.relu(F.conv_transpose2d(x, weight, bias, 2))
        return self.layer(x, "roi_heads.mask_head.predictor", CLASSES, 1, spread=MASK_SPREAD)

    def run(self, photo: np.ndarray) -> dict[str, np.ndarray]:
        """All that the network computes for a photo [H, W, 3] uint8 RGB, channels last, boxes (y1, x1, y2, x2)."""
        height, width = photo.shape[:2]
        image = resized(photo[:, :, ::-1])  # blue first
        size = image.shape[:2]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, self.std))
        x = (torch.from_numpy(image).permute(2, 0, 1).float() - mean) / std
        x = F.pad(x, (0, -size[1] % 32, 0, -size[0] % 32))[None]
        maps = self.body(x)
        levels = self.pyramid(maps)
        proposals = self.proposals(levels, size)
        pooled = pool(levels[:4], proposals, 7)
        logits, deltas = self.box_head(pooled)
        boxes = decode(deltas.reshape(-1, 4), proposals.repeat_interleave(CLASSES, 0), (10.0, 10.0, 5.0, 5.0))
        boxes, scores = clip(boxes, size).reshape(-1, CLASSES, 4), F.softmax(logits, dim=1)[:, :-1]
        rows, labels = (scores > 0.05).nonzero().T
        boxes, scores = boxes[rows, labels], scores[rows, labels]
        kept = batched_nms(boxes, scores, labels, 0.5)[:100]
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        masks = self.mask_head(pool(levels[:4], boxes, 14))[torch.arange(len(kept)), labels]
        factor = torch.tensor([width / size[1], height / size[0]] * 2)
        placed = clip(boxes * factor, (height, width))

        def last(value: Any) -> np.ndarray:
            return value.permute(0, 2, 3, 1).numpy()

        order = [1, 0, 3, 2]
        with_background = F.pad(deltas.reshape(-1, CLASSES, 4), (0, 0, 1, 0))  # which has no deltas there
        return {
            "molded": last(x)[0], "size": np.array(size),
            **{f"C{level}": last(value) for level, value in zip((2, 3, 4, 5), maps, strict=True)},
            **{f"P{level}": last(value) for level, value in zip((2, 3, 4, 5, 6), levels, strict=True)},
            "objectness": self.seen["logits"].numpy(), "deltas": self.seen["deltas"].numpy()[:, order],
            "anchors": self.seen["anchors"].numpy()[:, order], "proposals": proposals.numpy()[:, order],
            "pooled": last(pooled), "logits": torch.cat([logits[:, -1:], logits[:, :-1]], dim=1).numpy(),
            "box_deltas": with_background.numpy()[:, :, order], "boxes": placed.numpy()[:, order],
            "labels": labels.numpy() + 1, "scores": scores.numpy(), "mask_logits": masks.numpy(),
            "masks": np.packbits(pasted(masks.sigmoid(), placed, height, width).numpy() >= 0.5, axis=-1),
        }  # fmt: skip


def resized(image: np.ndarray) -> np.ndarray:
    """The shorter side to MIN_SIZE, unless the longer one would be longer than MAX_SIZE."""
    height, width = image.shape[:2]
    factor = MIN_SIZE / min(height, width)
    factor = min(factor, MAX_SIZE / max(height, width))
    sides = [int(side * factor + 0.5) for side in (width, height)]
    return np.array(Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR))


def grid(size: Any, stride: int, scale: int) -> torch.Tensor:
    """Anchors (x1, y1, x2, y2) of a level: around the corners of its cells, three ratios of height to width."""
    cells = []
    for ratio in (0.5, 1.0, 2.0):
        width = math.sqrt(scale**2 / ratio)
        cells.append([-width / 2, -width * ratio / 2, width / 2, width * ratio / 2])
    y, x = torch.meshgrid(*(torch.arange(side) * stride for side in size), indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4).float()
    return (shifts + torch.tensor(cells)).reshape(-1, 4)


def decode(deltas: Any, boxes: Any, weights: tuple[float, ...]) -> Any:
    """Boxes moved by deltas (dx, dy, dw, dh)."""
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    deltas = deltas / torch.tensor(weights)
    center, size = center + deltas[:, :2] * size, size * deltas[:, 2:].clamp(max=CLIP).exp()
    return torch.cat([center - size / 2, center + size / 2], dim=1)


def clip(boxes: Any, size: Any) -> Any:
    limits = torch.tensor([size[1], size[0]] * 2)
    return boxes.clamp(min=0).minimum(limits)


def pool(levels: list[Any], boxes: Any, side: int) -> Any:
    """Features of regions, each from the level that fits its size, aligned, as many samples as a bin has cells."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    chosen = torch.floor(4 + torch.log2(areas.sqrt() / 224 + 1e-8)).clamp(2, 5).long() - 2
    found = torch.zeros(len(boxes), levels[0].shape[1], side, side)
    for number, x in enumerate(levels):
        rows = (chosen == number).nonzero()[:, 0]
        rois = torch.cat([torch.zeros(len(rows), 1), boxes[rows]], dim=1)
        found[rows] = roi_align(x, rois, side, 1 / (4 * 2**number), 0, aligned=True)
    return found


def pasted(masks: Any, boxes: Any, height: int, width: int) -> Any:
    """Masks [N, h, w] laid into their boxes in an image [N, height, width]: sampled at the centers of its pixels."""
    x1, y1, x2, y2 = (boxes[:, number, None] for number in range(4))
    y = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
    places = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    return F.grid_sample(masks[:, None], places, align_corners=False)[:, 0]


def main(folder: Path) -> None:
    with np.load(folder / "photos.npz") as file:
        photos = [file[name] for name in file.files]
    for name, (options, count) in DETECTRON2_CASES.items():
        torch.manual_seed(1)
        network = Network(**options)
        with torch.no_grad():
            network.run(photos[0])
            network.settling = False
            arrays: dict[str, np.ndarray] = {}
            for index, photo in enumerate(photos[:count]):
                arrays |= {f"{index}/{what}": value for what, value in network.run(photo).items()}
        # As in the files of its model zoo, there is nothing of pixels.
        np.savez(folder / f"{name}_weights.npz", **{key: value.numpy() for key, value in network.state.items()})
        np.savez(folder / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
