"""The whole network as an ONNX graph, run by OpenVINO and ONNX Runtime, against Keras."""

from __future__ import annotations

from functools import cache

import numpy as np
import openvino
import pytest
from keras import layers

from mrcnn.engines.base import EngineError
from mrcnn.engines.onnxruntime_engine import ONNXRuntimeEngine
from mrcnn.engines.openvino_engine import OpenVINOEngine
from mrcnn.graph.builder import GraphBuilder
from mrcnn.graph.names import FLOAT32_PREFIX
from mrcnn.graph.network import _Parts, network_graph
from mrcnn.layers.normalization import BatchNorm
from mrcnn.network import build_network
from mrcnn.ops.boxes import compute_overlaps
from mrcnn.ops.roi_align import pyramid_roi_align
from tests import golden
from tests.backbones import five_convolutions
from tests.graph.cases import build, check, config_of, graph_bytes, inputs, keras_raw, pictures, small
from tests.running import call

ENGINES = {"openvino": lambda model: OpenVINOEngine(model, "float32"), "onnxruntime": ONNXRuntimeEngine}


def check_engines(config, network, arrays, least=10):
    """Both runtimes give what Keras gives; how many detections that is for each image."""
    expected = keras_raw(network, arrays)
    model = graph_bytes(network, config)
    for name, make in ENGINES.items():
        found = make(model).run(*arrays)
        print(name)
        check(expected, found, arrays[0].shape[1:3], least)
        for (detections, masks), (_, old_masks) in zip(found, expected, strict=True):
            assert detections.dtype == masks.dtype == np.float32 and masks.shape[1:] == old_masks.shape[1:]
            assert (np.diff(detections[:, 5]) <= 0).all()
    return [len(detections) for detections, _ in expected]


def test_two_images_that_are_not_square():
    config, network = small()
    counts = check_engines(config, network, inputs(config, pictures(2, 128, 192)))
    assert counts == [30, 30]


def test_images_of_other_sizes_in_one_batch():
    """Each image has a window of its own: its detections end there."""
    config = config_of(IMAGE_RESIZE_MODE="square", IMAGE_MIN_DIM=128, IMAGE_MAX_DIM=128)
    network = build(config)
    images = [pictures(1, 128, 64)[0], pictures(1, 80, 128, seed=1)[0], pictures(1, 128, 128, seed=2)[0]]
    arrays = inputs(config, images)
    check_engines(config, network, arrays)
    for (detections, _), meta in zip(
        OpenVINOEngine(graph_bytes(network, config), "float32").run(*arrays), arrays[1], strict=True
    ):
        low, high = (meta[7:9] / 127, (meta[9:11] - 1) / 127)
        assert (detections[:, :2] >= low - 1e-6).all() and (detections[:, 2:4] <= high + 1e-6).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"BACKBONE": "resnet50", "NUM_CLASSES": 21},
        {"NUM_CLASSES": 2, "DETECTION_MIN_CONFIDENCE": None},
        {"DETECTION_MAX_INSTANCES": 5, "DETECTION_NMS_THRESHOLD": 0.9, "RPN_NMS_THRESHOLD": 0.3},
        {"PRE_NMS_LIMIT": 40, "POST_NMS_ROIS_INFERENCE": 20, "DETECTION_NMS_THRESHOLD": 0.9,
         "RPN_ANCHOR_SCALES": (16, 32, 64)},
        {"IMAGE_CHANNEL_COUNT": 1, "MEAN_PIXEL": np.array([120.0]), "POOL_SIZE": 5, "MASK_POOL_SIZE": 6,
         "MASK_SHAPE": [12, 12]},
        {"IMAGE_CHANNEL_COUNT": 4, "MEAN_PIXEL": np.array([120.0, 110, 100, 90]), "RPN_ANCHOR_STRIDE": 2,
         "RPN_ANCHOR_RATIOS": [1, 2], "BBOX_STD_DEV": np.array([0.2, 0.2, 0.1, 0.1])},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_configurations(changes):
    config = config_of(**changes)
    arrays = inputs(config, pictures(1, 128, 192, config.IMAGE_CHANNEL_COUNT))
    (count,) = check_engines(config, build(config), arrays, least=2)
    assert count == config.DETECTION_MAX_INSTANCES or count >= 10


def test_scores_that_are_all_alike():
    """Ties go to the better proposal in both."""
    config = config_of(DETECTION_MAX_INSTANCES=10, IMAGE_MAX_DIM=128)
    network = build(config, sure=50.0)
    arrays = inputs(config, pictures(1, 128, 128))
    ((detections, _),) = keras_raw(network, arrays)
    assert (detections[:, 5] == 1).all() and len(detections) == 10
    check_engines(config, network, arrays, least=7)


def test_a_confidence_that_leaves_one_detection_and_one_that_leaves_none():
    config, network = small()
    arrays = inputs(config, pictures(2, 128, 192))
    scores = np.sort(np.concatenate([detections[:, 5] for detections, _ in keras_raw(network, arrays)]))
    for confidence, left in (((scores[-1] + scores[-2]) / 2, 1), (1.0, 0)):
        strict = config_of(DETECTION_MIN_CONFIDENCE=float(confidence))
        model = graph_bytes(network, strict)
        for make in ENGINES.values():
            found = make(model).run(*arrays)
            assert sum(len(detections) for detections, _ in found) == left
            assert all(d.shape[1:] == (6,) and m.shape[1:] == (28, 28) for d, m in found)
            assert all(len(d) == len(m) for d, m in found)


def test_suppression_across_classes_and_least_scores_by_class():
    arrays = inputs(small()[0], pictures(2, 128, 192))
    rows = np.concatenate([detections for detections, _ in keras_raw(small()[1], arrays)])
    # Half of what the network finds of each class by itself.
    least = [0.0, *(float(np.median([0.5, *rows[rows[:, 4] == number, 5]])) for number in (1, 2, 3))]
    fields = {"DETECTION_NMS_THRESHOLD": 0.1, "DETECTION_CLASS_CONFIDENCE": least}
    config = config_of(DETECTION_NMS_CLASS_AGNOSTIC=True, **fields)
    network = build(config)
    check_engines(config, network, arrays, least=4)
    for one, is_asked in ((small()[1], False), (network, True)):
        overlaps, sure = [], []
        for rows, _ in keras_raw(one, arrays):
            others = rows[:, None, 4] != rows[:, 4]
            overlaps.append((compute_overlaps(rows[:, :4], rows[:, :4]) * others).max())
            sure.append((rows[:, 5] >= np.array(least, np.float32)[rows[:, 4].astype(int)]).all())
        assert (max(overlaps) <= 0.1) == all(sure) == is_asked


def light_backbone(image, stage5=True, train_bn=False):
    """Depthwise convolutions, swish and squeeze-and-excitation, of EfficientNet's kind."""
    x, features = layers.Rescaling(1 / 64, offset=0.5)(image), []
    for stage, width in enumerate((8, 12, 16, 20, 24), start=1):
        x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name=f"dw{stage}")(x)
        x = layers.Activation("swish")(BatchNorm(train_bn, name=f"dw{stage}_bn")(x))
        squeezed = layers.Reshape((1, 1, x.shape[-1]))(layers.GlobalAveragePooling2D()(x))
        squeezed = layers.Conv2D(4, 1, activation="swish", name=f"se{stage}_reduce")(squeezed)
        squeezed = layers.Conv2D(x.shape[-1], 1, activation="sigmoid", name=f"se{stage}_expand")(squeezed)
        x = layers.Multiply()([x, squeezed])
        x = layers.Conv2D(width, 1, name=f"project{stage}")(x)
        x = layers.Dropout(0.2)(x)
        features.append(x)
    return features


@pytest.mark.parametrize("backbone", [five_convolutions, light_backbone])
def test_backbones_of_the_users_own(backbone):
    config = config_of(BACKBONE=backbone)
    check_engines(config, build(config), inputs(config, pictures(1, 128, 192)), least=2)


def strange_backbone(image, stage5=True, train_bn=False):
    features = five_convolutions(image, stage5, train_bn)
    features[-1] = layers.UnitNormalization(name="strange")(features[-1])
    return features


def strange_activation(image, stage5=True, train_bn=False):
    features = five_convolutions(image, stage5, train_bn)
    features[-1] = layers.Activation("log_softmax", name="strange")(features[-1])
    return features


@pytest.mark.parametrize("backbone", [strange_backbone, strange_activation])
def test_a_layer_without_an_onnx_form_is_named(backbone):
    config = config_of(BACKBONE=backbone)
    with pytest.raises(EngineError, match=r"'strange'.* no ONNX form.*[Tt]he engine keras runs any"):
        network_graph(build_network(config, "inference"), config)


def test_normalization_with_the_batchs_statistics_is_refused():
    config = config_of(TRAIN_BN=True)
    with pytest.raises(EngineError, match="normalizes with the batch's own statistics"):
        network_graph(build(config), config)


@pytest.mark.parametrize("name", ["e2e_r50_b1", pytest.param("e2e_r101_b1", marks=pytest.mark.slow)])
def test_golden_end_to_end(name):
    """The original's numbers, through OpenVINO."""
    data = golden.load(name)
    config = golden.config_of(data)
    network = build_network(config, "inference")
    golden.fill(network)
    arrays = [data[key].astype(np.float32) for key in ("input_image", "input_image_meta", "input_anchors")]
    ((detections, masks),) = OpenVINOEngine(graph_bytes(network, config), "float32").run(*arrays)
    rows = data["detections"][0]
    rows = rows[rows[:, 4] > 0]
    full = data["mrcnn_mask"][0]
    expected = rows, full[np.arange(len(rows)), :, :, rows[:, 4].astype(int)]
    (agreement,) = check([expected], [(detections, masks)], arrays[0].shape[1:3], least=5)
    assert agreement.agreeing == agreement.expected == agreement.found


def test_the_graph_is_whole_and_says_what_it_is():
    import onnx

    config, network = small()
    model = network_graph(network, config, {"class_names": "[]"})
    onnx.checker.check_model(model, full_check=True)
    shapes = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert shapes == {
        "input_image": ["B", "h", "w", 3], "input_image_meta": ["B", 16], "input_anchors": ["B", "A", 4],
    }  # fmt: skip
    assert [output.name for output in model.graph.output] == ["detections", "image_index", "masks"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"class_names": "[]"}
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    kept = [name for node in model.graph.node for name in node.output if name.startswith(FLOAT32_PREFIX)]
    # Candidates, proposals, and for both ROIAligns regions and what of them counts, on four levels.
    assert len(kept) == 2 + 2 * 2 * 4 and len(set(kept)) == len(kept)


@cache
def crops(size):
    """An ONNX model of ROIAlign alone: boxes and maps -> crops, in the order of the boxes."""
    import onnx

    config = config_of()
    graph, maps = GraphBuilder(), [f"p{level}" for level in (2, 3, 4, 5)]
    found, order = _Parts(graph, config, "metas", maps).roi_align("boxes", "image", size, "crops")
    back = graph.node("TopK", [order, graph.Shape(order)], outputs=2, axis=0, largest=0)[1]
    graph.rename(graph.Gather(found, back, axis=0), "out")
    model = graph.model(
        {"metas": ("B", 16), "boxes": ("S", 4), **dict.fromkeys(maps, ("B", 8, "h", "w"))},
        {"out": (np.float32, ("S", 8, size, size))},
    )
    model.graph.input.append(onnx.helper.make_tensor_value_info("image", onnx.TensorProto.INT64, ["S"]))
    return model.SerializeToString()


@pytest.mark.parametrize("size", [7, 14])
@pytest.mark.parametrize("shape", [(128, 192), (448, 640)])
def test_samples_on_the_border_agree(size, shape, rng):
    """Of a box that ends at the border of the image, one rounding decides whether the last samples are 0: OpenVINO
    divides by a constant with its reciprocal, which decided otherwise for one in five of such boxes."""
    import onnxruntime
    from keras import ops

    corners = rng.random((600, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes[:300, 2], boxes[200:500, 3], boxes[450:, 0] = 1, 1, 0
    maps = [(rng.random((2, -(-shape[0] // s), -(-shape[1] // s), 8)) + 1).astype(np.float32) for s in (4, 8, 16, 32)]
    image = rng.integers(0, 2, 600)
    metas = np.zeros((2, 16), np.float32)
    metas[:, 4:7] = (*shape, 3)
    area = np.full((1,), shape[0] * shape[1], np.float32)
    expected = pyramid_roi_align(
        ops.convert_to_tensor(boxes[None]), ops.convert_to_tensor(area), [ops.convert_to_tensor(m) for m in maps],
        (size, size), ops.convert_to_tensor(image[None].astype(np.int32)),
    )  # fmt: skip
    expected = ops.convert_to_numpy(expected)[0].transpose(0, 3, 1, 2)
    zero = (expected == 0).any(axis=(1, 2, 3))
    assert 5 < zero.sum() < 300  # some of either kind
    feed = {"metas": metas, "boxes": boxes, "image": image.astype(np.int64)}
    feed |= {f"p{level}": m.transpose(0, 3, 1, 2).copy() for level, m in zip((2, 3, 4, 5), maps, strict=True)}
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(crops(size)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for found in (
        compiled(feed)["out"],
        onnxruntime.InferenceSession(crops(size), providers=["CPUExecutionProvider"]).run(None, feed)[0],
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_call_gives_what_the_checks_compare_with():
    """The detections of `keras_raw` are the network's own."""
    config, network = small()
    arrays = inputs(config, pictures(1, 128, 192))
    ((detections, masks),) = keras_raw(network, arrays)
    rows = call(network, arrays)[0][0]
    np.testing.assert_array_equal(rows[: len(detections)], detections)
    assert masks.shape == (len(detections), 28, 28)


@pytest.mark.parametrize("recipe", ["torchvision_v1", "torchvision_v2", "detectron2", "modern"])
def test_modern_recipes(recipe):
    from tests.test_modern_network import network_of

    config, network = network_of(recipe)
    check_engines(config, network, inputs(config, pictures(2, 80, 112)), least=5)


def test_all_classes_of_a_region_with_least_scores_by_class():
    from tests.test_modern_network import BY_CLASS, network_of

    for agnostic in (False, True):
        config, network = network_of("modern", DETECTION_NMS_CLASS_AGNOSTIC=agnostic, **BY_CLASS)
        check_engines(config, network, inputs(config, pictures(1, 96, 128)), least=5)


def test_group_normalization():
    from tests.test_modern_network import network_of

    config, network = network_of("torchvision_v2", NORM="group")
    check_engines(config, network, inputs(config, pictures(1, 80, 112)), least=5)
