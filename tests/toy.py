"""A network of two layers in the place of Mask R-CNN's, whose steps take milliseconds: for tests of what happens around
the steps, with all else as it is."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from mrcnn import training
from mrcnn.config import LOSS_NAMES
from mrcnn.data.image_meta import ImageMeta
from mrcnn.model import MaskRCNN
from tests.shapes import ShapesConfig


class ToyConfig(ShapesConfig):
    IMAGES_PER_GPU = 2
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
    STEPS_PER_EPOCH = 1
    VALIDATION_STEPS = 1


class ToyModel(MaskRCNN):
    """Has the inputs and losses of a training network, and random numbers in it. Runs without a graph."""

    def build(self, mode, config):
        assert mode == "training"
        meta, masks = (ImageMeta.size(config.NUM_CLASSES),), (*config.MINI_MASK_SHAPE, None)
        kinds = [
            ("image", (*config.IMAGE_SHAPE,), "float32"), ("image_meta", meta, "float32"),
            ("rpn_match", (None, 1), "int32"), ("rpn_bbox", (None, 4), "float32"), ("gt_class_ids", (None,), "int32"),
            ("gt_boxes", (None, 4), "float32"), ("gt_masks", masks, "bool"),
        ]  # fmt: skip
        inputs = [keras.Input(shape, name=f"input_{name}", dtype=dtype) for name, shape, dtype in kinds]
        x = layers.GlobalAveragePooling2D()(layers.Rescaling(0.01)(inputs[0]))
        x = layers.Dropout(0.2, seed=5)(layers.Dense(4, name="fpn_p2")(x))
        x = layers.Dense(len(LOSS_NAMES), name="mrcnn_class_logits")(x)
        losses = [layers.Lambda(lambda x, i=i: ops.mean(ops.square(x[:, i])))(x) for i in range(len(LOSS_NAMES))]
        return Toy(inputs, losses)


class Toy(training.TrainingModel):
    def compile(self, **arguments):
        super().compile(**{**arguments, "run_eagerly": True, "jit_compile": False})


def new_toy(folder: str | Path, **fields) -> ToyModel:
    keras.utils.set_random_seed(3)
    return ToyModel("training", ToyConfig.from_dict(fields), folder)


def values(model: MaskRCNN) -> dict[str, np.ndarray]:
    return {weight.path: ops.convert_to_numpy(weight) for weight in model.keras_model.weights}
