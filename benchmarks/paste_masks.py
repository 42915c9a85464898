"""Pasting of masks: 100 instances on a 12-megapixel photo, against full-size masks stacked one by one.

    python benchmarks/paste_masks.py [--instances 100] [--height 3000] [--width 4000] [--rounds 3]

Both ways run in turns in one process, on the same detections; the medians and their ratio are printed. The box
way is `mrcnn.data.molding.unmold_detections` as it ships; the full-image way is written out here: resize each mask
to its box, put it into an image of zeros, stack all of them. Both must find the same pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from mrcnn.data.molding import unmold_detections
from mrcnn.data.resizing import resize
from mrcnn.ops.boxes import normalize_boxes

MOLDED = 1024
BAR_SECONDS = 1.0


def make_detections(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """`count` detections [D, 6], boxes log-uniform from 1/60 of the image's sides to 1/2; masks [D, 28, 28, 2]
    smooth as a network's; and the window in the molded image."""
    rng = np.random.default_rng(0)
    scale = MOLDED / max(height, width)
    top, left = int((MOLDED - height * scale) // 2), int((MOLDED - width * scale) // 2)
    window = (top, left, MOLDED - top, MOLDED - left)
    sides = np.exp(rng.uniform(np.log(1 / 60), np.log(1 / 2), (count, 2))) * [height, width]
    corners = rng.uniform(0, 1, (count, 2)) * ([height, width] - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1) * scale + [top, left, top, left]
    detections = np.zeros((count, 6), np.float32)
    detections[:, :4] = normalize_boxes(boxes, (MOLDED, MOLDED))
    detections[:, 4], detections[:, 5] = 1, rng.uniform(0.7, 1, count)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    radius = rng.uniform(0.7, 1.1, (count, 1, 1))
    masks = np.repeat(1 / (1 + np.exp(-8 * (radius - np.hypot(y, x)))), 2).reshape(count, 28, 28, 2)
    return detections, masks.astype(np.float32), window


def paste_full_images(masks: np.ndarray, boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[N, 28, 28] -> [H, W, N] by way of N images."""
    images = []
    for mask, (y1, x1, y2, x2) in zip(masks, boxes, strict=True):
        image = np.zeros(shape, bool)
        image[y1:y2, x1:x2] = resize(mask, (y2 - y1, x2 - x1)) >= 0.5
        images.append(image)
    return np.stack(images, axis=-1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    shape = (arguments.height, arguments.width)
    detections, masks, window = make_detections(arguments.instances, *shape)

    seconds: dict[str, list[float]] = {"boxes only": [], "full images": []}
    for turn in range(arguments.rounds):
        start = time.perf_counter()
        boxes, class_ids, _, pasted = unmold_detections(detections, masks, shape, (MOLDED, MOLDED), window)
        seconds["boxes only"].append(time.perf_counter() - start)

        start = time.perf_counter()
        expected = paste_full_images(masks[np.arange(len(boxes)), :, :, class_ids], boxes, shape)
        seconds["full images"].append(time.perf_counter() - start)
        if turn == 0:
            different = sum(int((pasted[y] != expected[y]).sum()) for y in range(arguments.height))
        del pasted, expected

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum() / 1e6
    print(
        f"{len(boxes)} instances ({area:.1f} megapixels of boxes) on {shape[1]} x {shape[0]}, {arguments.rounds} rounds"
    )
    for name, times in seconds.items():
        print(f"{name:12} median {medians[name]:7.3f} s   lowest {min(times):7.3f}   highest {max(times):7.3f}")
    print(f"ratio        {medians['full images'] / medians['boxes only']:7.1f} x   pixels that differ: {different}")
    return 0 if different == 0 and medians["boxes only"] < BAR_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
