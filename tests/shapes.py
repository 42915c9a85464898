"""Synthetic images of squares, disks and triangles with their masks: small enough to learn by heart."""

from __future__ import annotations

import cv2
import numpy as np

from mrcnn.config import Config
from mrcnn.data.dataset import Dataset

KINDS = ("square", "disk", "triangle")


class ShapesConfig(Config):
    NAME = "shapes"
    BACKBONE = "resnet14"
    NUM_CLASSES = 1 + len(KINDS)
    IMAGES_PER_GPU = 4
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    RPN_ANCHOR_SCALES = (16, 32, 48, 64, 96)
    TOP_DOWN_PYRAMID_SIZE = 64
    RPN_CONV_SIZE = 64
    FPN_CLASSIF_FC_LAYERS_SIZE = 128
    MASK_CONV_SIZE = 32
    PRE_NMS_LIMIT = 300
    POST_NMS_ROIS_TRAINING = 100
    POST_NMS_ROIS_INFERENCE = 50
    TRAIN_ROIS_PER_IMAGE = 32
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    MAX_GT_INSTANCES = 6
    MINI_MASK_SHAPE = (28, 28)
    DETECTION_MAX_INSTANCES = 10
    ROI_FILL_NEGATIVES = True
    MASK_HEAD_POSITIVES_ONLY = True
    STEPS_PER_EPOCH = 60
    VALIDATION_STEPS = 1


class Shapes(Dataset):
    """`count` images of 1 to 3 shapes that do not touch. The images are kept in memory."""

    def __init__(self, count: int, seed: int = 0, size: int = 128) -> None:
        super().__init__()
        for index, kind in enumerate(KINDS, start=1):
            self.add_class("shapes", index, kind)
        self.pictures = []
        rng = np.random.default_rng(seed)
        for index in range(count):
            self.pictures.append(_draw(rng, size))
            self.add_image("shapes", index, path=f"shapes/{index}.png")
        self.prepare()

    def load_image(self, image_id: int) -> np.ndarray:
        return self.pictures[image_id][0]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pictures[image_id][1:]


def _draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = np.empty((size, size, 3), np.uint8)
    image[:] = rng.integers(0, 100, 3)
    image += rng.integers(0, 20, image.shape, dtype=np.uint8)
    masks, kinds = [], []
    for corner in rng.permutation(4)[: rng.integers(1, 4)]:  # one shape a quarter
        radius = int(rng.integers(size // 10, size // 5))
        y, x = (
            int(v) for v in rng.integers(radius + 2, size // 2 - radius, 2) + np.array(divmod(corner, 2)) * size // 2
        )
        kind = int(rng.integers(len(KINDS)))
        mask = np.zeros((size, size), np.uint8)
        if kind == 0:
            cv2.rectangle(mask, (x - radius, y - radius), (x + radius, y + radius), 1, -1)
        elif kind == 1:
            cv2.circle(mask, (x, y), radius, 1, -1)
        else:
            points = [[x, y - radius], [x - radius, y + radius], [x + radius, y + radius]]
            cv2.fillPoly(mask, [np.array(points, np.int32)], 1)
        image[mask == 1] = rng.integers(130, 255, 3)
        masks.append(mask.astype(bool))
        kinds.append(kind + 1)
    return image, np.stack(masks, axis=-1), np.array(kinds, np.int32)
