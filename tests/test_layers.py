"""Single layers of the network: golden numbers on every backend, empty and odd cases."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn.layers.detections import DetectionLayer
from mrcnn.layers.normalization import BatchNorm
from mrcnn.layers.proposals import ProposalLayer
from mrcnn.layers.roi_heads import PyramidROIAlign
from mrcnn.layers.targets import DetectionTargetLayer
from mrcnn.ops.boxes import clip_boxes, compute_overlaps, decode_deltas, normalize_boxes
from tests import golden

pytestmark = pytest.mark.backends


def tensors(*arrays):
    return [ops.convert_to_tensor(array) for array in arrays]


@pytest.mark.parametrize("case", ["prelimit", "full", "padded", "tied_scores"])
def test_proposals_golden(case):
    data = golden.part("layers_proposal", case)
    layer = ProposalLayer(
        int(data["cfg.proposal_count"]), float(data["cfg.nms_threshold"]), int(data["cfg.PRE_NMS_LIMIT"])
    )
    actual = layer(*tensors(data["in.rpn_probs"], data["in.rpn_bbox"], data["in.anchors"]))
    golden.check(f"proposals {case}", ops.convert_to_numpy(actual), data["out"], atol=1e-6)


@pytest.mark.parametrize("case", ["default", "noconf", "max10", "nms.7", "all_background", "tied"])
def test_detections_golden(case):
    data = golden.part("layers_detection", case)
    layer = DetectionLayer(
        int(data["cfg.DETECTION_MAX_INSTANCES"]), float(data["cfg.DETECTION_MIN_CONFIDENCE"]),
        float(data["cfg.DETECTION_NMS_THRESHOLD"]),
    )  # fmt: skip
    meta = ops.convert_to_tensor(data["in.image_meta"])
    window = normalize_boxes(meta[:, 7:11], meta[:, 4:6])
    actual = layer(*tensors(data["in.rois"], data["in.mrcnn_class"], data["in.mrcnn_bbox"]), window)
    golden.check(f"detections {case}", ops.convert_to_numpy(actual), data["out"], atol=1e-6)


def slow_detections(rois, probabilities, deltas, window, most, least, threshold, class_agnostic):
    """One image's, box by box."""
    classes, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    boxes = decode_deltas(rois, deltas[np.arange(len(rois)), classes] * np.array([0.1, 0.1, 0.2, 0.2], np.float32))
    boxes, kept = clip_boxes(boxes, window), []
    for i in np.argsort(-scores, kind="stable"):
        rivals = [j for j in kept if class_agnostic or classes[i] == classes[j]]
        sure = scores[i] >= np.broadcast_to(np.float32(least), probabilities.shape[1])[classes[i]]
        alone = not rivals or compute_overlaps(boxes[[i]], boxes[rivals]).max() <= threshold
        if classes[i] > 0 and sure and alone:
            kept.append(i)
    kept = kept[:most]
    rows = np.zeros((most, 6), np.float32)
    rows[: len(kept)] = np.column_stack([boxes[kept], classes[kept], scores[kept]])
    return rows


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("least", [0.35, [0.9, 0.3, 0.8, 0.6]], ids=["one", "by class"])
def test_detections_across_classes_and_with_least_scores_by_class(least, class_agnostic, rng):
    corners = rng.random((2, 60, 2)) * 0.7
    rois = np.concatenate([corners, corners + rng.uniform(0.1, 0.3, (2, 60, 2))], axis=-1).astype(np.float32)
    probabilities = rng.dirichlet(np.full(4, 0.5), (2, 60)).astype(np.float32)
    deltas = rng.normal(0, 0.3, (2, 60, 4, 4)).astype(np.float32)
    window = np.array([[0, 0, 1, 1], [0.1, 0.2, 0.9, 0.8]], np.float32)
    layer = DetectionLayer(50, least, 0.3, class_agnostic=class_agnostic)
    actual = ops.convert_to_numpy(layer(*tensors(rois, probabilities, deltas, window)))
    images = list(zip(rois, probabilities, deltas, window, strict=True))
    expected = [slow_detections(*image, 50, least, 0.3, class_agnostic) for image in images]
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    plain = [slow_detections(*image, 50, 0.35, 0.3, False) for image in images]
    assert np.array_equal(expected, plain) == (least == 0.35 and not class_agnostic)


def sort_rows(rois, class_ids, deltas, masks):
    """One image's targets in the order of the golden `sorted` arrays: by class, then by box."""
    order = np.lexsort([*rois.T[::-1], class_ids])
    return rois[order], class_ids[order], deltas[order], masks[order]


TARGET_CASES = [
    "mini_identity", "mini_nosubsample", "full_mask_identity", "full_mask_nosubsample", "crowd_nosubsample",
    "no_positive", "no_gt",
]  # fmt: skip


@pytest.mark.parametrize("case", TARGET_CASES)
def test_targets_golden(case):
    data = golden.part("layers_detection_target", case)
    identity = bool(data["cfg.identity_shuffle"])
    layer = DetectionTargetLayer(
        int(data["cfg.TRAIN_ROIS_PER_IMAGE"]), float(data["cfg.ROI_POSITIVE_RATIO"]), data["cfg.MASK_SHAPE"],
        use_mini_masks=bool(data["cfg.USE_MINI_MASK"]), shuffle=not identity, seed=0,
    )  # fmt: skip
    actual = layer(*tensors(data["in.proposals"], data["in.gt_class_ids"], data["in.gt_boxes"], data["in.gt_masks"]))
    actual = [ops.convert_to_numpy(a) for a in actual]
    names = ("rois", "target_class_ids", "target_deltas", "target_mask")
    if identity:
        for name, value in zip(names, actual, strict=True):
            golden.check(f"targets {case} {name}", value, data[f"out.{name}"], atol=1e-5)
    else:  # the same rows, in an order of our own
        for image in range(2):
            expected = sort_rows(*(data[f"sorted{image}.{name}"] for name in names))
            ours = sort_rows(*(value[image] for value in actual))
            for name, value, wanted in zip(names, ours, expected, strict=True):
                golden.check(f"targets {case} image {image} {name}", value, wanted, atol=1e-5)


def target_inputs():
    gt_boxes = np.zeros((1, 3, 4), np.float32)
    gt_boxes[0, 0] = [0.1, 0.1, 0.5, 0.5]
    shifts = np.linspace(-0.3, 0.4, 50, dtype=np.float32)
    proposals = gt_boxes[:, :1] + shifts[None, :, None]
    return proposals, np.array([[2, 0, 0]], np.int32), gt_boxes, np.ones((1, 56, 56, 3), bool)


def test_targets_fill_with_negatives_when_told():
    proposals, class_ids, gt_boxes, masks = target_inputs()
    nothing = np.zeros_like(class_ids)
    for fill, expected in ((False, 0), (True, 20)):
        layer = DetectionTargetLayer(20, 0.33, fill_negatives=fill, seed=0)
        rois, ids, deltas, _ = layer(*tensors(proposals, nothing, gt_boxes, masks))
        assert np.any(ops.convert_to_numpy(rois)[0] != 0, axis=-1).sum() == expected
        assert not ops.convert_to_numpy(ids).any() and not ops.convert_to_numpy(deltas).any()


def test_targets_are_random_but_for_the_seed():
    proposals, class_ids, gt_boxes, masks = target_inputs()
    chosen = [
        ops.convert_to_numpy(
            DetectionTargetLayer(10, 0.2, seed=seed)(*tensors(proposals, class_ids, gt_boxes, masks))[0]
        )
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])


def test_batch_norm_of_a_frozen_layer(rng):
    x = rng.normal(3, 2, (4, 5, 5, 2)).astype(np.float32)
    by_batch = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)
    for train_bn, expected in ((True, by_batch), (None, x / np.sqrt(1 + 1e-3))):
        layer = BatchNorm(train_bn, trainable=False)
        actual = layer(ops.convert_to_tensor(x), training=True)
        np.testing.assert_allclose(ops.convert_to_numpy(actual), expected, atol=1e-5)


def test_roi_align_keeps_its_coordinates_in_mixed_precision():
    """On a map whose value is its column, a sample tells where it was taken: a bfloat16 would be off by pixels."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.float32)[None, None, :, None], (1, 256, 256, 1))
    maps = [ops.convert_to_tensor(ramp[:, :: 2**i, :: 2**i]) for i in range(4)]
    boxes = ops.convert_to_tensor(np.array([[[0.1, 0.60123, 0.15, 0.65123]]], np.float32))
    layer = PyramidROIAlign((2, 2), dtype="mixed_bfloat16")
    pooled = ops.convert_to_numpy(layer(boxes, ops.convert_to_tensor([[1024.0, 1024.0]]), maps))
    np.testing.assert_allclose(pooled[0, 0, 0, :, 0], [0.60123 * 255, 0.65123 * 255], atol=1e-3)


def test_a_mismatch_of_anchors_and_scores_is_told():
    with pytest.raises(ValueError, match="There are 12 anchors, and the RPN scored 9 places"):
        ProposalLayer(5, 0.7)(
            *tensors(np.zeros((1, 9, 2), "f4"), np.zeros((1, 9, 4), "f4"), np.zeros((1, 12, 4), "f4"))
        )


def test_targets_of_a_ground_truth_box_without_area_are_finite():
    proposals, class_ids, gt_boxes, masks = target_inputs()
    class_ids[0, :2], gt_boxes[0, 0] = [0, 1], [0.3, 0.3, 0.3, 0.3]
    for value in DetectionTargetLayer(10, 0.5, seed=0)(*tensors(proposals, class_ids, gt_boxes, masks)):
        assert np.isfinite(ops.convert_to_numpy(value)).all()


@pytest.mark.parametrize("train_bn", [False, None, True])
def test_batch_norm_modes(train_bn, rng):
    x = rng.normal(3, 2, (4, 5, 5, 2)).astype(np.float32)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))  # the biased variance
    by_batch, by_store = (x - mean) / np.sqrt(variance + 1e-3), x / np.sqrt(1 + 1e-3)
    for training in (False, True):
        expected = by_batch if (training if train_bn is None else train_bn) else by_store
        actual = BatchNorm(train_bn)(ops.convert_to_tensor(x), training=training)
        np.testing.assert_allclose(ops.convert_to_numpy(actual), expected, atol=1e-5)


def test_keras_layers_do_what_the_original_relies_on_golden():
    data = golden.load("layers_functions")
    x = ops.convert_to_tensor(data["keras.in.x"])
    pooled = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
    golden.check("max-pool 3x3/2 same", ops.convert_to_numpy(pooled), data["keras.out.maxpool3s2_same"])
    pooled = keras.layers.MaxPooling2D(1, strides=2)(x)
    golden.check("max-pool 1x1/2", ops.convert_to_numpy(pooled), data["keras.out.maxpool1s2"])
    upsampled = keras.layers.UpSampling2D(2)(x)
    golden.check("upsampling x2", ops.convert_to_numpy(upsampled), data["keras.out.upsample2"])
    layer = keras.layers.Conv2DTranspose(5, 2, strides=2, activation="relu")
    layer.build(x.shape)
    layer.set_weights([data["keras.in.deconv_kernel"], data["keras.in.deconv_bias"]])
    golden.check("transposed convolution", ops.convert_to_numpy(layer(x)), data["keras.out.deconv2s2_relu"], atol=1e-5)
    layer = keras.layers.Conv2D(4, 3, strides=2, padding="same")
    layer.build(x.shape)
    layer.set_weights([data["keras.in.conv_kernel"], data["keras.in.conv_bias"]])
    golden.check("convolution 3x3/2 same", ops.convert_to_numpy(layer(x)), data["keras.out.conv3s2_same"], atol=1e-5)
    layer = BatchNorm(False)
    layer.build(x.shape)
    layer.set_weights(list(data["keras.in.bn_gamma_beta_mean_var"]))
    golden.check("batch norm", ops.convert_to_numpy(layer(x)), data["keras.out.batchnorm_eps1e-3"], atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        ProposalLayer(5, 0.7, 10, name="ROI"),
        DetectionLayer(5, 0.5, 0.3, name="mrcnn_detection"),
        DetectionLayer(5, np.array([0, 0.5, 0.2]), 0.3, class_agnostic=True, name="mrcnn_detection"),
        PyramidROIAlign((7, 7), name="roi_align_classifier"),
        DetectionTargetLayer(10, 0.5, seed=3, name="proposal_targets"),
        BatchNorm(None, name="bn"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_are_rebuilt_from_their_config(layer):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
