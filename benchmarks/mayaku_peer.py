"""mayaku's Mask R-CNN with ResNet-101-FPN: detectron2's network and defaults, in a package that can be installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.settle import SCORE_THRESHOLD
from benchmarks.torchvision_peer import DETECTIONS, NUM_CLASSES, PROPOSALS, save, settle


class MayakuDetector:
    """uint8 photo in; boxes, labels, scores and boolean masks out.

    Args:
        cache: folder of the weights.
        photo: [side, side, 3] uint8; the network works at this size.
        precision: "float32", or "bfloat16" under `torch.autocast`, channels last.
    """

    def __init__(self, cache: Path, photo: np.ndarray, precision: str) -> None:
        import mayaku
        import torch
        from mayaku.inference.predictor import Predictor

        self._torch = torch
        self._autocast = precision == "bfloat16"
        model = load(cache, photo)
        if self._autocast:
            model = model.to(memory_format=torch.channels_last)
        side = photo.shape[0]
        self._predictor = Predictor(model, min_size_test=side, max_size_test=side)
        self.facts = {
            "versions": {"mayaku": mayaku.__version__, "torch": torch.__version__},
            "threads": torch.get_num_threads(),
            "pastes_masks": True,
        }

    @staticmethod
    def prepare(cache: Path, photo: np.ndarray, **_: Any) -> None:
        """Make the weights."""
        load(cache, photo)

    def __call__(self, photo: np.ndarray) -> dict[str, np.ndarray]:
        torch = self._torch
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            found = self._predictor(photo)
        return {
            "boxes": found.pred_boxes.tensor.float().numpy(),
            "labels": found.pred_classes.numpy(),
            "scores": found.scores.float().numpy(),
            "masks": found.pred_masks.numpy(),
        }


def load(cache: Path, photo: np.ndarray) -> Any:
    """The network in evaluation mode, float32. Its weights are made once and kept in the cache folder."""
    import torch
    from mayaku.config.schemas import (
        BackboneConfig,
        MayakuConfig,
        ModelConfig,
        ROIHeadsConfig,
        ROIMaskHeadConfig,
        RPNConfig,
        TestConfig,
    )
    from mayaku.inference.predictor import Predictor
    from mayaku.models.detectors import build_mask_rcnn

    torch.manual_seed(0)
    model = build_mask_rcnn(
        MayakuConfig(
            model=ModelConfig(
                meta_architecture="mask_rcnn",
                mask_on=True,
                backbone=BackboneConfig(name="resnet101"),
                rpn=RPNConfig(post_nms_topk_test=PROPOSALS),
                roi_heads=ROIHeadsConfig(score_thresh_test=SCORE_THRESHOLD),
                roi_mask_head=ROIMaskHeadConfig(),
            ),
            test=TestConfig(detections_per_image=DETECTIONS),
        )
    ).eval()
    side = photo.shape[0]
    path = cache / f"mayaku_r101_{side}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    predictor = Predictor(model, min_size_test=side, max_size_test=side)
    # detectron2's background is the last class.
    settle(model, model.roi_heads.box_predictor.cls_score, lambda: predictor(photo), background=NUM_CLASSES - 1)
    save(model, path)
    return model
