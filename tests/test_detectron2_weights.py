"""detectron2's state dicts as our layers: the same network under torchvision's names, whose conversion is compared with
torchvision itself elsewhere, gives the same; and what is none of detectron2's Mask R-CNNs with a pyramid is refused."""

from __future__ import annotations

import numpy as np
import pytest

from mrcnn import presets
from mrcnn.config import Config
from mrcnn.converting import prepare
from mrcnn.weights import detectron2, torchvision
from mrcnn.weights.contents import WeightsError
from tests.foreign_weights import K, as_detectron2, resnet18, torchvision_v1, torchvision_v2, without_background


@pytest.fixture(scope="module")
def v1():
    return torchvision_v1()


@pytest.fixture(scope="module")
def theirs(v1):
    return as_detectron2(v1)


def assert_same(found, expected):
    assert {(layer, name) for layer, by_name in found.items() for name in by_name} == {
        (layer, name) for layer, by_name in expected.items() for name in by_name
    }
    for layer, by_name in expected.items():
        for name, array in by_name.items():
            assert np.array_equal(found[layer][name], array), (layer, name)


@pytest.mark.parametrize("make", [torchvision_v1, torchvision_v2])
def test_the_same_network_under_both_names(make):
    state = make()
    expected = torchvision.convert(state)
    without_background(expected.arrays)
    found = detectron2.convert(as_detectron2(state))
    assert_same(found.arrays, expected.arrays)
    shared = found.fields.keys() & expected.fields.keys()
    assert {name: found.fields[name] for name in shared} == {name: expected.fields[name] for name in shared}
    assert found.fields["NUM_CLASSES"] == K
    assert found.preset == {"torchvision_v1": "detectron2", "torchvision_v2": "detectron2_lsj"}[expected.preset]
    assert [fate.target for fate in found.fates] == [fate.target for fate in expected.fates]
    config = presets.subclass(Config, found.preset).from_dict(prepare(found).config)
    assert (config.IMAGE_CHANNEL_ORDER, config.RESNET_STRIDE_IN_3X3) == ("bgr", False)


def test_classes_by_hand(theirs):
    """Class k of theirs is k + 1 here, and the background, their last, 0."""
    found = detectron2.convert(theirs).arrays
    scores = theirs["roi_heads.box_predictor.cls_score.bias"]
    boxes = theirs["roi_heads.box_predictor.bbox_pred.weight"]  # (dx, dy, dw, dh) of class 0, of class 1, ...
    masks = theirs["roi_heads.mask_head.predictor.weight"]
    assert (len(scores), len(boxes), len(masks)) == (K, 4 * (K - 1), K - 1)
    for k in range(K - 1):
        assert found["mrcnn_class_logits"]["bias"][k + 1] == scores[k]
        ours = found["mrcnn_bbox_fc"]["kernel"][:, 4 * (k + 1) : 4 * (k + 2)]
        assert np.array_equal(ours, boxes[[4 * k + 1, 4 * k, 4 * k + 3, 4 * k + 2]].T)
        assert np.array_equal(found["mrcnn_mask"]["kernel"][0, 0, :, k + 1], masks[k, :, 0, 0])
    assert found["mrcnn_class_logits"]["bias"][0] == scores[K - 1]
    assert not found["mrcnn_bbox_fc"]["kernel"][:, :4].any() and not found["mrcnn_mask"]["kernel"][..., 0].any()
    fates = {fate.target: fate.how for fate in detectron2.convert(theirs).fates}
    assert "the background from the last place to the first" in fates["mrcnn_class_logits/kernel"]
    assert "zeros for the background" in fates["mrcnn_bbox_fc/bias"]


def test_boxes_and_masks_that_all_classes_share(theirs):
    state = dict(theirs)
    for name, rows in (("box_predictor.bbox_pred", 4), ("mask_head.predictor", 1)):
        for weight in ("weight", "bias"):
            state[f"roi_heads.{name}.{weight}"] = state[f"roi_heads.{name}.{weight}"][:rows]
    found = detectron2.convert(state)
    prepare(found)
    boxes = found.arrays["mrcnn_bbox_fc"]["bias"].reshape(K, 4)
    assert not boxes[0].any() and (boxes[1:] == boxes[1]).all() and boxes[1].any()
    masks = found.arrays["mrcnn_mask"]["kernel"]
    assert (masks[..., 1:] == masks[..., 1:2]).all()


def test_means_and_anchors(theirs):
    def fields(**more):
        return detectron2.convert({**theirs, **{name.replace("__", "."): array for name, array in more.items()}}).fields

    mean = np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1)
    found = fields(pixel_mean=mean, pixel_std=np.array([57.375, 57.12, 58.395], np.float32).reshape(3, 1, 1))
    assert found["IMAGE_CHANNEL_ORDER"] == "bgr"
    assert found["MEAN_PIXEL"] == [123.675, 116.28, 103.53] and found["STD_PIXEL"] == [58.395, 57.12, 57.375]
    assert fields()["STD_PIXEL"] == [1.0] and fields()["MEAN_PIXEL"] == [123.675, 116.28, 103.53]
    found = fields(pixel_mean=mean[::-1].copy(), pixel_std=np.ones((3, 1, 1)))
    assert (found["IMAGE_CHANNEL_ORDER"], found["MEAN_PIXEL"]) == ("rgb", [123.675, 116.28, 103.53])
    with pytest.raises(WeightsError, match="not those of three channels"):
        fields(pixel_std=np.zeros(3))

    def cells(size):  # as its code makes them: sqrt(size^2 / ratio) wide, times ratio high, around 0
        sides = [(size / ratio**0.5, size * ratio**0.5) for ratio in (0.5, 1.0, 2.0)]
        return np.array([(-w / 2, -h / 2, w / 2, h / 2) for w, h in sides], np.float32)

    name = "proposal_generator__anchor_generator__cell_anchors__"
    found = fields(**{f"{name}{level}": cells(2 ** (5 + level)) for level in range(5)})
    assert found["RPN_ANCHOR_SCALES"] == [32, 64, 128, 256, 512] and found["RPN_ANCHOR_RATIOS"] == [2, 1, 0.5]
    assert found["RPN_ANCHOR_RATIOS"] == list(presets.PRESETS["detectron2"]["RPN_ANCHOR_RATIOS"])
    with pytest.raises(WeightsError, match="several scales on a level"):
        fields(**{f"{name}0": np.concatenate([cells(32), cells(64)])})
    with pytest.raises(WeightsError, match=r"should be \[anchors, 4\]"):
        fields(**{f"{name}0": np.zeros(4)})
    unused = detectron2.convert({**theirs, "pixel_mean": mean}).unused
    assert [fate.how for fate in unused] == ["told by the configuration"]


def test_a_resnext_divides_by_the_deviations_of_imagenet():
    """Which its configuration says, and no file of the model zoo."""
    state = {"stem.conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    norms = {"stem.conv1": 64}
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3), start=2):
        width, outputs = 128 * 2 ** (stage - 2), 256 * 2 ** (stage - 2)
        for block in range(blocks):
            shapes = {"conv1": (width, inputs, 1, 1), "conv2": (width, 4 * 2 ** (stage - 2), 3, 3)}
            shapes |= {"conv3": (outputs, width, 1, 1), "shortcut": (outputs, inputs, 1, 1)}
            for name, shape in shapes.items():
                if name != "shortcut" or block == 0:
                    state[f"res{stage}.{block}.{name}.weight"] = np.zeros(shape, np.float32)
                    norms[f"res{stage}.{block}.{name}"] = shape[0]
            inputs = outputs
    for name, width in norms.items():
        parts = ("weight", "bias", "running_mean", "running_var")
        state |= {f"{name}.norm.{part}": np.ones(width, np.float32) for part in parts}
    found = detectron2.convert(state).fields
    assert found["BACKBONE"] == "resnext50_32x4d" and found["RESNET_STRIDE_IN_3X3"]
    assert (found["IMAGE_CHANNEL_ORDER"], found["STD_PIXEL"]) == ("bgr", [58.395, 57.12, 57.375])
    assert detectron2.convert({**state, "pixel_std": np.ones((3, 1, 1))}).fields["STD_PIXEL"] == [1, 1, 1]


def test_kinds_of_normalization(theirs):
    assert detectron2.convert(theirs).fields["NORM"] == "frozen"
    tracked = {**theirs, "backbone.bottom_up.stem.conv1.norm.num_batches_tracked": np.array(3)}
    assert detectron2.convert(tracked).fields["NORM"] == "batch"
    group = {name: array for name, array in as_detectron2(torchvision_v2()).items() if "running_" not in name}
    found = detectron2.convert(group)
    assert found.fields["NORM"] == "group" and found.fields["RESNET_STRIDE_IN_3X3"]
    assert found.fields["NORM_PARTS"] == ("backbone", "pyramid", "box_convs", "mask_convs")
    assert set(found.arrays["fpn_p2_bn"]) == {"gamma", "beta"}
    prepare(found)
    mixed = {**as_detectron2(torchvision_v2())}
    for weight in ("running_mean", "running_var"):
        del mixed[f"roi_heads.mask_head.mask_fcn2.norm.{weight}"]
    with pytest.raises(WeightsError, match=r"Some normalizations have statistics .*mask_fcn2\.norm"):
        detectron2.convert(mixed)


def caffe2_names(state):
    """A classifier of detectron2 as Caffe2 named its tensors, batch normalization folded into scale and offset."""
    renamed = {}
    for name, array in state.items():
        module, _, weight = name.rpartition(".")
        if weight in ("running_mean", "running_var", "num_batches_tracked"):
            continue
        normed = module.endswith(".norm")
        module = module.removesuffix(".norm").removeprefix("stem.").replace(".", "_")
        for place, branch in (("shortcut", "1"), ("_conv1", "_2a"), ("_conv2", "_2b"), ("_conv3", "_2c")):
            if module.startswith("res"):
                module = module.replace(place, f"branch{branch}" if place == "shortcut" else f"_branch{branch[1:]}")
        if module == "conv1" and normed:
            module = "res_conv1"
        ending = {"weight": "s", "bias": "b"}[weight] if normed else {"weight": "w", "bias": "b"}[weight]
        renamed[f"{module}{'_bn' if normed else ''}_{ending}"] = array
    return renamed


def test_classifiers():
    rng = np.random.default_rng(0)
    state = resnet18(rng)
    expected = torchvision.convert(state)
    theirs = as_detectron2(state, prefix="")
    for weights in (theirs, {**theirs, "stem.fc.weight": np.zeros((5, 512)), "stem.fc.bias": np.zeros(5)}):
        found = detectron2.convert(weights)
        assert_same(found.arrays, expected.arrays)
        assert found.preset is None and found.fields["BACKBONE"] == "resnet18" and found.fields["NORM"] == "batch"
        assert "RESNET_STRIDE_IN_3X3" in prepare(found).config
    folded = caffe2_names(theirs)
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch2a_w", "res3_0_branch1_bn_b"} <= set(folded)
    folded |= {"fc1000_w": np.zeros((5, 512)), "fc1000_b": np.zeros(5), "conv1_w_momentum": np.zeros(3)}
    found = detectron2.convert(folded)
    assert [fate.name for fate in found.unused] == ["fc1000_w", "fc1000_b"]
    prepare(found)
    for layer, weights in found.arrays.items():
        if layer.startswith("bn"):  # computes gamma * x + beta
            factor = weights["gamma"] / np.sqrt(weights["moving_variance"] + found.fields["NORM_EPSILON"])
            assert np.allclose(factor, expected.arrays[layer]["gamma"], rtol=1e-6)
            assert not weights["moving_mean"].any()
    for name, by_name in expected.arrays.items():
        for weight, array in by_name.items():
            if not weight.startswith("moving"):
                assert np.array_equal(found.arrays[name][weight], array)


def zeros(*names):
    return {name: np.zeros((2, 2), np.float32) for name in names}


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (zeros("roi_heads.box_head.0.fc1.weight", "roi_heads.box_predictor.2.cls_score.weight"), "a Cascade R-CNN"),
        (zeros("roi_heads.keypoint_head.conv_fcn1.weight", "backbone.fpn_lateral2.weight"), "a Keypoint R-CNN"),
        (zeros("roi_heads.mask_coarse_head.fc1.weight", "backbone.fpn_output2.weight"), "a PointRend"),
        (zeros("roi_heads.res5.0.conv1.weight", "backbone.stem.conv1.weight"), "of the C4 kind, without a pyramid"),
        (zeros("backbone.stem.conv1.weight", "roi_heads.box_head.fc1.weight"), "C4 or DC5 kind, without a pyramid"),
        (zeros("sem_seg_head.p2.0.weight", "backbone.fpn_output2.weight"), "a Panoptic FPN"),
        (zeros("head.cls_subnet.0.weight", "backbone.bottom_up.stem.conv1.weight"), "a RetinaNet"),
        (zeros("backbone.bottom_up.s1.b1.a.weight", "proposal_generator.rpn_head.conv.weight"), "on a RegNet"),
        (zeros("backbone.net.blocks.0.attn.qkv.weight", "proposal_generator.rpn_head.x.weight"), "vision transformer"),
        (zeros("backbone.bottom_up.res3.0.conv2_offset.weight"), "deformable convolutions"),
        (zeros("backbone.fpn_lateral6.weight", "backbone.fpn_output2.weight"), "another pyramid"),
        (zeros("roi_heads.box_head.fc1.weight", "backbone.fpn_output2.weight"), "a Faster R-CNN"),
        (zeros("proposal_generator.rpn_head.conv.weight", "backbone.fpn_output2.weight"), "region proposal network"),
        (zeros("conv1_w", "fpn_inner_res5_2_sum_w", "conv_rpn_fpn2_w"), "of Detectron, the predecessor"),
        (zeros("conv1_w", "stem.conv1.weight"), "for the same place"),
        (zeros("stem.conv1.weight", "res2.0.conv1.weight"), "stem.conv1.weight should have 4 dimensions"),
    ],
    ids=range(16),
)  # fmt: skip
def test_other_networks_are_refused_by_name(state, says):
    assert detectron2.is_detectron2(state)
    with pytest.raises(WeightsError, match=says):
        detectron2.convert(state)


def test_every_tensor_is_needed(theirs):
    """Left out one at a time: refused by its name, or by that of the weight it would have been."""
    left = [name for number, name in enumerate(theirs) if number % 9 == 0 or name.startswith(("roi", "prop"))]
    for name in left:
        state = {other: array for other, array in theirs.items() if other != name}
        with pytest.raises(WeightsError, match=r"not whole|backbone of|statistics|no place for"):
            prepare(detectron2.convert(state))
    strange = {**theirs, "roi_heads.mask_head.mask_fcn5.weight": np.zeros((6, 6, 3, 3), np.float32)}
    with pytest.raises(WeightsError, match="no place for mrcnn_mask_conv5/kernel"):
        prepare(detectron2.convert(strange))
    with pytest.raises(WeightsError, match=r"No layer takes these tensors: roi_heads\.extra\.weight"):
        detectron2.convert({**theirs, "roi_heads.extra.weight": np.zeros(3, np.float32)})
