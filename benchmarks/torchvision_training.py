"""A training step of torchvision's Mask R-CNN with ResNet-50-FPN, as its reference script does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scene import NUM_CLASSES, POSITIVES, PROPOSALS, ROIS, scenes
from benchmarks.torchvision_peer import to_tensor


class TorchvisionTrainer:
    """The photo in, a step of gradient descent done, its losses out.

    All layers of the backbone train; the counts of ROIs are `benchmarks.scene`'s. Channels last.

    Args:
        cache: not used.
        photo: [side, side, 3] uint8; the network works at this size.
        precision: "float32"; or "bfloat16", under `torch.autocast`.
        norm: batch normalization, its statistics frozen: "frozen", as `maskrcnn_resnet50_fpn` has it with pretrained
            weights, gamma and beta frozen too; or "stored", PyTorch's own in evaluation mode, whose gamma and beta
            train, as ours do.
    """

    def __init__(self, cache: Path, photo: np.ndarray, precision: str, norm: str) -> None:
        import torch
        import torchvision

        torch.manual_seed(0)
        self._torch = torch
        self._autocast = precision == "bfloat16"
        self._model = build(photo.shape[0], norm).to(memory_format=torch.channels_last)
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.SGD(parameters, lr=1e-5, momentum=0.9, weight_decay=1e-4)
        self._images = [to_tensor(scene.image) for scene in scenes(photo)]
        self._targets = [
            {
                "boxes": torch.from_numpy(scene.boxes[:, [1, 0, 3, 2]].copy()),
                "labels": torch.from_numpy(scene.labels),
                "masks": torch.from_numpy(scene.masks.astype(np.uint8)),
            }
            for scene in scenes(photo)
        ]
        self._positives: list[int] = []
        self._model.roi_heads.mask_head.register_forward_pre_hook(
            lambda _, arguments: self._positives.append(len(arguments[0]))
        )
        self._rois: list[int] = []
        self._model.roi_heads.box_head.register_forward_pre_hook(
            lambda _, arguments: self._rois.append(len(arguments[0]))
        )
        self(photo)
        self.facts = {
            "trains": True,
            "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
            "threads": torch.get_num_threads(),
            "rois": self._rois[-1],
            "mask_rois": self._positives[-1],
        }

    def __call__(self, photo: np.ndarray) -> dict[str, float]:
        torch = self._torch
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            losses = self._model(self._images, self._targets)
            total = sum(losses.values())
        self._optimizer.zero_grad()
        total.backward()
        self._optimizer.step()
        return {name: float(loss.detach()) for name, loss in losses.items()}


def build(side: int, norm: str) -> Any:
    """The network for square photos of this side, its weights random, in training mode; `norm` as above."""
    import torch
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    norm_layer = {"frozen": FrozenBatchNorm2d, "stored": torch.nn.BatchNorm2d}[norm]
    model = MaskRCNN(
        resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm_layer, trainable_layers=5),
        num_classes=NUM_CLASSES,
        min_size=side,
        max_size=side,
        _skip_resize=True,
        rpn_post_nms_top_n_train=PROPOSALS,
        box_batch_size_per_image=ROIS,
        box_positive_fraction=(POSITIVES + 0.5) / ROIS,
    )
    # Random weights let a residual network's numbers grow from block to block, and its statistics are frozen.
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("bn3.weight"):
                tensor.fill_(0.2)
        model.rpn.head.bbox_pred.weight.normal_(std=0.001)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model
