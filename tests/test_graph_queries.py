"""Looking into the network: tensors by their old names, against an account of the proposals in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn import graph_queries
from mrcnn.model import MaskRCNN
from mrcnn.utils import apply_box_deltas, compute_overlaps
from tests import golden
from tests.small import SmallConfig, images


@pytest.fixture(scope="module")
def model():
    model = MaskRCNN("inference", SmallConfig(), "logs")
    golden.fill_small(model.keras_model)
    return model


def suppress(boxes, threshold, count):
    kept = []
    for index in range(len(boxes)):
        if len(kept) < count and (
            not kept or compute_overlaps(boxes[index : index + 1], boxes[kept])[0].max() <= threshold
        ):
            kept.append(index)
    return kept


@pytest.mark.backends
def test_the_tensors_inside_roi(model, rng, capsys):
    network, pictures = model.keras_model, images(rng)
    pillar = network.get_layer("mrcnn_mask").output  # any that comes after
    names = ("pre_nms_anchors", "refined_anchors", "refined_anchors_clipped", "rpn_non_max_suppression")
    outputs = [(name, model.ancestor(pillar, f"ROI/{name}:0")) for name in names]
    outputs += [
        ("of_image_1", model.ancestor(pillar, "ROI/rpn_non_max_suppression_1/NonMaxSuppressionV3:0")),
        ("rpn_class", model.ancestor(pillar, "rpn_class")),
        ("rpn_bbox", model.ancestor(pillar, "rpn_bbox:0")),
        ("proposals", network.get_layer("ROI").output),
    ]
    values = model.run_graph(pictures, outputs)
    assert list(values) == [name for name, _ in outputs]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("pre_nms_anchors          shape: (2, 300, 4)           min: ")
    assert len(printed) == len(outputs)

    anchors = model.get_anchors((64, 64, 3))
    for image, kept in enumerate((values["rpn_non_max_suppression"], values["of_image_1"])):
        best = np.argsort(-values["rpn_class"][image, :, 1], kind="stable")[: model.config.PRE_NMS_LIMIT]
        np.testing.assert_array_equal(values["pre_nms_anchors"][image], anchors[best])
        deltas = values["rpn_bbox"][image, best] * model.config.RPN_BBOX_STD_DEV.astype(np.float32)
        moved = apply_box_deltas(anchors[best], deltas)
        np.testing.assert_allclose(values["refined_anchors"][image], moved, rtol=1e-4, atol=1e-5)
        clipped = values["refined_anchors_clipped"][image]
        np.testing.assert_allclose(clipped, np.clip(moved, 0, 1), rtol=1e-4, atol=1e-5)
        assert kept.dtype == np.int32
        assert kept.tolist() == suppress(clipped, model.config.RPN_NMS_THRESHOLD, 50)
        np.testing.assert_array_equal(values["proposals"][image, : len(kept)], clipped[kept])
        assert not values["proposals"][image, len(kept) :].any()


def test_names_that_are_found_and_not(model):
    network = model.keras_model
    pillar = network.get_layer("ROI").output
    assert model.ancestor(pillar, "ROI") is pillar
    assert model.ancestor(network.outputs[3], "fpn_p3:0", checked=[]) is network.get_layer("fpn_p3").output
    assert model.ancestor(pillar, "input_image") is network.inputs[0]
    found = model.ancestor(pillar, "ROI/refined_anchors:0")
    assert found.name == "ROI/refined_anchors:0"
    assert model.ancestor(found, "ROI/refined_anchors:0") is found
    for name in ("mrcnn_class", "ROI/anchors:0", "ROI/pre_nms_anchors:1", "fpn_p3:1"):  # after it, or nowhere
        assert model.ancestor(pillar, name) is None
    assert model.ancestor(network.get_layer("rpn_class").output, "ROI/pre_nms_anchors:0") is None
    with pytest.raises(TypeError, match="takes a tensor of the network.*None"):
        model.ancestor(None, "ROI")


def test_molded_images_and_a_network_without_what_is_asked(model, rng):
    pictures = images(rng, 1)
    molded, metas, _ = model.mold_inputs(pictures)
    network = model.keras_model
    outputs = {"detections": network.outputs[0], "masks": network.outputs[3], "p6": network.get_layer("fpn_p6").output}
    whole, by_parts = model.run_graph(pictures, outputs), model.run_graph(molded, outputs, image_metas=metas)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, by_parts[name])
    assert whole["masks"].shape == (1, 10, 28, 28, 4)
    np.testing.assert_array_equal(
        model.run_graph(pictures, [("masks", network.get_layer("mrcnn_mask").output)])["masks"], whole["masks"]
    )
    assert model.run_graph(pictures, []) == {}
    with pytest.raises(TypeError, match="The output 'nms' must be a tensor of the network.*Received: None"):
        model.run_graph(pictures, [("nms", None)])
    with pytest.raises(ValueError, match="need the inputs input_image, .*inference mode"):
        graph_queries.run({"input_anchors": np.zeros((1, 1, 4))}, {"p6": outputs["p6"], "x": network.outputs[0]})
