"""Config: what a model is and how it is trained, as upper-case attributes that people override in a subclass."""

from __future__ import annotations

import difflib
import math
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mrcnn import config_checks as checks
from mrcnn import config_habits as habits
from mrcnn import config_pickling as pickling
from mrcnn.applications import APPLICATIONS, application_of, pixel_fields
from mrcnn.config_rules import (
    AUGMENTATIONS,
    BACKBONES,
    LEVELS,
    LOSS_NAMES,
    MASK_GRIDS,
    RESIZE_MODES,
    SIZE_MULTIPLE,
    ConfigError,
    check_fields,
    is_backbone_name,
    nearest_sizes,
)
from mrcnn.presets import is_of_a_preset
from mrcnn.recipe import Recipe

__all__ = [
    "AUGMENTATIONS",
    "BACKBONES",
    "LOSS_NAMES",
    "MASK_GRIDS",
    "RESIZE_MODES",
    "SIZE_MULTIPLE",
    "Config",
    "ConfigError",
    "is_backbone_name",
    "nearest_sizes",
]

_META_SIZE_WITHOUT_CLASSES = 12

_DERIVED = ("BATCH_SIZE", "IMAGE_SHAPE", "IMAGE_META_SIZE")


class Config(Recipe):
    """The base configuration. Subclass it, override what differs, and make an instance:

        class NucleusConfig(Config):
            NAME = "nucleus"
            NUM_CLASSES = 1 + 1

        config = NucleusConfig()

    An attribute whose name nearly is a field's (`IMAGE_MAX_DIMM`) is refused, where a field of that value may have been
    meant (see `mrcnn.config_habits`); any other is kept as the user's own.

    Raises:
        ConfigError: a value that cannot work, or a misspelled field.
    """

    # Name of the experiment: log directories and checkpoints carry it in lower case.
    NAME: str | None = None

    # Batch: IMAGES_PER_GPU x GPU_COUNT images a step. Training takes GPU_COUNT devices; see `mrcnn.parallel`.
    GPU_COUNT = 1
    IMAGES_PER_GPU = 2
    # The GPUs to use, such as (0, 1); (): none, the CPU alone; None: all. And how their memory is taken: "growth" as
    # needed, a number such as 0.5 that share of it, None as the framework has it. See `mrcnn.devices`.
    GPUS: Sequence[int] | None = None
    GPU_MEMORY: str | float | None = None

    STEPS_PER_EPOCH = 1000
    VALIDATION_STEPS = 50

    # "resnet50", "resnet101" and others of torchvision's names (see BACKBONES), "resnet14" (small, for a CPU);
    # "keras:EfficientNetV2B0" and others of keras.applications (MEAN_PIXEL and STD_PIXEL are then, unless they are set,
    # what that network was trained with); or a callable (input_image, stage5=True, train_bn=...) -> [C1, C2, C3, C4,
    # C5].
    BACKBONE: str | Callable = "resnet101"
    # With a callable backbone: a callable (image_shape) -> [levels, (height, width)]. None: from the strides.
    COMPUTE_BACKBONE_SHAPE: Callable | None = None
    # Strides of P2..P6 in pixels.
    BACKBONE_STRIDES = [4, 8, 16, 32, 64]

    # Widths: the classifier's hidden layers, the pyramid, the RPN's convolution, the mask head's convolutions.
    FPN_CLASSIF_FC_LAYERS_SIZE = 1024
    TOP_DOWN_PYRAMID_SIZE = 256
    RPN_CONV_SIZE = 512
    MASK_CONV_SIZE = 256

    # Classes, the background (class 0) included.
    NUM_CLASSES = 1

    # Anchors: side in pixels for each of P2..P6, or of the first ones; width / height ratios; 1 = at every cell.
    RPN_ANCHOR_SCALES = (32, 64, 128, 256, 512)
    RPN_ANCHOR_RATIOS = [0.5, 1, 2]
    RPN_ANCHOR_STRIDE = 1

    RPN_NMS_THRESHOLD = 0.7
    RPN_TRAIN_ANCHORS_PER_IMAGE = 256
    PRE_NMS_LIMIT = 6000
    POST_NMS_ROIS_TRAINING = 2000
    POST_NMS_ROIS_INFERENCE = 1000

    # Ground truth masks are kept as small crops of their boxes.
    USE_MINI_MASK = True
    MINI_MASK_SHAPE = (56, 56)  # (height, width)
    # "legacy": ground truth masks are resized on a grid of their own, which is off the image's by up to half a pixel.
    # "image": on the image's.
    MASK_GRID = "legacy"

    # none: as it is. square: scale and pad to IMAGE_MAX_DIM squared. pad64: pad to multiples of 64.
    # crop: random IMAGE_MIN_DIM squares, for training. shortest: the shorter side to IMAGE_MIN_DIM, the longer to
    # IMAGE_MAX_DIM at most, and pad to multiples of IMAGE_SIZE_MULTIPLE; in training to one size, see IMAGE_SHAPE.
    IMAGE_RESIZE_MODE = "square"
    IMAGE_MIN_DIM = 800
    IMAGE_MAX_DIM = 1024
    IMAGE_MIN_SCALE = 0
    IMAGE_CHANNEL_COUNT = 3
    MEAN_PIXEL = np.array([123.7, 116.8, 103.9])  # of each channel, in image values (RGB)
    # (height, width), in place of the square of modes square and crop; in the other modes the size that training images
    # come out in. (An IMAGE_SHAPE of unequal sides in a subclass means the same.)
    IMAGE_RECTANGLE: Sequence[int] | None = None
    # Which channels are red, green and blue, such as (2, 1, 0), for loading weights of RGB images where there are not
    # three; None: they are not known. See `mrcnn.weights.channels`.
    RGB_CHANNELS: Sequence[int] | None = None

    # Regions of interest that train the heads, and the share of positive ones.
    TRAIN_ROIS_PER_IMAGE = 200
    ROI_POSITIVE_RATIO = 0.33
    # False, legacy: negatives are taken in proportion to the positives found, none for an image without positives.
    # True: negatives fill TRAIN_ROIS_PER_IMAGE up.
    ROI_FILL_NEGATIVES = False
    # False, legacy: the box loss of the head reaches the RPN through the proposals (its targets move with them).
    STOP_PROPOSAL_GRADIENT = False
    # False, legacy: a ROI counts for the class loss where its predicted class is one of the source of the batch's first
    # image. True: of its own image's source. The same where all images are of one source.
    ACTIVE_CLASSES_PER_IMAGE = False
    # True: in training the mask head sees only the rows that can be positive (the others carry no mask loss).
    # False: all rows, as the original computes them.
    MASK_HEAD_POSITIVES_ONLY = False

    POOL_SIZE = 7
    MASK_POOL_SIZE = 14
    MASK_SHAPE = [28, 28]

    MAX_GT_INSTANCES = 100
    # True, legacy: images without objects are left out of training. False: they are negative examples.
    SKIP_EMPTY_IMAGES = False

    RPN_BBOX_STD_DEV = np.array([0.1, 0.1, 0.2, 0.2])
    BBOX_STD_DEV = np.array([0.1, 0.1, 0.2, 0.2])

    DETECTION_MAX_INSTANCES = 100
    DETECTION_MIN_CONFIDENCE = 0.7  # 0 turns the filter off
    DETECTION_NMS_THRESHOLD = 0.3
    # False: a detection gives way to a better one of its own class only. True: to one of any class.
    DETECTION_NMS_CLASS_AGNOSTIC = False
    # Least scores by class, the background's first (any number), in place of DETECTION_MIN_CONFIDENCE.
    DETECTION_CLASS_CONFIDENCE: Sequence[float] | None = None

    LEARNING_RATE = 0.001
    LEARNING_MOMENTUM = 0.9
    WEIGHT_DECAY = 0.0001
    LOSS_WEIGHTS = dict.fromkeys(LOSS_NAMES, 1.0)
    GRADIENT_CLIP_NORM = 5.0  # of all gradients together
    # "SGD" with LEARNING_MOMENTUM; or "AdamW", for which WEIGHT_DECAY (0.05 is usual) is what weights shrink by at each
    # update, times the learning rate, kernels only, and no part of the loss.
    OPTIMIZER = "SGD"
    # Over a stage: "constant", "step" (times LEARNING_RATE_DECAY after each of the shares of the stage in
    # LEARNING_RATE_STEPS), "cosine" (to 0); after WARMUP_STEPS from WARMUP_FACTOR of it on. See `StageSchedule`.
    LEARNING_RATE_SCHEDULE = "constant"
    LEARNING_RATE_STEPS: Sequence[float] = (0.67, 0.89)
    LEARNING_RATE_DECAY = 0.1
    WARMUP_STEPS = 0
    WARMUP_FACTOR = 0.001
    # Steps whose gradients are averaged and applied together, as of one larger batch.
    GRADIENT_ACCUMULATION = 1
    # What a moving average of the weights keeps of itself at each update, such as 0.999; checkpoints and a stage's end
    # have the averaged weights then. 0: none is kept.
    EMA_DECAY = 0.0
    # What the training network computes in: "float32", "mixed_bfloat16", "mixed_float16". Its weights are float32.
    PRECISION = "float32"
    # Steps between checkpoints within an epoch; 0: only at its end.
    SAVE_EVERY = 0
    # For classes of which there are few: how much ROIs of each class count in the class loss, the background's first,
    # relative to each other (`mrcnn data summary` proposes); and the exponent of the focal loss, which makes ROIs that
    # are told right already count less (2 is usual; 0: all alike). See `mrcnn.losses.mrcnn_class_loss`.
    CLASS_WEIGHTS: Sequence[float] | None = None
    FOCAL_GAMMA = 0.0

    # False: the heads train on the image's own proposals in `input_roi`.
    USE_RPN_ROIS = True

    # Batch normalization: False = stored statistics always, None = the ordinary training flag, True = batch statistics.
    TRAIN_BN: bool | None = False

    # Measure the average precision on the validation set every so many epochs, and keep the best weights in best.h5; 0:
    # never. On so many of its images, evenly chosen; 0: on all.
    EVALUATE_EVERY = 0
    EVALUATE_IMAGES = 0
    # End training after so many epochs, counted from the stage's first, without a better result; 0: never.
    EARLY_STOPPING = 0

    # Of training images, where `train` is given none: "none", "flip", "standard", "strong". See
    # `mrcnn.data.augmentation.recipe`.
    AUGMENTATION = "none"
    # Seeds the shuffling, the augmentation and the sub-sampling of targets.
    SEED = 0
    # Threads that load and mold training images.
    LOADER_WORKERS = 2

    def __reduce__(self) -> tuple[Any, ...]:
        return pickling.reduced(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A function given as a field is the function, and no method of the configuration.
        for name in ("BACKBONE", "COMPUTE_BACKBONE_SHAPE"):
            if isinstance(vars(cls).get(name), types.FunctionType):
                setattr(cls, name, staticmethod(vars(cls)[name]))

    def __init__(self) -> None:
        slip = habits.misspelled(type(self), Config, (*self.fields(), *_DERIVED))
        if slip is not None:
            raise ConfigError(slip)
        vars(self).update(habits.earlier_fields(self, Config))
        for name in _DERIVED:
            if hasattr(type(self), name) and not (name == "IMAGE_SHAPE" and self._rectangle_of_shape() is not None):
                warnings.warn(
                    f"{type(self).__name__}.{name} is ignored: it is derived from other fields "
                    "(IMAGES_PER_GPU, GPU_COUNT, IMAGE_MIN_DIM, IMAGE_MAX_DIM, NUM_CLASSES).",
                    stacklevel=2,
                )
        if self.IMAGE_RECTANGLE is None:
            self.IMAGE_RECTANGLE = self._rectangle_of_shape()
        vars(self).update(self._pixels_of_backbone())
        self.validate()
        habits.tell_of_values(self, LEVELS, LOSS_NAMES)
        self.BATCH_SIZE = self.IMAGES_PER_GPU * self.GPU_COUNT
        side = self.IMAGE_MIN_DIM if self.IMAGE_RESIZE_MODE == "crop" else self.IMAGE_MAX_DIM
        if self.IMAGE_RESIZE_MODE == "shortest":
            side = -(-side // self.IMAGE_SIZE_MULTIPLE) * self.IMAGE_SIZE_MULTIPLE
        self.IMAGE_SHAPE = np.array([*(self.IMAGE_RECTANGLE or (side, side)), self.IMAGE_CHANNEL_COUNT])
        self.IMAGE_META_SIZE = _META_SIZE_WITHOUT_CLASSES + self.NUM_CLASSES

    @classmethod
    def fields(cls) -> tuple[str, ...]:
        """Names of the fields, in the order of their declaration (the derived ones left out)."""
        names = (*vars(Config), *vars(Recipe))
        return tuple(name for name in names if name.isupper() and not name.startswith("_"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """A configuration of `cls` with `values` in place of its fields; see `to_dict`.

        Raises:
            ConfigError: a name that is no field, or a value that cannot work.
        """
        unknown = sorted(set(values) - set(cls.fields()) - set(_DERIVED))
        if unknown:
            near = [match for name in unknown for match in difflib.get_close_matches(name.upper(), cls.fields())]
            hint = f" Near: {', '.join(near)}." if near else ""
            raise ConfigError(f"No such field of Config: {', '.join(unknown)}.{hint}")
        own = {}
        for name, value in values.items():
            if name in _DERIVED:
                continue
            own[name] = np.array(value, float, ndmin=1) if isinstance(getattr(cls, name), np.ndarray) else value
        return type(cls.__name__, (cls,), own)()

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values that JSON can hold. A callable is given by its name."""
        return {name: checks.plain(getattr(self, name)) for name in self.fields()}

    def display(self) -> None:
        """Print every attribute, the derived and the user's own ones included."""
        print("\nConfigurations:")
        for name in dir(self):
            if name.startswith("__"):
                continue
            value = getattr(self, name)
            if name.isupper() or not callable(value):
                print(f"{name:30} {value}")
        print("\n")

    def least_scores(self) -> float | Sequence[float] | None:
        """What detections must score: a number for all, or one for each class; None: nothing."""
        by_class = self.DETECTION_CLASS_CONFIDENCE
        return self.DETECTION_MIN_CONFIDENCE if by_class is None else by_class

    def backbone_shapes(self, image_shape: Any) -> np.ndarray:
        """Height and width of each pyramid level, [levels, 2], for an image of `image_shape` (height, width, ...)."""
        if callable(self.BACKBONE) and self.COMPUTE_BACKBONE_SHAPE is not None:
            return np.asarray(self.COMPUTE_BACKBONE_SHAPE(image_shape))
        height, width = int(image_shape[0]), int(image_shape[1])
        return np.array([[math.ceil(height / s), math.ceil(width / s)] for s in self.BACKBONE_STRIDES])

    def validate(self) -> None:
        """Check every field. Called when an instance is made, when a network is built from it and when it is trained.
        Numbers of steps that are no whole ones are rounded up.

        Raises:
            ConfigError: names the field, the value received and what would do.
        """
        for name in ("STEPS_PER_EPOCH", "VALIDATION_STEPS"):
            if (steps := checks.whole(getattr(self, name))) is not getattr(self, name):
                setattr(self, name, steps)
        check_fields(self)

    def _pixels_of_backbone(self) -> dict[str, np.ndarray]:
        """MEAN_PIXEL and STD_PIXEL of a backbone of keras.applications, where nobody has set them."""
        name = application_of(self.BACKBONE)
        if name not in APPLICATIONS or not checks.is_whole(self.IMAGE_CHANNEL_COUNT):
            return {}
        return {
            field: value
            for field, value in pixel_fields(name, self.IMAGE_CHANNEL_COUNT).items()
            if getattr(self, field) is getattr(Config, field) or is_of_a_preset(field, getattr(self, field))
        }

    def _rectangle_of_shape(self) -> tuple[int, int] | None:
        return checks.rectangle_of(getattr(type(self), "IMAGE_SHAPE", None), self.IMAGE_CHANNEL_COUNT)
