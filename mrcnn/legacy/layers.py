"""The layers of the original: made from a configuration, called with one list of tensors.

Letters: B images, R rois, D detections, K classes (0 is background). Boxes (y1, x1, y2, x2), *normalized*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from mrcnn.config import Config
from mrcnn.data.image_meta import ImageMeta
from mrcnn.layers import detections, normalization, proposals, roi_heads, targets
from mrcnn.ops.boxes import normalize_boxes


@keras.saving.register_keras_serializable("mrcnn.legacy")
class BatchNorm(normalization.BatchNorm):
    """Batch normalization that is told at its call which statistics to take, as backbones of old projects do:
    `BatchNorm(name="bn")(x, training=train_bn)`.

    In a graph the answer of the call is kept: False, the stored statistics always; True, the batch's always; None, as
    the phase says.
    """

    def __init__(self, train_bn: bool | None = None, **kwargs: Any) -> None:
        super().__init__(train_bn, **kwargs)

    def __call__(self, inputs: Any, training: bool | None = None, **kwargs: Any) -> Any:
        # A functional model overrules what its layers were called with, by its own phase.
        if training is not None and isinstance(inputs, keras.KerasTensor):
            self.train_bn = bool(training)
        return super().__call__(inputs, training=training, **kwargs)


class _OfOneList:
    """A layer whose `call` takes one list, with a configuration that it is saved with."""

    config: Config

    def compute_output_shape(self, input_shape: Sequence[Sequence[int | None]]) -> Any:
        spec = self.compute_output_spec([keras.KerasTensor(shape, "float32") for shape in input_shape])
        return [one.shape for one in spec] if isinstance(spec, tuple | list) else spec.shape

    def get_config(self) -> dict[str, Any]:
        kept = {name: value for name, value in super().get_config().items() if name in ("name", "trainable", "dtype")}
        return {**kept, "config": self.config.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = {**config}
        if isinstance(config.get("config"), dict):
            config["config"] = Config.from_dict(config["config"])
        return super().from_config(config)


@keras.saving.register_keras_serializable("mrcnn.legacy")
class ProposalLayer(_OfOneList, proposals.ProposalLayer):
    """`ProposalLayer(count, threshold, config)([rpn_probs [B, A, 2], rpn_bbox [B, A, 4], anchors [B, A, 4]])` ->
    proposals [B, count, 4], zero-padded; PRE_NMS_LIMIT and RPN_BBOX_STD_DEV are read."""

    def __init__(self, proposal_count: int, nms_threshold: float, config: Config | None = None, **kwargs: Any) -> None:
        config = _config(config)
        super().__init__(proposal_count, nms_threshold, config.PRE_NMS_LIMIT, config.RPN_BBOX_STD_DEV, **kwargs)
        self.config = config

    def call(self, inputs: Sequence[Any]) -> Any:
        return super().call(*inputs)

    def compute_output_spec(self, inputs: Sequence[Any]) -> Any:
        return super().compute_output_spec(*inputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "proposal_count": self.proposal_count,
            "nms_threshold": self.nms_threshold,
        }


@keras.saving.register_keras_serializable("mrcnn.legacy")
class PyramidROIAlign(roi_heads.PyramidROIAlign):
    """`PyramidROIAlign(pool_shape)([boxes [B, R, 4], image_meta [B, 12 + K], P2, P3, P4, P5])` ->
    [B, R, pool height, pool width, C]."""

    def call(self, inputs: Sequence[Any]) -> Any:
        boxes, image_meta, *feature_maps = inputs
        return super().call(boxes, ImageMeta.parse(image_meta)["image_shape"][:, :2], feature_maps)

    def compute_output_spec(self, inputs: Sequence[Any]) -> Any:
        boxes, image_meta, *feature_maps = inputs
        return super().compute_output_spec(boxes, image_meta, feature_maps)

    compute_output_shape = _OfOneList.compute_output_shape


@keras.saving.register_keras_serializable("mrcnn.legacy")
class DetectionTargetLayer(_OfOneList, targets.DetectionTargetLayer):
    """`DetectionTargetLayer(config)([proposals [B, R, 4], gt_class_ids [B, G], gt_boxes [B, G, 4], gt_masks
    [B, h, w, G]])` -> rois [B, T, 4], class ids [B, T], deltas [B, T, 4], masks [B, T, mask height, mask width]."""

    def __init__(self, config: Config, **kwargs: Any) -> None:
        super().__init__(**target_options(config), **{"seed": config.SEED, **kwargs})
        self.config = config

    def call(self, inputs: Sequence[Any]) -> list[Any]:
        return list(super().call(*inputs))

    def compute_output_spec(self, inputs: Sequence[Any]) -> list[Any]:
        return list(super().compute_output_spec(*inputs))

    def compute_mask(self, inputs: Any, mask: Any = None) -> list[None]:
        return [None, None, None, None]


@keras.saving.register_keras_serializable("mrcnn.legacy")
class DetectionLayer(_OfOneList, detections.DetectionLayer):
    """`DetectionLayer(config)([rois [B, R, 4], probabilities [B, R, K], deltas [B, R, K, 4], image_meta])` ->
    [B, D, (y1, x1, y2, x2, class, score)], zero-padded."""

    def __init__(self, config: Config | None = None, **kwargs: Any) -> None:
        config = _config(config)
        super().__init__(**detection_options(config), **kwargs)
        self.config = config

    def call(self, inputs: Sequence[Any]) -> Any:
        rois, probabilities, deltas, image_meta = inputs
        meta = ImageMeta.parse(image_meta)
        return super().call(rois, probabilities, deltas, normalize_boxes(meta["window"], meta["image_shape"][:, :2]))

    def compute_output_spec(self, inputs: Sequence[Any]) -> Any:
        return super().compute_output_spec(*inputs)


def _config(config: Config | None) -> Config:
    return Config() if config is None else config


def target_options(config: Config) -> dict[str, Any]:
    """What a configuration says about the targets of the heads, as arguments of `layers.targets`."""
    return {
        "rois_per_image": config.TRAIN_ROIS_PER_IMAGE,
        "positive_ratio": config.ROI_POSITIVE_RATIO,
        "mask_shape": config.MASK_SHAPE,
        "bbox_std_dev": config.BBOX_STD_DEV,
        "use_mini_masks": config.USE_MINI_MASK,
        "fill_negatives": config.ROI_FILL_NEGATIVES,
        "stop_gradient": config.STOP_PROPOSAL_GRADIENT,
    }


def detection_options(config: Config) -> dict[str, Any]:
    """What a configuration says about detections, as arguments of `layers.detections`."""
    return {
        "max_instances": config.DETECTION_MAX_INSTANCES,
        "min_confidence": config.least_scores(),
        "nms_threshold": config.DETECTION_NMS_THRESHOLD,
        "bbox_std_dev": config.BBOX_STD_DEV,
        "class_agnostic": config.DETECTION_NMS_CLASS_AGNOSTIC,
    }
