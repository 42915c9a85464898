"""Mask R-CNNs of torchvision run on photos, and all that they compute on the way written down.

    python -m tests.torchvision.peer FOLDER
    python -m tests.torchvision.peer --kept FOLDER      the files of small networks that tests/data keeps

Runs under an interpreter that has torch and torchvision, and needs nothing of this package. FOLDER holds `photos.npz`;
for each case come `CASE_weights.npz`, a state dict, and `CASE.npz`, arrays named "PHOTO/WHAT".
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.torchvision.kept import pack, seeded

NUM_CLASSES = 21
PROPOSALS = 150
MIN_SIZE, MAX_SIZE = 192, 320

# Standard deviations that random outputs are brought to, of the size that trained networks have them in.
OBJECTNESS_SPREAD, DELTA_SPREAD, LOGIT_SPREAD, MASK_SPREAD = 2.0, 0.08, 2.0, 2.0

Case = Callable[[], Any]


def build_v1() -> Any:
    """As `maskrcnn_resnet50_fpn` is with its released weights: frozen normalization without epsilon."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection._utils import overwrite_eps
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    model = MaskRCNN(resnet_fpn_backbone(backbone_name="resnet50", weights=None), NUM_CLASSES, **_options())
    overwrite_eps(model, 0.0)
    return model


def build_v2() -> Any:
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    return maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=NUM_CLASSES, **_options())


def build_r101() -> Any:
    """A deeper backbone whose normalization could train."""
    import torch
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name="resnet101", weights=None, norm_layer=torch.nn.BatchNorm2d)
    return MaskRCNN(backbone, NUM_CLASSES, **_options())


def build_small_v1() -> Any:
    """As `build_v1`, on a ResNet-18."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection._utils import overwrite_eps
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    model = MaskRCNN(backbone, NUM_CLASSES, **_options(), box_detections_per_img=KEPT_DETECTIONS)
    overwrite_eps(model, 0.0)
    return model


def build_small_v2() -> Any:
    """As `maskrcnn_resnet50_fpn_v2`, on a ResNet-18."""
    from torch import nn
    from torchvision.models import resnet18
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, RPNHead, _default_anchorgen
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads

    backbone = _resnet_fpn_extractor(resnet18(weights=None), 5, norm_layer=nn.BatchNorm2d)
    anchors = _default_anchorgen()
    width, norm = backbone.out_channels, nn.BatchNorm2d
    return MaskRCNN(
        backbone, NUM_CLASSES, **_options(), box_detections_per_img=KEPT_DETECTIONS,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(width, anchors.num_anchors_per_location()[0], conv_depth=2),
        box_head=FastRCNNConvFCHead((width, 7, 7), [256] * 4, [1024], norm_layer=norm),
        mask_head=MaskRCNNHeads(width, [256] * 4, 1, norm_layer=norm),
    )  # fmt: skip


# What is built, and how many of the photos it is run on.
CASES: dict[str, tuple[Case, int]] = {"v1": (build_v1, 3), "v2": (build_v2, 2), "r101": (build_r101, 1)}

# Small networks, whose results are kept in tests/data.
KEPT_DETECTIONS = 30
KEPT_CASES: dict[str, Case] = {"small_v1": build_small_v1, "small_v2": build_small_v2}

# Those of `detectron2_peer`: arguments of its network, and how many of the photos. R50-FPN 3x, its new baselines, its
# R50-FPN with GroupNorm, and its ResNeXt at half the depth and width.
_IN_3X3 = {"stride_in_3x3": True}
DETECTRON2_CASES: dict[str, tuple[dict[str, Any], int]] = {
    "d2": ({}, 3),
    "lsj": ({"large_heads": True, "rpn_convs": 2, "tracked": True}, 1),
    "gn": ({"large_heads": True, "group_norm": True, **_IN_3X3}, 1),
    "resnext": ({"groups": 32, "group_width": 4, "std": (57.375, 57.12, 58.395), **_IN_3X3}, 1),
}


def _options() -> dict[str, Any]:
    return {"min_size": MIN_SIZE, "max_size": MAX_SIZE, "rpn_post_nms_top_n_test": PROPOSALS}


def keep(folder: Path) -> None:
    """Write what is kept of the small networks; their kernels are made again from their names."""
    import torch

    with np.load(folder / "photos.npz") as file:
        photos = [file[name] for name in file.files]
    for name, build in KEPT_CASES.items():
        model = build().eval()
        with torch.no_grad():
            for key, tensor in model.state_dict().items():
                if tensor.dim() > 1:
                    tensor.copy_(torch.from_numpy(seeded(key, tuple(tensor.shape))))
            settle(model, to_tensor(photos[0]))
            arrays = {f"0/{what}": value for what, value in record(model, photos[0]).items()}
            arrays |= train(model, photos[-1])
        state = {key: value.numpy() for key, value in model.state_dict().items()}
        np.savez_compressed(folder / f"torchvision_{name}.npz", **pack(state, arrays))


def main(folder: Path) -> None:
    import torch

    with np.load(folder / "photos.npz") as file:
        photos = [file[name] for name in file.files]  # the last one is for training
    for name, (build, count) in CASES.items():
        torch.manual_seed(1)
        model = build().eval()
        with torch.no_grad():
            settle(model, to_tensor(photos[0]))
            arrays: dict[str, np.ndarray] = {}
            for index, photo in enumerate(photos[:count]):
                arrays |= {f"{index}/{what}": value for what, value in record(model, photo).items()}
            arrays |= train(model, photos[-1])
        np.savez(folder / f"{name}.npz", **arrays)
        state = {key: value.numpy() for key, value in model.state_dict().items()}
        np.savez(folder / f"{name}_weights.npz", **state)


def train(model: Any, photo: np.ndarray) -> dict[str, np.ndarray]:
    """The five losses of a training step without random choices: the first candidates are the sample. The photo is of
    the size that the network works at. Normalizations keep to their statistics."""
    import torch
    from torchvision.models.detection import roi_heads

    model.train()
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.eval()
    height, width = photo.shape[:2]
    boxes, masks = objects(height, width)
    target = {
        "boxes": torch.from_numpy(boxes[:, [1, 0, 3, 2]]).float(),
        "labels": torch.arange(1, len(boxes) + 1) * 3,
        "masks": torch.from_numpy(masks).to(torch.uint8),
    }
    seen: dict[str, Any] = {}

    def first(self: Any, labels: list[Any]) -> tuple[list[Any], list[Any]]:
        chosen = []
        for own in labels:
            most = int(self.batch_size_per_image * self.positive_fraction)
            positive = torch.where(own >= 1)[0][:most]
            negative = torch.where(own == 0)[0][: self.batch_size_per_image - len(positive)]
            chosen.append([torch.zeros_like(own, dtype=torch.uint8).index_fill(0, i, 1) for i in (positive, negative)])
        # First of anchors, then of regions.
        name = "rois" if "anchors" in seen else "anchors"
        seen[name] = (labels[0].clone(), chosen[0][0], chosen[0][1])
        return [c[0] for c in chosen], [c[1] for c in chosen]

    sampler = type(model.rpn.fg_bg_sampler)
    original, project = sampler.__call__, roi_heads.project_masks_on_boxes

    def kept_targets(*arguments: Any) -> Any:
        seen["mask_targets"] = project(*arguments)
        return seen["mask_targets"]

    try:
        sampler.__call__, roi_heads.project_masks_on_boxes = first, kept_targets
        losses = model([to_tensor(photo)], [target])
    finally:
        sampler.__call__, roi_heads.project_masks_on_boxes = original, project
        model.eval()
    labels, positive, negative = (x.numpy() for x in seen["anchors"])
    roi_labels, roi_positive, roi_negative = (x.numpy() for x in seen["rois"])
    return {
        "train_boxes": boxes, "train_masks": masks, "train_labels": target["labels"].numpy(), "train_photo": photo,
        "anchor_labels": labels, "anchor_sample": positive.astype(np.int8) - negative.astype(np.int8),
        "roi_labels": roi_labels[(roi_positive | roi_negative) > 0],
        "mask_targets": seen["mask_targets"].numpy(),
        "losses": np.array([
            float(losses[name]) for name in (
                "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask",
            )
        ]),
    }  # fmt: skip


def objects(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Ellipses and what surrounds them: boxes [N, (y1, x1, y2, x2)] and masks [N, height, width]."""
    y, x = np.mgrid[:height, :width] + 0.5
    masks = []
    for center_y, center_x, half_y, half_x in ((0.3, 0.25, 0.2, 0.15), (0.6, 0.7, 0.33, 0.2), (0.85, 0.3, 0.1, 0.2)):
        distance = ((y / height - center_y) / half_y) ** 2 + ((x / width - center_x) / half_x) ** 2
        masks.append(distance <= 1)
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    return np.array(boxes), np.array(masks)


def to_tensor(photo: np.ndarray) -> Any:
    """[H, W, 3] uint8 -> [3, H, W] float32 in 0..1."""
    import torch

    return torch.from_numpy(photo).permute(2, 0, 1).to(torch.float32).div(255)


def settle(model: Any, image: Any) -> None:
    """Give random weights the activations of trained ones: statistics of the normalizations, and outputs that differ
    from place to place, from class to class and from one region to the next."""
    import torch

    handles = []

    def on(module: Any, before: Any = None, after: Any = None) -> None:
        if before:
            handles.append(module.register_forward_pre_hook(before))
        if after:
            handles.append(module.register_forward_hook(after))

    def take_statistics(module: Any, arguments: tuple[Any, ...]) -> None:
        x = arguments[0]
        module.running_mean.copy_(x.mean((0, 2, 3)))
        module.running_var.copy_(x.var((0, 2, 3)).clamp_min(1e-6))

    def spread(wanted: float, center: bool = False) -> Any:
        seen = []  # of a module that is run on each level, the first decides

        def after(module: Any, arguments: tuple[Any, ...], output: Any) -> Any:
            if seen:
                return None
            seen.append(True)
            module.weight.mul_(wanted / output.std())
            if center:
                axes = (0, 2, 3) if output.dim() == 4 else 0
                module.bias.sub_(module(arguments[0]).mean(axes))
            return module(arguments[0])

        return after

    for name, module in model.named_modules():
        if hasattr(module, "running_var"):
            on(module, before=take_statistics)
            noise = torch.Generator().manual_seed(module.weight.numel())
            # Blocks add little to what they are given, for random ones would blow up rounding errors.
            scale = 0.2 if name.endswith("bn3") else 1.0
            module.weight.copy_(scale * (1 + 0.1 * torch.randn(module.weight.shape, generator=noise)))
            module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=noise))
    on(model.rpn.head.cls_logits, after=spread(OBJECTNESS_SPREAD, center=True))
    on(model.rpn.head.bbox_pred, after=spread(DELTA_SPREAD, center=True))
    on(model.roi_heads.box_predictor.cls_score, after=spread(LOGIT_SPREAD, center=True))
    on(model.roi_heads.box_predictor.bbox_pred, after=spread(0.5, center=True))
    on(model.roi_heads.mask_predictor.mask_fcn_logits, after=spread(MASK_SPREAD, center=True))
    try:
        model([image])
    finally:
        for handle in handles:
            handle.remove()


def record(model: Any, photo: np.ndarray) -> dict[str, np.ndarray]:
    """All that the network computes for a photo, channels last."""
    import torch

    seen: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda module, arguments, output: seen.__setitem__(name, output)

    heads = model.roi_heads
    hooks = [
        model.transform.register_forward_hook(keep("molded")),
        model.backbone.body.register_forward_hook(keep("body")),
        model.backbone.register_forward_hook(keep("pyramid")),
        model.rpn.head.register_forward_hook(keep("rpn")),
        model.rpn.anchor_generator.register_forward_hook(keep("anchors")),
        model.rpn.register_forward_hook(keep("proposals")),
        heads.box_roi_pool.register_forward_hook(keep("pooled")),
        heads.box_predictor.register_forward_hook(keep("box")),
        heads.mask_predictor.register_forward_hook(keep("mask")),
    ]
    (found,) = model([to_tensor(photo)])
    for hook in hooks:
        hook.remove()

    def last(x: Any) -> np.ndarray:
        return x.permute(0, 2, 3, 1).numpy()

    images, _ = seen["molded"]
    logits, deltas = seen["rpn"]
    return {
        "molded": last(images.tensors)[0],
        "size": np.array(images.image_sizes[0]),
        **{f"C{level}": last(x) for level, x in zip((2, 3, 4, 5), seen["body"].values(), strict=True)},
        **{f"P{level}": last(x) for level, x in zip((2, 3, 4, 5, 6), seen["pyramid"].values(), strict=True)},
        "objectness": np.concatenate([last(x).reshape(-1) for x in logits]),
        "deltas": np.concatenate([last(x).reshape(-1, 4) for x in deltas])[:, [1, 0, 3, 2]],
        "anchors": seen["anchors"][0].numpy()[:, [1, 0, 3, 2]],
        "proposals": seen["proposals"][0][0].numpy()[:, [1, 0, 3, 2]],
        "pooled": last(seen["pooled"]),
        "logits": seen["box"][0].numpy(),
        "box_deltas": seen["box"][1].numpy().reshape(-1, NUM_CLASSES, 4)[:, :, [1, 0, 3, 2]],
        "boxes": found["boxes"].numpy()[:, [1, 0, 3, 2]],
        "labels": found["labels"].numpy(),
        "scores": found["scores"].numpy(),
        "mask_logits": seen["mask"][torch.arange(len(found["labels"])), found["labels"]].numpy(),
        "masks": np.packbits(found["masks"][:, 0].numpy() >= 0.5, axis=-1),
    }


if __name__ == "__main__":
    (keep if "--kept" in sys.argv else main)(Path(sys.argv[-1]))
