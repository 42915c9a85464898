"""torchvision's Mask R-CNN with ResNet-101-FPN, as its documentation says to run it on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.settle import SCORE_THRESHOLD, decisive

NUM_CLASSES = 81
PROPOSALS = 1000
DETECTIONS = 100
MASK_THRESHOLD = 0.5


class TorchvisionDetector:
    """uint8 photo in; boxes, labels, scores and boolean masks out.

    Args:
        cache: folder of the weights.
        photo: [side, side, 3] uint8; the network works at this size.
        precision: "float32"; or "bfloat16", under `torch.autocast`: the network cast to bfloat16 as a whole does not
            run ("nms_kernel" not implemented for 'BFloat16').
        channels_last: the memory format.
    """

    def __init__(self, cache: Path, photo: np.ndarray, precision: str, channels_last: bool) -> None:
        import torch
        import torchvision

        self._torch = torch
        self._autocast = precision == "bfloat16"
        self._model = load(cache, photo)
        if channels_last:
            self._model = self._model.to(memory_format=torch.channels_last)
        proposals: list[int] = []
        self._model.roi_heads.register_forward_pre_hook(lambda _, args: proposals.append(len(args[1][0])))
        self(photo)
        self.facts = {
            "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
            "threads": torch.get_num_threads(),
            "proposals": proposals[0],
            "pastes_masks": True,
        }

    @staticmethod
    def prepare(cache: Path, photo: np.ndarray, **_: Any) -> None:
        """Make the weights, and keep what is found with them."""
        model, path = load(cache, photo), found_file(cache, photo)
        if path.exists():
            return
        import torch

        with torch.inference_mode():
            (found,) = model([to_tensor(photo)])
        with path.with_suffix(".partial").open("wb") as file:
            np.savez(file, boxes=found["boxes"].numpy(), labels=found["labels"].numpy())
        path.with_suffix(".partial").replace(path)

    def __call__(self, photo: np.ndarray) -> dict[str, np.ndarray]:
        torch = self._torch
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            (found,) = self._model([to_tensor(photo)])
            masks = found["masks"][:, 0] >= MASK_THRESHOLD
        return {
            "boxes": found["boxes"].float().numpy(),
            "labels": found["labels"].numpy(),
            "scores": found["scores"].float().numpy(),
            "masks": masks.numpy(),
        }


def load(cache: Path, photo: np.ndarray) -> Any:
    """The network in evaluation mode, float32. Its weights are made once and kept in the cache folder."""
    import torch

    torch.manual_seed(0)
    model = build(photo.shape[0])
    path = cache / f"torchvision_r101_{photo.shape[0]}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    settle(model, model.roi_heads.box_predictor.cls_score, lambda: model([to_tensor(photo)]))
    save(model, path)
    return model


def found_file(cache: Path, photo: np.ndarray) -> Path:
    """Where `TorchvisionDetector.prepare` keeps what is found in the photo."""
    return cache / f"torchvision_r101_{photo.shape[0]}_found.npz"


def build(side: int) -> Any:
    """The network for square photos of this side, its weights random, in evaluation mode."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    model = MaskRCNN(
        resnet_fpn_backbone(backbone_name="resnet101", weights=None),
        num_classes=NUM_CLASSES,
        min_size=side,
        max_size=side,
        rpn_post_nms_top_n_test=PROPOSALS,
        box_detections_per_img=DETECTIONS,
        box_score_thresh=SCORE_THRESHOLD,
    )
    return model.eval()


def settle(model: Any, classifier: Any, run: Callable[[], Any], background: int = 0) -> None:
    """See `benchmarks.settle`.

    Args:
        model: has batch normalizations with `running_mean` and `running_var`.
        classifier: its linear layer of K classes.
        run: runs it on the photo.
        background: index of the background among the classes.
    """
    import torch

    def take_statistics(module: Any, arguments: tuple[Any, ...]) -> None:
        module.running_mean.copy_(arguments[0].mean((0, 2, 3)))
        module.running_var.copy_(arguments[0].var((0, 2, 3)).clamp_min(1e-6))

    def decide(module: Any, arguments: tuple[Any, ...], logits: Any) -> Any:
        order = np.r_[background, np.delete(np.arange(logits.shape[1]), background)]  # background first
        back = np.argsort(order)
        arrays = (module.weight.detach().numpy().T[:, order], module.bias.detach().numpy()[order])
        kernel, bias = decisive(*arrays, logits.numpy()[:, order])
        module.weight.data.copy_(torch.from_numpy(kernel[:, back].T.copy()))
        module.bias.data.copy_(torch.from_numpy(bias[back]))
        return torch.nn.functional.linear(arguments[0], module.weight, module.bias)

    normalizations = [module for module in model.modules() if hasattr(module, "running_var")]
    handles = [module.register_forward_pre_hook(take_statistics) for module in normalizations]
    handles.append(classifier.register_forward_hook(decide))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()


def save(model: Any, path: Path) -> None:
    """The weights of a network in a file, whole or not at all."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(model.state_dict(), partial)
    partial.replace(path)


def to_tensor(photo: np.ndarray) -> Any:
    """[H, W, 3] uint8 -> [3, H, W] float32 in 0..1, as `torchvision.transforms.functional.to_tensor` does."""
    import torch

    return torch.from_numpy(photo).permute(2, 0, 1).to(torch.float32).div(255)
