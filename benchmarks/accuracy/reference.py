"""torchvision's side: `maskrcnn_resnet50_fpn` from scratch for so many minutes, by its reference recipe.

    python -m benchmarks.accuracy.reference DATA.npz FOUND.npz --minutes 20

The recipe is that of torchvision's references/detection on one device: batches of 2; gradient descent with momentum
0.9, weight decay 1e-4 and a learning rate of 0.02 / 8, a linear warm-up from a thousandth of it over the first epoch,
and a tenth of it from epochs 16 and 22 of 26 on, here by the time; images flipped left to right half of the time.
They have their own scale, the anchors suit the nuclei, and channels are last, which is faster.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.data import ANCHOR_SIDES, DETECTIONS, MIN_SCORE, TILE, Clock, masks_of, write_found

LEARNING_RATE = 0.02 / 8
MILESTONES = (16 / 26, 22 / 26)
BATCH = 2
LOG_EVERY = 20  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    arguments = parser.parse_args()
    data = dict(np.load(arguments.data))
    write_found(arguments.found, detect(train(data, arguments.minutes, arguments.precision), data["test_images"]))


def build() -> Any:
    """The network, its weights random, in training mode."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=2,
        min_size=TILE,
        max_size=4 * TILE,
        rpn_anchor_generator=AnchorGenerator([(side,) for side in ANCHOR_SIDES], [(0.5, 1.0, 2.0)] * len(ANCHOR_SIDES)),
        box_score_thresh=MIN_SCORE,
        box_detections_per_img=DETECTIONS,
    )
    return model.to(memory_format=torch.channels_last)


def train(data: dict[str, np.ndarray], minutes: float, precision: str) -> Any:
    """Train for so long, imports included."""
    clock = Clock(minutes)
    import torch

    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
    rng = np.random.default_rng(0)
    images, labels = data["train_images"], data["train_labels"]
    steps_per_epoch = len(images) // BATCH
    step = 0
    while clock.share < 1.0:
        if step % steps_per_epoch == 0:
            order = rng.permutation(len(images))
        chosen = order[step % steps_per_epoch * BATCH :][:BATCH]
        batch = [example(images[i], labels[i], flip=rng.random() < 0.5) for i in chosen]
        warmup = min(1000, steps_per_epoch - 1)
        factor = 0.1 ** sum(clock.share >= milestone for milestone in MILESTONES)
        factor *= min(0.001 + (1 - 0.001) * step / warmup, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * factor
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            losses = model([image for image, _ in batch], [target for _, target in batch])
            total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        step += 1
        if step % LOG_EVERY == 0:
            told = "  ".join(f"{name} {float(loss.detach()):.3f}" for name, loss in losses.items())
            print(f"step {step}, {clock.passed:.0f} s  {told}", flush=True)
    print(f"{step} steps in {clock.passed:.0f} s", flush=True)
    return model


def example(image: np.ndarray, labels: np.ndarray, flip: bool) -> tuple[Any, dict[str, Any]]:
    """An image [H, W] and its label map as torchvision takes them."""
    import torch

    if flip:
        image, labels = image[:, ::-1], labels[:, ::-1]
    masks = masks_of(labels)
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    target = {
        "boxes": torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)),
        "labels": torch.ones(len(masks), dtype=torch.int64),
        "masks": torch.from_numpy(masks.astype(np.uint8)),
    }
    return to_tensor(image), target


def detect(model: Any, images: np.ndarray) -> list[dict[str, np.ndarray]]:
    """What the trained network finds in grayscale images [F, H, W], at their own scale."""
    import torch

    model.eval()
    model.transform.min_size = (min(images.shape[1:]),)
    results = []
    with torch.inference_mode():
        for image in images:
            (found,) = model([to_tensor(image)])
            results.append(
                {
                    "rois": found["boxes"].numpy()[:, [1, 0, 3, 2]].round().astype(np.int32),
                    "scores": found["scores"].numpy(),
                    "masks": np.moveaxis(found["masks"][:, 0].numpy() >= 0.5, 0, -1),
                }
            )
    return results


def to_tensor(image: np.ndarray) -> Any:
    """[H, W] uint8 -> [3, H, W] float32 in 0..1."""
    import torch

    return torch.from_numpy(np.repeat(image[None], 3, axis=0)).to(torch.float32).div(255)


if __name__ == "__main__":
    main()
