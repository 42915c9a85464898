"""The graph functions of the original under their old names: golden numbers, single images against batches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from mrcnn import model as modellib
from mrcnn.config import Config
from tests import golden
from tests.running import gradients
from tests.test_layers import TARGET_CASES, sort_rows
from tests.test_losses import ARGUMENTS

# The layers under these functions are tested on all backends; here a case of each will do.
ON_ALL_BACKENDS = pytest.mark.backends


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor)


@ON_ALL_BACKENDS
@pytest.mark.parametrize(
    ("function", "arguments", "atol"),
    [
        ("apply_box_deltas_graph", ("boxes", "deltas"), 1e-6),
        ("clip_boxes_graph", ("boxes", "window"), 0),
        ("overlaps_graph", ("boxes1", "boxes2"), 1e-6),
        ("norm_boxes_graph", ("boxes", "shape"), 1e-7),
        ("denorm_boxes_graph", ("boxes", "shape"), 0),
        ("smooth_l1_loss", ("y_true", "y_pred"), 1e-6),
    ],
)
def test_functions_golden(function, arguments, atol):
    data = golden.part("layers_functions", function)
    values = [data[f"in.{name}"] for name in arguments]
    # The original divides 0 by 0 for two empty boxes; ours is 0.
    expected = np.nan_to_num(data["out"])
    for kind, inputs in (("tensors", [ops.convert_to_tensor(v) for v in values]), ("arrays", values)):
        actual = to_numpy(getattr(modellib, function)(*inputs))
        golden.check(f"{function} of {kind}", actual, expected, atol=atol)
        assert actual.dtype == expected.dtype


def test_halves_are_rounded_to_even_golden():
    data = golden.part("layers_functions", "denorm_boxes_graph")
    pixels = modellib.denorm_boxes_graph(data["in.half"], np.array([11, 11], np.int32))
    golden.check("denorm_boxes_graph of halves", to_numpy(pixels), data["out.half_shape11x11"])


@ON_ALL_BACKENDS
def test_trim_zeros_golden():
    data = golden.load("layers_functions")
    boxes, non_zeros = modellib.trim_zeros_graph(data["trim_zeros_graph.in"], name="trim_proposals")
    golden.check("trim_zeros_graph", to_numpy(boxes), data["trim_zeros_graph.out"])
    golden.check("trim_zeros_graph non-zeros", to_numpy(non_zeros), data["trim_zeros_graph.out.non_zeros"])


@ON_ALL_BACKENDS
def test_batch_pack_golden():
    data = golden.part("layers_functions", "batch_pack_graph")
    x, counts = (ops.convert_to_tensor(data[f"in.{name}"]) for name in ("x", "counts"))
    golden.check("batch_pack_graph", to_numpy(modellib.batch_pack_graph(x, counts, 3)), data["out"])


def test_log2():
    np.testing.assert_allclose(to_numpy(modellib.log2_graph(np.array([0.25, 1, 10.0]))), [-2, 0, 3.3219281], rtol=1e-6)


def test_metas_golden():
    data = golden.load("golden_molding")
    expected = data["compose_image_meta.a.out"]
    meta = modellib.compose_image_meta(7, (100, 150, 3), (128, 128, 3), (21, 0, 107, 128), 0.8533, [1, 0, 1, 1])
    golden.check("compose_image_meta", meta, expected)
    assert meta.dtype == expected.dtype
    metas, wanted = np.stack([expected, 2 * expected]), golden.part("golden_molding", "parse_image_meta.a.out")
    fields, tensors = modellib.parse_image_meta(metas), modellib.parse_image_meta_graph(metas)
    assert list(fields) == list(wanted)
    for name, value in fields.items():
        golden.check(f"parse_image_meta {name}", value, wanted[name])
        assert value.dtype == wanted[name].dtype
        golden.check(f"parse_image_meta_graph {name}", to_numpy(tensors[name]), wanted[name], atol=1e-4)


def test_mold_image_golden():
    data = golden.part("golden_molding", "mold_image.a")
    config = type("C", (Config,), {"MEAN_PIXEL": data["in.mean"]})()
    molded = modellib.mold_image(data["in.image"], config)
    golden.check("mold_image", molded, data["out"])
    assert molded.dtype == data["out"].dtype
    expected = golden.load("golden_molding")["unmold_image.a.out"]
    golden.check("unmold_image", modellib.unmold_image(molded, config), expected)
    np.testing.assert_array_equal(modellib.unmold_image(molded, config), data["in.image"])


@pytest.mark.parametrize("case", golden.cases("losses"))
def test_losses_and_gradients_golden(case):
    kind = case.split(".")[0]
    data = golden.part("losses", case)
    names, function = ARGUMENTS[kind], getattr(modellib, f"{kind}_loss_graph")
    first = (Config(),) if kind == "rpn_bbox" else ()
    wanted = [key[len("grad.") :] for key in data if key.startswith("grad.")]
    value, found = gradients(
        lambda **tensors: function(*first, *(tensors[name] for name in names)),
        {name: data[f"in.{name}"] for name in names},
        wanted,
    )
    golden.check(f"{case} loss", value, np.nan_to_num(data["out"]), atol=1e-6, rtol=1e-6)
    for name in wanted:
        expected = np.nan_to_num(data[f"grad.{name}"])
        golden.check(f"{case} gradient of {name}", found[name], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=ON_ALL_BACKENDS) if c == "crowd_nosubsample" else c for c in TARGET_CASES],
)
def test_targets_of_one_image_golden(case):
    data = golden.part("layers_detection_target", case)
    config = target_config(data)
    inputs = [data[f"in.{name}"] for name in ("proposals", "gt_class_ids", "gt_boxes", "gt_masks")]
    names = ("rois", "target_class_ids", "target_deltas", "target_mask")
    identity = bool(data["cfg.identity_shuffle"])
    for image in range(2):
        actual = [to_numpy(a) for a in modellib.detection_targets_graph(*(i[image] for i in inputs), config)]
        if identity:  # ours are drawn at random: the counts must agree
            positive = np.count_nonzero(data["out.target_class_ids"][image])
            assert np.count_nonzero(actual[1]) == positive
            real = np.any(data["out.rois"][image] != 0, axis=1).sum()
            assert np.any(actual[0] != 0, axis=1).sum() == real
            continue
        expected = sort_rows(*(data[f"sorted{image}.{name}"] for name in names))
        for name, value, wanted in zip(names, sort_rows(*actual), expected, strict=True):
            golden.check(f"targets {case} image {image} {name}", value, wanted, atol=1e-5)


def target_config(data):
    fields = {
        name: data[f"cfg.{name}"].item() for name in ("TRAIN_ROIS_PER_IMAGE", "ROI_POSITIVE_RATIO", "USE_MINI_MASK")
    }
    return type("C", (Config,), fields)()


def test_targets_are_drawn_anew_at_each_call():
    data = golden.part("layers_detection_target", "mini_nosubsample")
    config = type("C", (Config,), {"TRAIN_ROIS_PER_IMAGE": 6})()
    inputs = [data[f"in.{name}"][0] for name in ("proposals", "gt_class_ids", "gt_boxes", "gt_masks")]
    drawn = {to_numpy(modellib.detection_targets_graph(*inputs, config)[0]).tobytes() for _ in range(8)}
    assert len(drawn) > 1


@pytest.mark.parametrize(
    "case", ["default", "noconf", pytest.param("max10", marks=ON_ALL_BACKENDS), "nms.7", "all_background", "tied"]
)
def test_detections_of_one_image_golden(case):
    data = golden.part("layers_detection", case)
    config = detection_config(data)
    meta = modellib.parse_image_meta(data["in.image_meta"])
    for image in range(2):
        window = modellib.norm_boxes_graph(meta["window"][image], meta["image_shape"][image, :2])
        rois, probs, deltas = (data[f"in.{name}"][image] for name in ("rois", "mrcnn_class", "mrcnn_bbox"))
        actual = modellib.refine_detections_graph(rois, probs, deltas, window, config)
        golden.check(f"detections {case} image {image}", to_numpy(actual), data["out"][image], atol=1e-6)


def detection_config(data):
    fields = {key[len("cfg.") :]: data[key].item() for key in data if key.startswith("cfg.")}
    return type("C", (Config,), fields)()


@ON_ALL_BACKENDS
def test_functions_in_a_functional_model(rng):
    """Scripts build graphs with them: on Keras's symbolic tensors they give symbolic tensors."""
    boxes = keras.layers.Input((4,), name="boxes")
    deltas = keras.layers.Input((4,), name="deltas")
    moved = modellib.apply_box_deltas_graph(boxes, deltas)
    outputs = [
        modellib.clip_boxes_graph(moved, np.array([0, 0, 1, 1], np.float32)),
        modellib.overlaps_graph(boxes, moved),
    ]
    model = keras.Model([boxes, deltas], outputs)
    values = [rng.uniform(0, 1, (5, 4)).astype(np.float32), rng.normal(0, 0.1, (5, 4)).astype(np.float32)]
    clipped, overlaps = model(values)
    expected = np.clip(to_numpy(modellib.apply_box_deltas_graph(*values)), 0, 1)
    np.testing.assert_allclose(to_numpy(clipped), expected, atol=1e-6)
    assert overlaps.shape == (5, 5)


def test_log(capsys):
    modellib.log("Processing 1 images")
    modellib.log("image", np.array([[0, 255]], np.uint8))
    modellib.log("masks", np.zeros((4, 4, 0), bool))
    assert capsys.readouterr().out.splitlines() == [
        "Processing 1 images",
        "image                    shape: (1, 2)                min:    0.00000  max:  255.00000  uint8",
        "masks                    shape: (4, 4, 0)             min:             max:             bool",
    ]
