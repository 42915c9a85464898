"""The helpers under their old names: every golden case, types of the results included; what is new beside them."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from mrcnn import downloads, utils
from tests import golden

OPS, MOLDING, EVALUATION = "golden_ops", "golden_molding", "golden_evaluation"
MATCHED = ("gt_boxes", "gt_class_ids", "gt_masks", "pred_boxes", "pred_class_ids", "pred_scores", "pred_masks")


def cases(file, function, suffix=".out"):
    names = golden.cases(file, suffix)
    return [name.removeprefix(f"{function}.") for name in names if name.startswith(f"{function}.")]


def same(what, actual, expected, atol=0.0):
    golden.check(what, actual, expected, atol=atol)
    assert np.asarray(actual).dtype == expected.dtype, what


# Golden numbers


@pytest.mark.parametrize(
    ("function", "case", "arguments", "atol"),
    [
        ("compute_iou", "int", ("box", "boxes"), 1e-12),
        ("compute_overlaps", "int", ("boxes1", "boxes2"), 1e-12),
        ("apply_box_deltas", "a", ("boxes", "deltas"), 2e-5),  # pixels up to 160 in float32
        ("box_refinement", "a", ("box", "gt_box"), 1e-6),
        ("norm_boxes", "a", ("boxes", "shape"), 0),
        ("denorm_boxes", "a", ("boxes", "shape"), 0),
        ("denorm_boxes", "half", ("boxes", "shape"), 0),
        ("generate_anchors", "one", ("scales", "ratios", "shape", "feature_stride", "anchor_stride"), 1e-10),
    ],
)
def test_boxes_golden(function, case, arguments, atol):
    data = golden.part(OPS, f"{function}.{case}")
    values = [data[f"in.{name}"] for name in arguments]
    if function == "compute_iou":
        box, boxes = values
        areas = [(b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in values]
        values = [box, boxes, *areas]
    same(f"{function} {case}", getattr(utils, function)(*values), data["out"], atol)


@pytest.mark.parametrize("case", cases(OPS, "non_max_suppression"))
def test_non_max_suppression_golden(case):
    data = golden.part(OPS, f"non_max_suppression.{case}")
    kept = utils.non_max_suppression(data["in.boxes"], data["in.scores"], float(data["in.threshold"]))
    same(f"non_max_suppression {case}", kept, data["out"])


@pytest.mark.parametrize("case", cases(OPS, "generate_pyramid_anchors"))
def test_pyramid_anchors_golden(case):
    data = golden.part(OPS, f"generate_pyramid_anchors.{case}")
    anchors = utils.generate_pyramid_anchors(
        data["in.scales"], data["in.ratios"], data["in.feature_shapes"], [4, 8, 16, 32, 64],
        int(data["in.anchor_stride"]),
    )  # fmt: skip
    same(f"generate_pyramid_anchors {case}", anchors, data["out"], 1e-10)
    normalized = golden.part(OPS, f"norm_boxes.anchors_{case}")
    same(f"norm_boxes {case}", utils.norm_boxes(anchors, normalized["in.shape"]), normalized["out"], 1e-7)


@pytest.mark.parametrize("case", cases(MOLDING, "resize_image", ".out.image"))
def test_resize_image_and_mask_golden(case):
    data = golden.part(MOLDING, f"resize_image.{case}")
    random.seed(int(data["in.python_random_seed"]))
    image, window, scale, padding, crop = utils.resize_image(
        data["in.image"], **json.loads(str(data["in.kwargs_json"]))
    )
    same(f"resize_image {case} image", image, data["out.image"])
    golden.check(f"resize_image {case} window", window, data["out.window"])
    golden.check(f"resize_image {case} scale", scale, data["out.scale"])
    golden.check(f"resize_image {case} padding", padding, data["out.padding"])
    golden.check(f"resize_image {case} crop", (-1, -1, -1, -1) if crop is None else crop, data["out.crop"])
    mask = golden.part(MOLDING, f"resize_mask.{case}")
    same(f"resize_mask {case}", utils.resize_mask(mask["in.mask"], scale, padding, crop), mask["out"])


@pytest.mark.parametrize("case", cases(MOLDING, "resize", ".out.new"))
def test_resize_golden(case):
    data = golden.part(MOLDING, f"resize.{case}")
    image, shape = data["in.image"], data["in.output_shape"]
    same(f"resize {case}", utils.resize(image, shape, preserve_range=True), data["out.new"])
    if image.dtype == np.uint8:
        same(f"resize {case} to 0..1", utils.resize(image, shape), data["out.new"] / 255, 1e-12)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("extract_bboxes", ("mask",)),
        ("minimize_mask", ("bbox", "mask", "mini_shape")),
        ("expand_mask", ("bbox", "mini_mask", "image_shape")),
        ("unmold_mask", ("mask", "bbox", "image_shape")),
    ],
)
def test_masks_golden(function, arguments):
    found = cases(MOLDING, function)
    assert found
    for case in found:
        data = golden.part(MOLDING, f"{function}.{case}")
        actual = getattr(utils, function)(*(data[f"in.{name}"] for name in arguments))
        same(f"{function} {case}", actual, data["out"])


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
def test_matches_and_average_precision_golden(case, capsys):
    data = golden.load(EVALUATION)
    inputs = [data[f"compute_matches.{case}.in.{part}"] for part in MATCHED]
    for suffix, options in (("", {}), ("_iou.3_score.4", {"iou_threshold": 0.3, "score_threshold": 0.4})):
        found = utils.compute_matches(*inputs, **options)
        for name, value in zip(("gt_match", "pred_match", "overlaps"), found, strict=True):
            same(f"compute_matches {name}", value, data[f"compute_matches.{case}{suffix}.out.{name}"])
    found = utils.compute_ap(*inputs)
    for name, value in zip(("mAP", "precisions", "recalls", "overlaps"), found, strict=True):
        same(f"compute_ap {name}", value, data[f"compute_ap.{case}.out.{name}"])
    capsys.readouterr()
    mean = utils.compute_ap_range(*inputs)
    printed = capsys.readouterr().out.splitlines()
    same("compute_ap_range", mean, data[f"compute_ap_range.{case}.out"])
    assert printed[0].startswith("AP @0.50:\t ") and printed[-1].startswith("AP @0.50-0.95:\t ")
    recall, positives = utils.compute_recall(inputs[3], inputs[0], 0.5)
    same("compute_recall", recall, data[f"compute_recall.{case}.out.recall"])
    same("compute_recall ids", positives, data[f"compute_recall.{case}.out.positive_ids"])


def test_overlaps_of_masks_and_trimming_golden():
    data = golden.load(EVALUATION)
    for case in ("a", "empty"):
        prefix = f"compute_overlaps_masks.{case}"
        overlaps = utils.compute_overlaps_masks(data[f"{prefix}.in.masks1"], data[f"{prefix}.in.masks2"])
        same(prefix, overlaps, data[f"{prefix}.out"])
    same("trim_zeros", utils.trim_zeros(data["trim_zeros.a.in.x"]), data["trim_zeros.a.out"])


# Other arguments


def test_resize_to_the_nearest_pixel():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    doubled = utils.resize(image, (6, 8), order=0)
    np.testing.assert_array_equal(doubled, image.repeat(2, axis=0).repeat(2, axis=1))
    assert doubled.dtype == np.uint8
    np.testing.assert_array_equal(utils.resize(np.dstack([image] * 2), (1, 2), order=0), np.dstack([[[5, 7]]] * 2))
    assert utils.resize(image > 5, (6, 8), order=0).dtype == bool


def test_resize_brings_whole_numbers_to_one():
    for dtype, value, expected in ((np.uint16, 65535, 1), (np.int16, -32768, -1), (bool, True, 1), (float, 300, 300)):
        resized = utils.resize(np.full((4, 4), value, dtype), (2, 2))
        np.testing.assert_allclose(resized, expected)


def test_resize_hands_the_rest_to_scikit_image(monkeypatch):
    image = np.zeros((4, 4))
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.transform", None)
    for options in ({"order": 3}, {"mode": "reflect"}, {"cval": 1}, {"clip": False}, {"anti_aliasing": True}):
        name, value = next(iter(options.items()))
        with pytest.raises(ImportError, match=f"'{name}': {value!r}.*pip install scikit-image"):
            utils.resize(image, (2, 2), **options)

    asked = {}

    class Transform:
        @staticmethod
        def resize(image, output_shape, **options):
            asked.update(options, output_shape=output_shape)
            return image

    monkeypatch.setitem(sys.modules, "skimage.transform", Transform)
    assert utils.resize(image, (2, 2), order=3, anti_aliasing=True, anti_aliasing_sigma=2.0) is image
    assert asked == {
        "output_shape": (2, 2), "order": 3, "mode": "constant", "cval": 0, "clip": True, "preserve_range": False,
        "anti_aliasing": True, "anti_aliasing_sigma": 2.0,
    }  # fmt: skip


def test_non_max_suppression_refuses_what_it_cannot_sort():
    for boxes, scores in (([], []), ([[0, 0, 1, 1]], [0.5, 0.6]), ([0, 0, 1, 1], [0.5])):
        with pytest.raises(ValueError, match="takes boxes"):
            utils.non_max_suppression(boxes, scores, 0.5)


def test_overlaps_of_empty_boxes_are_zero():
    empty, boxes = np.zeros(4), np.array([[0, 0, 0, 0], [0, 0, 2, 2]])
    np.testing.assert_array_equal(utils.compute_iou(empty, boxes, 0, np.array([0, 4])), [0, 0])


def test_mold_mask_does_nothing():
    assert utils.mold_mask(np.ones((4, 4), bool), None) is None


def test_download_copies_out_of_the_cache(tmp_path, monkeypatch, capsys):
    cached = tmp_path / "cached.h5"
    cached.write_bytes(b"weights")
    asked = []

    def fetch(name, progress):
        asked.append((name, progress))
        return cached

    monkeypatch.setattr(utils, "fetch_weights", fetch)
    target = str(tmp_path / "mask_rcnn_coco.h5")
    utils.download_trained_weights(target)
    assert Path(target).read_bytes() == b"weights"
    assert capsys.readouterr().out == (
        f"Downloading pretrained model to {target} ...\n... done downloading pretrained model!\n"
    )
    utils.download_trained_weights(target, verbose=0)
    assert capsys.readouterr().out == ""
    assert asked == [("coco", True), ("coco", False)]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        utils.download_trained_weights(str(tmp_path / "nowhere" / "coco.h5"), verbose=0)
    assert downloads.RELEASES["coco"].url == utils.COCO_MODEL_URL


# On tensors


@pytest.mark.backends
def test_box_refinement_graph_golden():
    from keras import ops

    data = golden.part("layers_functions", "box_refinement_graph")
    deltas = utils.box_refinement_graph(ops.convert_to_tensor(data["in.box"]), ops.convert_to_tensor(data["in.gt_box"]))
    golden.check("box_refinement_graph", ops.convert_to_numpy(deltas), data["out"], atol=1e-6)


@pytest.mark.backends
def test_batch_slice(rng):
    from keras import ops

    a, b = rng.normal(size=(3, 4, 2)).astype(np.float32), np.arange(3, dtype=np.float32)
    tensors = [ops.convert_to_tensor(a), ops.convert_to_tensor(b)]
    one = utils.batch_slice(tensors, lambda x, y: x * y, 3)
    np.testing.assert_allclose(ops.convert_to_numpy(one), a * b[:, None, None], rtol=1e-6)
    two = utils.batch_slice(tensors, lambda x, y: (ops.sum(x), y), 2, names=["sum", "same"])
    assert isinstance(two, list)
    np.testing.assert_allclose(ops.convert_to_numpy(two[0]), a[:2].sum((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(two[1]), b[:2])
    alone = utils.batch_slice(tensors[0], lambda x: x[0], 3)
    np.testing.assert_array_equal(ops.convert_to_numpy(alone), a[:, 0])
