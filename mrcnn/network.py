"""The paper's figure as one function: `build_network(config, mode)`.

Letters: B images, A anchors, R rois, T sampled rois, D detections, K classes (0 is background). Boxes
(y1, x1, y2, x2), *normalized* inside the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from mrcnn.applications import application_of
from mrcnn.config import Config, ConfigError
from mrcnn.data.image_meta import ImageMeta
from mrcnn.layers.anchors import Anchors
from mrcnn.layers.detections import DetectionLayer
from mrcnn.layers.keras_backbone import BackboneError, keras_backbone
from mrcnn.layers.normalization import Norm
from mrcnn.layers.proposals import ProposalLayer
from mrcnn.layers.pyramid import feature_pyramid
from mrcnn.layers.resnet import BACKBONES, Style
from mrcnn.layers.roi_heads import PyramidROIAlign, classifier_head, mask_head
from mrcnn.layers.rpn import region_proposal_network
from mrcnn.layers.targets import DetectionTargetLayer
from mrcnn.losses import LossLayer
from mrcnn.ops.anchors import anchor_arguments
from mrcnn.ops.boxes import normalize_boxes

MODES = ("inference", "training")


def build_network(config: Config, mode: str, model_class: Callable[..., keras.Model] = keras.Model) -> keras.Model:
    """Mask R-CNN (He et al., 2017) with a feature pyramid.

    Args:
        config: the configuration; nothing of it is kept.
        mode: "inference" or "training".
        model_class: what to make of inputs and outputs.

    Returns:
        A functional model.

        Inference: input_image [B, H, W, C], input_image_meta [B, 12 + K], input_anchors [B, A, 4] -> detections
        [B, D, (box, class, score)], mrcnn_class [B, R, K], mrcnn_bbox [B, R, K, 4], mrcnn_mask [B, D, 28, 28, K],
        rpn_rois [B, R, 4], rpn_class [B, A, 2] ([B, A, 1] where RPN_OBJECTNESS is "sigmoid"), rpn_bbox [B, A, 4].

        Training: input_image, input_image_meta, input_rpn_match [B, A, 1] int32, input_rpn_bbox [B, rows, 4],
        input_gt_class_ids [B, G] int32, input_gt_boxes [B, G, 4] in pixels, input_gt_masks [B, h, w, G] bool (and
        input_roi [B, R, 4] int32 in pixels without USE_RPN_ROIS) -> rpn_class_logits, rpn_class, rpn_bbox,
        mrcnn_class_logits, mrcnn_class, mrcnn_bbox, mrcnn_mask, rpn_rois, output_rois and the five losses.

    Raises:
        ConfigError: a configuration that cannot work.
        ValueError: an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}. Received: {mode!r}.")
    config.validate()
    return (_build_inference if mode == "inference" else _build_training)(config, model_class)


def _build_inference(config: Config, model_class: Callable[..., keras.Model]) -> keras.Model:
    image = layers.Input((None, None, config.IMAGE_CHANNEL_COUNT), name="input_image")
    image_meta = layers.Input((ImageMeta.size(config.NUM_CLASSES),), name="input_image_meta")
    anchors = layers.Input((None, 4), name="input_anchors")
    meta = ImageMeta.parse(image_meta)
    image_shape = meta["image_shape"][:, :2]
    window = normalize_boxes(meta["window"], image_shape, config.BOX_GRID)

    pyramid, rpn = _trunk(config, image)
    rpn_rois = _propose(config, config.POST_NMS_ROIS_INFERENCE, config.PRE_NMS_LIMIT, rpn, anchors, window, image_shape)
    _, mrcnn_class, mrcnn_bbox = _classify(config, rpn_rois, image_shape, pyramid)
    detections = DetectionLayer(
        config.DETECTION_MAX_INSTANCES,
        config.least_scores(),
        config.DETECTION_NMS_THRESHOLD,
        config.BBOX_STD_DEV,
        config.DETECTION_NMS_CLASS_AGNOSTIC,
        config.BBOX_LOG_LIMIT,
        config.DETECTION_MIN_SIZE,
        bool(config.DETECTION_ALL_CLASSES),
        name="mrcnn_detection",
    )(rpn_rois, mrcnn_class, mrcnn_bbox, window, None if config.DETECTION_MIN_SIZE is None else image_shape)
    mrcnn_mask = _segment(config, detections[..., :4], image_shape, pyramid)
    return model_class(
        inputs=[image, image_meta, anchors],
        outputs=[detections, mrcnn_class, mrcnn_bbox, mrcnn_mask, rpn_rois, rpn[1], rpn[2]],
        name="mask_rcnn",
    )


def _build_training(config: Config, model_class: Callable[..., keras.Model]) -> keras.Model:
    height, width = _training_size(config)
    masks_shape = tuple(config.MINI_MASK_SHAPE) if config.USE_MINI_MASK else (height, width)
    count = config.MAX_GT_INSTANCES
    inputs = [
        image := layers.Input((height, width, config.IMAGE_CHANNEL_COUNT), name="input_image"),
        image_meta := layers.Input((ImageMeta.size(config.NUM_CLASSES),), name="input_image_meta"),
        rpn_match := layers.Input((None, 1), name="input_rpn_match", dtype="int32"),
        target_rpn_bbox := layers.Input((config.RPN_TRAIN_ANCHORS_PER_IMAGE, 4), name="input_rpn_bbox"),
        gt_class_ids := layers.Input((count,), name="input_gt_class_ids", dtype="int32"),
        gt_boxes := layers.Input((count, 4), name="input_gt_boxes"),
        gt_masks := layers.Input((*masks_shape, count), name="input_gt_masks", dtype="bool"),
    ]
    meta = ImageMeta.parse(image_meta)
    image_shape = meta["image_shape"][:, :2]

    pyramid, rpn = _trunk(config, image)
    rpn_class_logits, rpn_class, rpn_bbox, _ = rpn
    size = (height, width)
    anchors = Anchors(
        **anchor_arguments(config, size), image_shape=size, grid=config.BOX_GRID, name="anchors"
    )(image)  # fmt: skip
    window = normalize_boxes(meta["window"], image_shape, config.BOX_GRID)
    limit = config.PRE_NMS_LIMIT_TRAINING or config.PRE_NMS_LIMIT
    rpn_rois = _propose(config, config.POST_NMS_ROIS_TRAINING, limit, rpn, anchors, window, image_shape)
    candidates = rpn_rois
    if not config.USE_RPN_ROIS:
        inputs.append(layers.Input((config.POST_NMS_ROIS_TRAINING, 4), name="input_roi", dtype="int32"))
        candidates = normalize_boxes(inputs[-1], size, config.BOX_GRID)

    target_layer = DetectionTargetLayer(
        config.TRAIN_ROIS_PER_IMAGE, config.ROI_POSITIVE_RATIO, config.MASK_SHAPE, config.BBOX_STD_DEV,
        use_mini_masks=config.USE_MINI_MASK, fill_negatives=config.ROI_FILL_NEGATIVES,
        stop_gradient=config.STOP_PROPOSAL_GRADIENT, add_gt_boxes=bool(config.ROI_ADD_GT_BOXES),
        mask_targets=config.MASK_TARGETS, seed=config.SEED, name="proposal_targets",
    )  # fmt: skip
    rois, target_class_ids, target_bbox, target_mask = target_layer(
        candidates, gt_class_ids, normalize_boxes(gt_boxes, size, config.BOX_GRID), gt_masks
    )
    class_logits, mrcnn_class, mrcnn_bbox = _classify(config, rois, image_shape, pyramid)
    most = target_layer.max_positives  # these come first, and only they have a mask loss
    if config.MASK_HEAD_POSITIVES_ONLY:
        masks = _segment(config, rois[:, :most], image_shape, pyramid)
        mrcnn_mask = ops.pad(masks, [[0, 0], [0, config.TRAIN_ROIS_PER_IMAGE - most], [0, 0], [0, 0], [0, 0]])
    else:
        mrcnn_mask = _segment(config, rois, image_shape, pyramid)
        masks = mrcnn_mask[:, :most]

    class_loss = {
        "per_image": config.ACTIVE_CLASSES_PER_IMAGE,
        "class_weights": None if config.CLASS_WEIGHTS is None else [float(weight) for weight in config.CLASS_WEIGHTS],
        "focal_gamma": float(config.FOCAL_GAMMA),
    }
    rpn_box_loss = {"beta": float(config.RPN_BBOX_LOSS_BETA), "over_samples": bool(config.BBOX_LOSS_OVER_SAMPLES)}
    box_loss = {"beta": float(config.BBOX_LOSS_BETA)}
    # What else a loss is given, where all that was sampled counts.
    class_rois = [rois] if config.CLASS_LOSS_ALL_CLASSES else []
    box_rois = [rois] if config.BBOX_LOSS_OVER_SAMPLES else []
    active = meta["active_class_ids"]
    losses = [
        LossLayer("rpn_class_loss")(rpn_match, rpn_class_logits),
        LossLayer("rpn_bbox_loss", rpn_box_loss)(target_rpn_bbox, rpn_match, rpn_bbox),
        LossLayer("mrcnn_class_loss", class_loss)(target_class_ids, class_logits, active, *class_rois),
        LossLayer("mrcnn_bbox_loss", box_loss)(target_bbox, target_class_ids, mrcnn_bbox, *box_rois),
        LossLayer("mrcnn_mask_loss")(target_mask[:, :most], target_class_ids[:, :most], masks),
    ]
    output_rois = layers.Identity(name="output_rois", dtype="float32")(rois)
    outputs = [
        rpn_class_logits,
        rpn_class,
        rpn_bbox,
        class_logits,
        mrcnn_class,
        mrcnn_bbox,
        mrcnn_mask,
        rpn_rois,
    ]
    return model_class(inputs=inputs, outputs=[*outputs, output_rois, *losses], name="mask_rcnn")


def _trunk(config: Config, image: Any) -> tuple[list[Any], tuple[Any, Any, Any, list[Any]]]:
    """Image -> P2..P5, which the heads see, and the RPN's outputs over those of P2..P6 that have anchors (see
    `region_proposal_network`)."""
    features = _features(config, image)
    norm = _norm(config, "pyramid")
    pyramid = feature_pyramid(features, config.TOP_DOWN_PYRAMID_SIZE, norm, bool(config.CONV_BIAS or not norm))
    # legacy: the original's RPN looked at all levels; what it proposed on those without anchors were boxes of no size.
    searched = pyramid[: len(config.RPN_ANCHOR_SCALES)]
    rpn = region_proposal_network(
        searched, config.RPN_ANCHOR_STRIDE, len(config.RPN_ANCHOR_RATIOS), config.RPN_CONV_SIZE, config.RPN_CONV_DEPTH,
        config.RPN_OBJECTNESS,
    )  # fmt: skip
    return pyramid[:4], rpn


def _features(config: Config, image: Any) -> list[Any]:
    """Image -> C2..C5."""
    if callable(config.BACKBONE):
        return config.BACKBONE(image, stage5=True, train_bn=config.TRAIN_BN)[1:]
    norm = _norm(config, "backbone")
    application = application_of(config.BACKBONE)
    if application is not None:
        try:
            return keras_backbone(image, application, config.TRAIN_BN, frozen=norm.kind == "frozen")
        except BackboneError as error:
            raise ConfigError(f"BACKBONE {config.BACKBONE!r} will not do: {error}") from error
    style = Style(norm, bool(config.CONV_BIAS), bool(config.RESNET_STRIDE_IN_3X3), bool(config.SYMMETRIC_PADDING))
    return BACKBONES[config.BACKBONE](image, style=style)[1:]


def _norm(config: Config, part: str) -> Norm:
    """The normalization in a part of the network, of `mrcnn.recipe.NORM_PARTS`."""
    kind = config.NORM if part in config.NORM_PARTS else None
    return Norm(kind, config.TRAIN_BN, config.NORM_EPSILON)


def _propose(
    config: Config, count: int, limit: int, rpn: tuple[Any, Any, Any, list[Any]], anchors: Any, window: Any, shape: Any
) -> Any:
    """Proposals [B, R, 4] of the RPN's outputs; `window` [B, 4] and `shape` [B, 2] are those of the images."""
    logits, probabilities, deltas, levels = rpn
    # Ranked by logits where these are a number each: probabilities near 1 are alike in float32.
    scores = logits if config.RPN_OBJECTNESS == "sigmoid" else probabilities
    return ProposalLayer(
        count, config.RPN_NMS_THRESHOLD, limit, config.RPN_BBOX_STD_DEV, config.BBOX_LOG_LIMIT, config.RPN_MIN_SIZE,
        name="ROI",
    )(
        scores, deltas, anchors, window if config.RPN_CLIP_TO_IMAGE else None,
        None if config.RPN_MIN_SIZE is None else shape, levels if config.RPN_PER_LEVEL else None,
    )  # fmt: skip


def _align(config: Config, size: int, name: str) -> PyramidROIAlign:
    return PyramidROIAlign([size] * 2, config.ROI_ALIGN, config.ROI_SAMPLING_RATIO, config.ROI_LEVELS, name=name)


def _classify(config: Config, rois: Any, image_shape: Any, pyramid: list[Any]) -> tuple[Any, Any, Any]:
    pooled = _align(config, config.POOL_SIZE, "roi_align_classifier")(rois, image_shape, pyramid)
    return classifier_head(
        pooled, config.NUM_CLASSES, hidden_size=config.FPN_CLASSIF_FC_LAYERS_SIZE, hidden_layers=config.BOX_HEAD_FCS,
        hidden_norm=_norm(config, "box_fcs"), convs=config.BOX_HEAD_CONVS, conv_size=config.BOX_HEAD_CONV_SIZE,
        conv_norm=_norm(config, "box_convs"), use_bias=bool(config.CONV_BIAS),
    )  # fmt: skip


def _segment(config: Config, rois: Any, image_shape: Any, pyramid: list[Any]) -> Any:
    pooled = _align(config, config.MASK_POOL_SIZE, "roi_align_mask")(rois, image_shape, pyramid)
    return mask_head(
        pooled, config.NUM_CLASSES, width=config.MASK_CONV_SIZE, norm=_norm(config, "mask_convs"),
        use_bias=bool(config.CONV_BIAS),
    )  # fmt: skip


def _training_size(config: Config) -> tuple[int, int]:
    """Height and width of training images: fixed, for the anchors and their targets are."""
    height, width = tuple(config.IMAGE_SHAPE)[:2]
    if height is None or width is None:
        raise ConfigError("Training needs images of one size. Received: IMAGE_MAX_DIM None. Set it.")
    height, width = int(height), int(width)
    multiple = config.IMAGE_SIZE_MULTIPLE
    if height % multiple or width % multiple:
        raise ConfigError(
            f"Training images must have sides that are multiples of {multiple}. Received: {height} x {width} "
            "(Config.IMAGE_SHAPE). Set IMAGE_MAX_DIM (IMAGE_MIN_DIM for IMAGE_RESIZE_MODE 'crop') accordingly."
        )
    return height, width
