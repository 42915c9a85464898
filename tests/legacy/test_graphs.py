"""The graph builders of the original: layer names and weights, and the network put together from them by hand."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from mrcnn import model as modellib
from mrcnn.config import Config
from mrcnn.network import build_network
from tests import golden


class SmallConfig(Config):
    BACKBONE = "resnet14"
    NUM_CLASSES = 4
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    TOP_DOWN_PYRAMID_SIZE = 16
    FPN_CLASSIF_FC_LAYERS_SIZE = 32
    POST_NMS_ROIS_INFERENCE = 20
    DETECTION_MAX_INSTANCES = 6
    DETECTION_MIN_CONFIDENCE = 0


def test_backbone_shapes_golden():
    for case in ("sq128", "rect192x128", "odd"):
        data = golden.part("golden_ops", f"compute_backbone_shapes.{case}")
        shapes = modellib.compute_backbone_shapes(Config(), data["in.image_shape"])
        golden.check(f"compute_backbone_shapes {case}", shapes, data["out"])

    class OwnConfig(Config):
        @staticmethod
        def BACKBONE(image, stage5=True, train_bn=False):
            raise AssertionError("only its shapes are asked for")

        @staticmethod
        def COMPUTE_BACKBONE_SHAPE(image_shape):
            return [[image_shape[0] // 2, image_shape[1] // 2]]

    assert modellib.compute_backbone_shapes(OwnConfig(), (64, 32, 3)).tolist() == [[32, 16]]


def weights_of(model):
    return {f"{layer.name}/{weight.name}": tuple(weight.shape) for layer in model.layers for weight in layer.weights}


def test_resnet_has_the_names_and_weights_of_the_original():
    image = layers.Input((64, 64, 3))
    features = modellib.resnet_graph(image, "resnet50", stage5=True, train_bn=False)
    shapes = [(16, 16, 64), (16, 16, 256), (8, 8, 512), (4, 4, 1024), (2, 2, 2048)]
    assert [tuple(feature.shape[1:]) for feature in features] == shapes
    listed = json.loads((golden.DATA / "weights_flat.json").read_text(encoding="utf-8"))["resnet50_4"]
    assert weights_of(keras.Model(image, features)) == {
        f"{layer}/{name.split('/')[-1].removesuffix(':0')}": tuple(shape)
        for layer, name, shape in listed
        if layer.startswith(("res", "bn", "conv1"))
    }


def test_resnet_without_its_last_stage():
    features = modellib.resnet_graph(layers.Input((64, 64, 3)), "resnet14")
    assert features[4] is None and len(features) == 5
    with pytest.raises(ValueError, match="resnet50.*Received: 'resnet99'"):
        modellib.resnet_graph(layers.Input((64, 64, 3)), "resnet99")


def test_blocks():
    x = layers.Input((8, 8, 12))
    y = modellib.conv_block(x, 3, [4, 6, 16], stage=2, block="a", strides=(1, 1), train_bn=False)
    y = modellib.identity_block(y, 5, [4, 6, 16], 2, "b", use_bias=False)
    z = modellib.conv_block(y, 3, [4, 4, 8], stage=3, block="a")
    assert tuple(y.shape[1:]) == (8, 8, 16)
    assert tuple(z.shape[1:]) == (4, 4, 8)
    model = keras.Model(x, z)
    found = weights_of(model)
    assert found["res2a_branch2b/kernel"] == (3, 3, 4, 6)
    assert found["res2a_branch1/kernel"] == (1, 1, 12, 16)
    assert found["res2b_branch2b/kernel"] == (5, 5, 4, 6)
    assert "res2a_branch2a/bias" in found and "res2b_branch2a/bias" not in found and "res2b_branch1/kernel" not in found
    assert model.get_layer("res2b_out").output is y
    assert model.get_layer("bn2a_branch2c").train_bn is False
    assert model.get_layer("bn3a_branch1").train_bn is True


def test_the_network_put_together_by_hand_is_the_network(rng):
    """What old projects do that change a part of it: the builders, wired as `build_network` does, give the same."""
    config = SmallConfig()
    whole = build_network(config, "inference")
    golden.fill_small(whole)

    image = layers.Input((None, None, 3), name="input_image")
    meta = layers.Input((config.IMAGE_META_SIZE,), name="input_image_meta")
    anchors = layers.Input((None, 4), name="input_anchors")
    _, c2, c3, c4, c5 = modellib.resnet_graph(image, "resnet14", stage5=True, train_bn=config.TRAIN_BN)
    p5 = layers.Conv2D(16, 1, name="fpn_c5p5")(c5)
    p4 = layers.Add()([layers.UpSampling2D(2)(p5), layers.Conv2D(16, 1, name="fpn_c4p4")(c4)])
    p3 = layers.Add()([layers.UpSampling2D(2)(p4), layers.Conv2D(16, 1, name="fpn_c3p3")(c3)])
    p2 = layers.Add()([layers.UpSampling2D(2)(p3), layers.Conv2D(16, 1, name="fpn_c2p2")(c2)])
    maps = [
        layers.Conv2D(16, 3, padding="same", name=f"fpn_p{level}")(p) for level, p in enumerate((p2, p3, p4, p5), 2)
    ]
    rpn_maps = [*maps, layers.MaxPooling2D(1, strides=2)(maps[-1])]
    rpn = modellib.build_rpn_model(config.RPN_ANCHOR_STRIDE, len(config.RPN_ANCHOR_RATIOS), 16)
    _, rpn_class, rpn_bbox = (
        layers.Concatenate(axis=1)(list(part)) for part in zip(*(rpn([p]) for p in rpn_maps), strict=True)
    )
    rois = modellib.ProposalLayer(config.POST_NMS_ROIS_INFERENCE, config.RPN_NMS_THRESHOLD, config, name="ROI")(
        [rpn_class, rpn_bbox, anchors]
    )
    _, probs, deltas = modellib.fpn_classifier_graph(
        rois, maps, meta, config.POOL_SIZE, config.NUM_CLASSES, train_bn=config.TRAIN_BN, fc_layers_size=32
    )
    detections = modellib.DetectionLayer(config, name="mrcnn_detection")([rois, probs, deltas, meta])
    boxes = layers.Lambda(lambda x: x[..., :4])(detections)
    masks = modellib.build_fpn_mask_graph(
        boxes, maps, meta, config.MASK_POOL_SIZE, config.NUM_CLASSES, train_bn=config.TRAIN_BN
    )
    ours = keras.Model([image, meta, anchors], [detections, probs, deltas, masks, rois])
    for layer in ours.layers:
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())

    inputs = [
        rng.normal(0, 50, (2, 64, 64, 3)).astype(np.float32),
        np.stack([modellib.compose_image_meta(0, (64, 64, 3), (64, 64, 3), (0, 0, 64, 64), 1, [0] * 4)] * 2),
        np.stack([anchors_of(config)] * 2),
    ]
    inputs = [ops.convert_to_tensor(array, "float32") for array in inputs]
    for name, actual, expected in zip(
        ("detections", "probabilities", "deltas", "masks", "rois"), ours(inputs), whole(inputs)[:5], strict=True
    ):
        golden.check(f"by hand: {name}", ops.convert_to_numpy(actual), ops.convert_to_numpy(expected), atol=1e-4)


def anchors_of(config):
    from mrcnn import utils

    shapes = modellib.compute_backbone_shapes(config, (64, 64, 3))
    anchors = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, shapes, config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE
    )
    return utils.norm_boxes(anchors, (64, 64))


def test_rpn_graph_is_the_rpn_model():
    feature_map = layers.Input((8, 8, 16))
    by_hand = keras.Model(feature_map, modellib.rpn_graph(feature_map, 3, 2))
    model = modellib.build_rpn_model(2, 3, 16)
    assert weights_of(by_hand) == weights_of(model)
    for layer in model.layers:
        if layer.weights:
            by_hand.get_layer(layer.name).set_weights(layer.get_weights())
    x = ops.ones((1, 8, 8, 16))
    for ours, expected, width in zip(by_hand(x), model(x), (2, 2, 4), strict=True):
        assert tuple(ours.shape) == (1, 48, width)
        np.testing.assert_allclose(ops.convert_to_numpy(ours), ops.convert_to_numpy(expected), atol=1e-6)


def test_heads_need_a_known_number_of_rois():
    maps, meta = [layers.Input((8, 8, 4)) for _ in range(4)], layers.Input((16,))
    with pytest.raises(ValueError, match=r"Input\(\(count, 4\)\)"):
        modellib.fpn_classifier_graph(layers.Input((None, 4)), maps, meta, 7, 4)
