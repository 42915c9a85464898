"""Others' weights as weights files of this package: whose a file is, what is stored, and what is refused before
anything is written. No framework is needed."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from mrcnn import presets
from mrcnn.config import Config, ConfigError
from mrcnn.converting import VERSION, check_name, prepare, write_converted
from mrcnn.data.coco_names import COCO_NAMES, names_by_category
from mrcnn.weights import torchvision
from mrcnn.weights.contents import WeightsError, open_weights, read_array, read_contents
from mrcnn.weights.info import inspect_weights
from mrcnn.weights.layout import backbone_layout
from mrcnn.weights.recognition import convert_file
from tests.foreign_weights import (
    K,
    as_detectron2,
    norm,
    resnet18,
    safetensors,
    torch_state,
    torchvision_v1,
    torchvision_v2,
)
from tests.test_keras_applications import DEPTHS, layers_of
from tests.test_keras_applications import write as write_keras
from tests.test_weights_files import keras2_file


@pytest.fixture(scope="module")
def v1():
    return torchvision_v1()


@pytest.fixture(scope="module")
def classifier():
    return resnet18(np.random.default_rng(0))


def write_state(folder, state, ending):
    path = folder / f"weights{ending}"
    if ending == ".pth":
        return torch_state(path, state)
    if ending == ".safetensors":
        return safetensors(path, {name: array for name, array in state.items() if array.dtype.kind == "f"})
    path.write_bytes(pickle.dumps({"model": state, "__author__": "somebody"}))
    return path


@pytest.mark.parametrize(
    ("whose", "ending"), [("torchvision", ".pth"), ("torchvision", ".safetensors"), ("detectron2", ".pkl")]
)
def test_a_mask_rcnn(whose, ending, v1, tmp_path):
    state = v1 if whose == "torchvision" else as_detectron2(v1)
    found = convert_file(write_state(tmp_path, state, ending))
    assert found.source == f"{whose}'s Mask R-CNN"
    assert found.preset == {"torchvision": "torchvision_v1", "detectron2": "detectron2"}[whose]
    names = ("BG", "a", "b", "c", "d")
    write_converted(prepare(found, {"DETECTION_MAX_INSTANCES": 7}, names), tmp_path / "ours.h5", "weights")
    info = inspect_weights(tmp_path / "ours.h5")
    assert (info.kind, info.backbone, info.num_classes, info.class_names) == ("mask_rcnn", "resnet18", K, names)
    assert info.metadata["preset"] == found.preset and info.metadata["conversion"] == VERSION
    assert info.metadata["converted_from"] == f"{whose}'s Mask R-CNN (weights)"
    config = Config.from_dict(info.config)
    wanted = presets.subclass(Config, found.preset).from_dict({**found.fields, "DETECTION_MAX_INSTANCES": 7})
    assert config.to_dict() == wanted.to_dict()
    with open_weights(tmp_path / "ours.h5") as file:
        stored = read_contents(file).layers
        assert {name for name, weights in stored.items() if weights} == set(found.arrays)
        for layer, weights in found.arrays.items():
            for weight, array in weights.items():
                assert np.array_equal(read_array(file, stored[layer][weight]), array)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.h5", f"weights{ending}"]


def test_a_backbone(classifier, tmp_path):
    state = {**classifier, "fc.weight": np.zeros((9, 512), np.float32), "fc.bias": np.zeros(9, np.float32)}
    found = convert_file(torch_state(tmp_path / "resnet18.pth", state))
    assert found.preset is None and [fate.name for fate in found.unused if "fc" in fate.name] == [
        "fc.weight",
        "fc.bias",
    ]
    write_converted(prepare(found), tmp_path / "ours.h5", "resnet18.pth")
    info = inspect_weights(tmp_path / "ours.h5")
    assert (info.kind, info.backbone) == ("backbone only", "resnet18")
    assert info.config == {
        "BACKBONE": "resnet18", "IMAGE_CHANNEL_COUNT": 3, "NORM": "batch", "RESNET_STRIDE_IN_3X3": True,
        "SYMMETRIC_PADDING": True, "CONV_BIAS": False, "NORM_EPSILON": 1e-5,
        "MEAN_PIXEL": [123.675, 116.28, 103.53], "STD_PIXEL": [58.395, 57.12, 57.375],
    }  # fmt: skip
    Config.modern().from_dict(info.config)
    with pytest.raises(WeightsError, match="Names of classes are for a Mask R-CNN"):
        prepare(found, class_names=("BG", "a"))


def test_names_of_cocos_classes():
    def rows(count):
        state = torchvision_v1()
        for name, each in (("cls_score", 1), ("bbox_pred", 4)):
            for weight in ("weight", "bias"):
                key = f"roi_heads.box_predictor.{name}.{weight}"
                state[key] = np.resize(state[key], (each * count, *state[key].shape[1:]))
        for weight in ("weight", "bias"):
            key = f"roi_heads.mask_predictor.mask_fcn_logits.{weight}"
            state[key] = np.resize(state[key], (count, *state[key].shape[1:]))
        return torchvision.convert(state)

    names = prepare(rows(91)).class_names
    assert names == names_by_category() and len(set(names)) == 91
    # https://cocodataset.org: category 13 is the stop sign, 18 the dog, 90 the toothbrush; there is no 12.
    assert [names[number] for number in (0, 1, 12, 13, 18, 90)] == [
        "BG", "person", "unused 12", "stop sign", "dog", "toothbrush",
    ]  # fmt: skip
    assert [name for name in names if not name.startswith("unused")] == list(COCO_NAMES)
    assert prepare(rows(81)).class_names == COCO_NAMES
    assert prepare(rows(80)).class_names is None
    with pytest.raises(WeightsError, match="has 80 classes, background included. Received: 3 names"):
        prepare(rows(80), class_names=("BG", "a", "b"))


def test_what_does_not_fit_is_refused(v1):
    def changed(**tensors):
        state = {**v1, **{name.replace("__", "."): array for name, array in tensors.items()}}
        return torchvision.convert({name: array for name, array in state.items() if array is not None})

    with pytest.raises(WeightsError, match=r"none for fpn_c3p3/kernel, fpn_c3p3/bias\."):
        prepare(changed(backbone__fpn__inner_blocks__1__0__weight=None, backbone__fpn__inner_blocks__1__0__bias=None))
    with pytest.raises(WeightsError, match=r"not whole: it has no backbone\.fpn\.layer_blocks\.0\.0\.weight"):
        changed(backbone__fpn__layer_blocks__0__0__weight=None)
    with pytest.raises(WeightsError, match=r"rpn_conv_shared/kernel is \(1, 1, 8, 8\) instead of \(3, 3, 8, 8\)"):
        prepare(changed(rpn__head__conv__0__0__weight=np.zeros((8, 8, 1, 1), np.float32)))
    with pytest.raises(WeightsError, match="NaN or infinity in 1 weights: mrcnn_class_logits/bias"):
        prepare(changed(roi_heads__box_predictor__cls_score__bias=np.full(K, np.nan, np.float32)))
    with pytest.raises(WeightsError, match="holds no weights but values of type int64"):
        changed(roi_heads__box_predictor__cls_score__bias=np.zeros(K, np.int64))
    with pytest.raises(WeightsError, match="no square region of 8 channels"):
        changed(roi_heads__box_head__fc6__weight=np.zeros((12, 8 * 50), np.float32))
    with pytest.raises(WeightsError, match=r"bbox_pred\.bias of shape \(7,\) is for no mrcnn_bbox_fc"):
        changed(roi_heads__box_predictor__bbox_pred__bias=np.zeros(7, np.float32))
    anchors = changed(
        rpn__head__cls_logits__weight=np.zeros((5, 8, 1, 1), np.float32),
        rpn__head__cls_logits__bias=np.zeros(5, np.float32),
        rpn__head__bbox_pred__weight=np.zeros((20, 8, 1, 1), np.float32),
        rpn__head__bbox_pred__bias=np.zeros(20, np.float32),
    )
    with pytest.raises(WeightsError, match="5 anchors at each place, and RPN_ANCHOR_RATIOS"):
        prepare(anchors)
    prepare(anchors, {"RPN_ANCHOR_RATIOS": [3, 2, 1, 0.5, 0.33]})
    with pytest.raises(ConfigError, match="No such field of Config: NO_FIELD"):
        prepare(torchvision.convert(v1), {"NO_FIELD": 3})


def test_half_precision(v1, tmp_path):
    """Weights of float16 become float32, which all is here."""
    state = {name: array.astype(np.float16) if array.dtype.kind == "f" else array for name, array in v1.items()}
    path = tmp_path / "half.pkl"
    path.write_bytes(pickle.dumps(state))
    found = convert_file(path)
    kernel = found.arrays["conv1"]["kernel"]
    assert kernel.dtype == np.float32
    assert np.array_equal(kernel, state["backbone.body.conv1.weight"].transpose(2, 3, 1, 0).astype(np.float32))


def test_whose_it_is_not(tmp_path, classifier, v1):
    path = tmp_path / "x.pkl"

    def refused(state, says):
        path.write_bytes(pickle.dumps(state))
        with pytest.raises(WeightsError, match=says) as caught:
            convert_file(path)
        assert str(caught.value).startswith(str(path)) and len(str(caught.value)) < 900

    arrays = {"encoder.weight": np.zeros(3, np.float32)}
    refused(arrays, r"no network that is known here\. Converted are torchvision's .* It holds encoder\.weight")
    refused({**classifier, "layer1.0.se.fc1.weight": np.zeros(3)}, "a ResNet of timm with an attention of channels")
    deep = {name.replace("conv1.weight", "conv1.0.weight", 1) if name == "conv1.weight" else name: array
            for name, array in classifier.items()}  # fmt: skip
    refused(deep, "a deep stem of three convolutions")
    keypoints = {**v1, "roi_heads.keypoint_predictor.kps_score_lowres.weight": np.zeros(3)}
    refused(keypoints, "a Keypoint R-CNN of torchvision")
    refused({name: array for name, array in v1.items() if "mask" not in name}, "a Faster R-CNN of torchvision")
    retina = {name: array for name, array in v1.items() if not name.startswith(("rpn", "roi"))}
    refused({**retina, "head.classification_head.conv.0.0.weight": np.zeros(3)}, "a RetinaNet or FCOS of torchvision")
    extra = dict(v1)
    norm(extra, "backbone.body.layer3.0.bn3", 256, np.random.default_rng(0))
    path.write_bytes(pickle.dumps(extra))
    with pytest.raises(WeightsError, match="no place for bn4a_branch2c"):
        prepare(convert_file(path))


def test_files_of_keras(tmp_path):
    names = ("conv1", "res2a_branch2a")
    ours = keras2_file(tmp_path / "a.h5", {name: {f"{name}/kernel:0": np.zeros((1, 1, 3, 2))} for name in names})
    with pytest.raises(WeightsError, match=r"a\.h5 holds weights of this package's layers already \(backbone only\)"):
        convert_file(ours)
    other = keras2_file(tmp_path / "b.h5", {"dense": {"dense/kernel:0": np.zeros((2, 2), np.float32)}})
    with pytest.raises(WeightsError, match=r"b\.h5 is no network that is known here"):
        convert_file(other)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(WeightsError, match=r"c\.h5 is an HDF5 file, but not one of Keras weights"):
        convert_file(tmp_path / "c.h5")
    with pytest.raises(FileNotFoundError):
        convert_file(tmp_path / "none.h5")


def test_a_backbone_of_keras_applications(tmp_path):
    tiny = convert_file(write_keras(tmp_path / "tiny.h5", layers_of(DEPTHS["resnet50"], "predictions")))
    assert tiny.source == "a ResNet classifier of keras.applications"
    with pytest.raises(WeightsError, match=r"conv1/kernel is \(7, 7, 3, 2\) instead of \(7, 7, 3, 64\)"):
        prepare(tiny)
    layout = backbone_layout(Config.from_dict(tiny.fields))
    with h5py.File(tmp_path / "real.h5", "w") as file:  # of the real shapes, and nothing written of them: zeros
        names: dict[str, list[str]] = {}
        for fate in tiny.fates:
            if fate.target is not None:
                ours, weight = fate.target.split("/")
                layer = fate.name.split("/")[0]
                names.setdefault(layer, []).append(f"{fate.name}:0")
                file.require_group(layer).create_dataset(f"{fate.name}:0", layout[ours][weight], np.float32)
        file.attrs["layer_names"] = [name.encode() for name in names]
        for layer, weights in names.items():
            file[layer].attrs["weight_names"] = [name.encode() for name in weights]
    write_converted(prepare(convert_file(tmp_path / "real.h5")), tmp_path / "ours.h5", "real.h5")
    info = inspect_weights(tmp_path / "ours.h5")
    assert (info.kind, info.backbone, info.config["CONV_BIAS"]) == ("backbone only", "resnet50", True)
    assert info.parameter_count == 23_587_712  # as keras.applications tells of ResNet50 without its top


def test_where_converted_weights_go(tmp_path, v1):
    for name in ("x.pth", "x.weights.h5", "x"):
        with pytest.raises(WeightsError, match=r"a file named \.h5"):
            check_name(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        check_name(tmp_path / "nowhere" / "x.h5")
    (tmp_path / "x.h5").mkdir()
    with pytest.raises(IsADirectoryError):
        check_name(tmp_path / "x.h5")


def test_as_torchvision_first_named_them(v1):
    """The files that it released first have other names for the same tensors."""
    old = {}
    for name, array in v1.items():
        name = name.replace("_blocks.", "_blocks@").replace("rpn.head.conv.0.0", "rpn.head.conv")
        if "@" in name:
            name = name.replace("@", ".").replace(".0.weight", ".weight", 1).replace(".0.bias", ".bias", 1)
        for index in range(4):
            name = name.replace(f"mask_head.{index}.0.", f"mask_head.mask_fcn{index + 1}.")
        old[name] = array
    old_names = {"backbone.fpn.inner_blocks.2.weight", "rpn.head.conv.bias", "roi_heads.mask_head.mask_fcn1.weight"}
    assert old_names <= set(old) and not old_names & set(v1)
    found, expected = torchvision.convert(old), torchvision.convert(v1)
    assert found.fields == expected.fields
    assert all(
        np.array_equal(found.arrays[layer][name], array)
        for layer, weights in expected.arrays.items()
        for name, array in weights.items()
    )
    assert prepare(torchvision.convert(torchvision_v2())).conversion.preset == "torchvision_v2"
