"""The network in int8."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from mrcnn.config import Config
from mrcnn.engines.base import EngineError
from mrcnn.engines.openvino_engine import OpenVINOEngine
from mrcnn.evaluation import evaluate
from mrcnn.graph.names import FLOAT32_PREFIX
from mrcnn.quantization import FEW_IMAGES, _name_apart, _split_wide_convolutions, compare, quantize
from tests.nuclei_network import in_order, network_inputs, nuclei_network, nuclei_picture
from tests.shapes import Shapes

SIZE = 192
BLACK = np.zeros((SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def network() -> tuple[Config, bytes]:
    from mrcnn.graph.network import network_graph

    config, model = nuclei_network()
    return config, network_graph(model, config).SerializeToString()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [nuclei_picture(6 + seed % 4, seed, SIZE) for seed in range(FEW_IMAGES)]


@pytest.fixture(scope="module")
def int8(network, pictures):
    config, graph = network
    return quantize(graph, config, pictures, progress=False)


def weights_of(node):
    """The constant that a layer's weights are made of."""
    weights = node.input_value(1).get_node()
    while weights.get_type_name() != "Constant":
        weights = weights.input_value(0).get_node()
    return weights


def float32_names(model):
    return {
        name
        for node in model.get_ops()
        for port in node.outputs()
        for name in port.get_names()
        if name.startswith(FLOAT32_PREFIX)
    }


def constants(model):
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    return [np.array(node.data) for node in nodes if node.get_element_type() != openvino.Type.i64]


def test_layers_compute_in_int8_and_the_last_ones_do_not(int8):
    layers = {
        node.get_friendly_name().partition("/")[0]: node
        for node in int8.get_ops()
        if node.get_type_name() in ("Convolution", "MatMul")
    }
    quantized = "conv1 res5a_branch2b fpn_c2p2 fpn_p2 rpn_conv_shared rpn_class_raw mrcnn_mask_conv4"
    for name in (*quantized.split(), "mrcnn_class_conv1", "mrcnn_class_conv2"):
        assert weights_of(layers[name]).get_element_type() == openvino.Type.i8, name
    convolutions = [node for name, node in layers.items() if node.get_type_name() != "MatMul"]
    assert all(weights_of(node).get_element_type() == openvino.Type.i8 for node in convolutions)
    for name in ("mrcnn_class_logits", "mrcnn_bbox_fc"):
        assert weights_of(layers[name]).get_element_type() == openvino.Type.f32, name


def test_what_speaks_of_boxes_is_left_alone(int8, network):
    """Ranges are for what a layer takes in; what a box is computed by takes none."""
    read_by = {
        reader.get_node().get_type_name()
        for node in int8.get_ops()
        if node.get_type_name() == "FakeQuantize"
        for reader in node.output(0).get_target_inputs()
    }
    layers = {"Convolution", "MatMul"}
    between = {"Add", "Interpolate", "Transpose", "Reshape", "Gather", "Concat", "MaxPool", "Slice"}
    assert layers <= read_by <= layers | between
    before = openvino.Core().read_model(network[1])
    assert float32_names(int8) == float32_names(before) != set()
    assert [port.get_any_name() for port in int8.outputs] == [port.get_any_name() for port in before.outputs]
    assert not int8.has_rt_info("nncf")


def test_int8_finds_what_float32_finds(int8, network, tmp_path):
    config, graph = network
    path = tmp_path / "int8.xml"
    openvino.save_model(int8, path, compress_to_fp16=False)
    assert path.with_suffix(".bin").stat().st_size < len(graph) / 3
    engines = OpenVINOEngine(graph, "float32"), OpenVINOEngine(path, quantized=True)
    assert engines[1].precision == "int8"
    inputs = network_inputs(config, [nuclei_picture(9, 99, 256)])  # a size that it was not calibrated on
    (boxes, masks), (boxes8, masks8) = (in_order(*engine.run(*inputs)[0]) for engine in engines)
    assert len(boxes) == len(boxes8) >= 8
    assert 0 < np.abs(boxes[:, :4] - boxes8[:, :4]).max() * 256 < 2
    assert np.abs(boxes[:, 5] - boxes8[:, 5]).max() < 0.05
    assert ((masks > 0.5) != (masks8 > 0.5)).mean() < 0.03


def test_images_without_objects_change_nothing_and_runs_are_alike(int8, network, pictures, tmp_path, capfd):
    """NNCF would take an image without objects for one whose masks are all nonsense."""
    config, graph = network
    (tmp_path / "network.onnx").write_bytes(graph)
    again = quantize(tmp_path / "network.onnx", config, iter([*pictures, BLACK]), progress=True)
    for one, other in zip(constants(int8), constants(again), strict=True):
        np.testing.assert_array_equal(one, other)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Statistics collection" in err and "INFO" not in err


def test_refused_images(network, pictures):
    config, graph = network
    with pytest.raises(ValueError, match="Calibration needs images"):
        quantize(graph, config, [])
    with pytest.raises(ValueError, match="must be a list of images"):
        quantize(graph, config, BLACK)
    with pytest.raises(ValueError, match="1 images, 2 names"):
        quantize(graph, config, [BLACK], names=["a", "b"])
    with pytest.raises(ValueError, match="limit must be at least 1. Received: 0"):
        quantize(graph, config, pictures, limit=0)
    with pytest.raises(ValueError, match=r"Calibration image broken\.png: .*Received shape: \(0, 4\)"):
        quantize(graph, config, [BLACK, np.zeros((0, 4))], names=["black.png", "broken.png"], progress=False)
    with pytest.raises(TypeError, match="Calibration image 1 of 2: "):
        quantize(graph, config, [BLACK, "photo.jpg"], progress=False)
    with pytest.raises(ValueError, match=r"finds nothing in any of the 2 calibration images.*\(0.5\)"):
        quantize(graph, config, [BLACK, BLACK], progress=False)


def test_refused_networks(int8, network, pictures, tmp_path):
    config, _ = network
    with pytest.raises(EngineError, match="quantized already"):
        quantize(int8, config, pictures)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(EngineError, match=r"cannot read .*broken\.onnx"):
        quantize(broken, config, pictures)


def test_few_images_are_warned_of_and_a_limit_spreads(network, pictures, monkeypatch):
    import nncf

    config, graph = network
    model = openvino.Core().read_model(graph)
    nodes = len(model.get_ops())
    given = {}

    def record(network, dataset, **options):
        given["images"] = [item["input_image"] for item in dataset.get_inference_data()]
        return network

    monkeypatch.setattr(nncf, "quantize", record)
    with pytest.warns(UserWarning, match=r"Calibrating on 2 image\(s\) \(and 1 in which the network finds nothing\)"):
        quantize(model, config, [pictures[0], pictures[1], BLACK, pictures[2], pictures[3]], limit=3, progress=False)
    wanted = [network_inputs(config, [pictures[i]])[0] for i in (0, 3)]
    np.testing.assert_array_equal(given["images"], wanted)
    assert len(model.get_ops()) == nodes, "the given model was changed"


@pytest.mark.parametrize(
    ("count", "bias", "relu", "parts"),
    [(256, True, True, 1), (600, True, True, 3), (300, False, True, 2), (300, True, False, 2)],
)
def test_wide_convolutions_are_split(count, bias, relu, parts):
    rng = np.random.default_rng(0)
    image = ops.parameter([1, 4, -1, -1], np.float32)
    x = ops.convolution(image, ops.constant(_kernel(rng, count, 4)), [2, 1], [1, 1], [1, 1], [1, 1])
    if bias:
        x = ops.add(x, ops.constant(rng.standard_normal((1, count, 1, 1)).astype(np.float32)))
    if relu:
        x = ops.relu(x)
    # Read twice, once by a wide layer, which is left alone where it reads what ReLU gives: 8 bits without a sign.
    wide = ops.convolution(x, ops.constant(_kernel(rng, 300, count)), [1, 1], [1, 1], [1, 1], [1, 1])
    model = openvino.Model([wide, ops.multiply(x, np.float32(2))], [image], "wide")
    feed = [rng.standard_normal((1, 4, 9, 7)).astype(np.float32)]
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    before = openvino.Core().compile_model(model, "CPU", exact)(feed)
    _split_wide_convolutions(model)
    convolutions = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
    assert len(convolutions) == parts + (1 if relu else 2)
    after = openvino.Core().compile_model(model, "CPU", exact)(feed)
    for index in range(2):
        np.testing.assert_allclose(after[index], before[index], rtol=1e-4, atol=1e-4)


def _kernel(rng, outputs, inputs):
    return rng.standard_normal((outputs, inputs, 3, 3)).astype(np.float32) * 0.1


def test_nodes_get_names_of_their_own():
    x = image = ops.parameter([1], np.float32, name="image")
    for name in ("Relu", "Relu", "Relu/1", "Relu"):
        x = ops.relu(x)
        x.set_friendly_name(name)
    model = openvino.Model([x], [image], "names")
    _name_apart(model)
    names = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() == "Relu"]
    assert len(set(names)) == 4
    assert names[0] == "Relu"


class Finds:
    """Finds what is annotated, or some of it."""

    def __init__(self, dataset, most):
        self.dataset, self.most = dataset, most

    def detect(self, images):
        results = []
        for image in images:
            index = next(i for i in self.dataset.image_ids if self.dataset.load_image(i) is image)
            masks, class_ids = self.dataset.load_mask(index)
            masks, class_ids = masks[..., : self.most], class_ids[: self.most]
            boxes = np.array([[*np.argwhere(m).min(0), *np.argwhere(m).max(0) + 1] for m in np.moveaxis(masks, -1, 0)])
            results.append({"rois": boxes, "class_ids": class_ids, "scores": np.ones(len(class_ids)), "masks": masks})
        return results


def test_what_precision_costs_is_reported():
    dataset = Shapes(4)
    all_of_them, first = Finds(dataset, 9), Finds(dataset, 1)
    found = compare(all_of_them, first, dataset, iter([0, 1, 2, 3]), progress=False)
    assert found.before.mask.ap == 1
    assert found.after == evaluate(first, dataset, progress=False)
    assert found.lost() == found.before.mask.ap - found.after.mask.ap > 0.1
    assert found.lost("box") == found.before.box.ap - found.after.box.ap
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == ["4", "before", "after", "lost"]
    assert lines[1].split()[1:] == ["1.0000"] * 4
    assert lines[3].split()[1:] == [f"{found.lost('box'):.4f}", f"{found.lost():.4f}"]
    masks = compare(all_of_them, first, dataset, [1, 2], progress=False, iou_types=("segm",))
    assert str(masks).startswith("2 images") and "box" not in str(masks)
    assert len({len(line) for line in str(masks).splitlines()[:3]}) == 1
