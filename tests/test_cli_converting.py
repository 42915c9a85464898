"""`mrcnn convert`, and what the other commands make of what it writes."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest

from mrcnn import released
from mrcnn.cli import main
from mrcnn.config import Config
from mrcnn.weights import WeightsError
from mrcnn.weights.info import inspect_weights
from tests.command_line import error_line
from tests.foreign_weights import K, as_detectron2, call, pickled, resnet18, torch_state, torchvision_v1

SMALL = ["IMAGE_MIN_DIM=64", "IMAGE_MAX_DIM=64", "POST_NMS_ROIS_INFERENCE=20", "PRE_NMS_LIMIT=50",
         "DETECTION_MIN_CONFIDENCE=0.0", "DETECTION_MAX_INSTANCES=5"]  # fmt: skip


def calm(state):
    """Weights small enough that nothing overflows."""
    return {
        name: (array * 0.02).astype(np.float32) if array.ndim > 1 else array for name, array in state.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A Mask R-CNN of each, and a backbone."""
    folder = tmp_path_factory.mktemp("files")
    state = calm(torchvision_v1())
    torch_state(folder / "theirs.pth", state)
    pixels = {"pixel_mean": np.array([103.53, 116.28, 123.675]).reshape(3, 1, 1), "pixel_std": np.ones((3, 1, 1))}
    (folder / "model_final.pkl").write_bytes(
        pickle.dumps({"model": {**as_detectron2(state), **pixels}, "__author__": "me"})
    )
    torch_state(folder / "resnet18.pth", calm(resnet18(np.random.default_rng(0))))
    return folder


def test_convert_and_tell(files, tmp_path, capsys):
    out, report = tmp_path / "ours.h5", tmp_path / "fates.txt"
    assert main(["convert", str(files / "theirs.pth"), str(out), "--classes", "a,b,c,d", "--report", str(report)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "torchvision's Mask R-CNN\n142 of 142 tensors are used; preset torchvision_v1\n" in told.out
    assert f"BACKBONE resnet18, NUM_CLASSES {K}, RESNET_STRIDE_IN_3X3 True, NORM frozen" in told.out
    assert f"use it: mrcnn detect photo.jpg --weights {out}" in told.out and "->" not in told.out
    lines = report.read_text().splitlines()
    assert len(lines) == 143
    assert "backbone.body.conv1.weight (64 x 3 x 7 x 7) -> conv1/kernel: [out, in, h, w] to [h, w, in, out]" in lines

    assert main(["info", str(out)]) == 0
    told = capsys.readouterr().out
    for row in (
        r"holds: +mask_rcnn", r"backbone: +resnet18", r"class names: +BG, a, b, c, d", r"preset: +torchvision_v1",
        r"image size: +shorter side 800, longer at most 1333", r"converted from: +torchvision's Mask R-CNN \(theirs",
    ):  # fmt: skip
        assert re.search(row, told), row
    assert main(["info", "--json", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["ROI_ALIGN"] == "unaligned"


def test_every_fate(files, tmp_path, capsys):
    assert main(["convert", "-v", str(files / "model_final.pkl"), str(tmp_path / "ours.h5")]) == 0
    told = capsys.readouterr().out
    assert "detectron2's Mask R-CNN\n142 of 144 tensors are used (2 not: told by the configuration); preset" in told
    assert told.count(" -> ") == 144
    assert "pixel_mean (3 x 1 x 1) -> not used: told by the configuration" in told
    assert "roi_heads.mask_head.predictor.bias (4) -> mrcnn_mask/bias: zeros for the background" in told


@pytest.mark.parametrize("whose", ["theirs.pth", "model_final.pkl"])
def test_the_file_is_all_that_it_takes(whose, files, tmp_path):
    """A network is built from what is written alone, and has all of its weights."""
    from mrcnn.engines.opening import _load_weights
    from mrcnn.presets import subclass
    from mrcnn.weights.recognition import convert_file
    from mrcnn.weights.variables import model_layers

    out = tmp_path / "ours.h5"
    assert main(["convert", str(files / whose), str(out)]) == 0
    network, config, names = _load_weights(out, None, "keras", None)
    found = convert_file(files / whose)
    assert config.to_dict() == subclass(Config, found.preset).from_dict(found.fields).to_dict()
    assert names is None
    for layer, weights in model_layers(network).items():
        for name, variable in weights.items():
            assert np.array_equal(variable.numpy(), found.arrays.get(layer, {}).pop(name)), (layer, name)
    assert not any(found.arrays.values())


def test_detect_with_it(files, tmp_path, capsys):
    from PIL import Image

    out, photo = tmp_path / "ours.h5", tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photo)
    convert = ["convert", str(files / "theirs.pth"), str(out), "--classes", "a,b,c,d", "--config", *SMALL]
    assert main(convert) == 0
    detect = ["detect", str(photo), "--weights", str(out), "--engine", "keras", "--precision", "float32"]
    assert main([*detect, "--output", str(tmp_path / "found"), "--format", "csv"]) == 0
    rows = (tmp_path / "found" / "measurements.csv").read_text().splitlines()
    assert len(rows) == 1 + 5 and all(re.search(r",[abcd],", row) for row in rows[1:])
    assert "stores no configuration" not in capsys.readouterr().err


def test_other_networks_are_warned_of(files, tmp_path):
    from mrcnn.model import MaskRCNN

    out = tmp_path / "ours.h5"
    assert main(["convert", str(files / "theirs.pth"), str(out), "--config", *SMALL]) == 0
    fields = inspect_weights(out).config
    config = Config.detectron2().from_dict(
        {**{name: fields[name] for name in fields if name not in ("MEAN_PIXEL", "STD_PIXEL")},
         "RESNET_STRIDE_IN_3X3": False, "IMAGE_CHANNEL_ORDER": "bgr"}
    )  # fmt: skip
    model = MaskRCNN("inference", config, tmp_path / "logs")
    says = (
        r"trained for another network \(preset torchvision_v1\): RESNET_STRIDE_IN_3X3 is False and was True; STD_PIXEL "
        r"is \[1\.0\] and was \[58\.39.*\]; IMAGE_CHANNEL_ORDER is bgr and was rgb\."
    )
    with pytest.warns(UserWarning, match=says) as warned:
        model.load_weights(out)
    assert warned[0].filename == __file__


def test_names_wherever_weights_are_taken(files, tmp_path, monkeypatch, capsys):
    from mrcnn.downloads import DownloadError
    from mrcnn.engines.base import EngineError
    from mrcnn.inference import Detector
    from mrcnn.model import MaskRCNN

    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path))
    monkeypatch.setenv("MRCNN_OFFLINE", "1")
    name = "torchvision/maskrcnn_resnet50_fpn_coco"
    release = released.Release("https://example.org/theirs.pth", "theirs.pth", magics=released._MAGICS)
    monkeypatch.setitem(released.RELEASED, name, release)
    (tmp_path / "theirs.pth").write_bytes((files / "theirs.pth").read_bytes())
    (tmp_path / "resnet18-f37072fd.pth").write_bytes((files / "resnet18.pth").read_bytes())

    assert main(["info", name]) == 0
    assert "preset:          torchvision_v1" in capsys.readouterr().out
    assert main(["convert", name, str(tmp_path / "copy.h5"), "--config", *SMALL]) == 0
    assert f"converted from:  torchvision's Mask R-CNN ({name}, https://example.org/theirs.pth)" in _info(
        tmp_path, capsys
    )
    config = Config.torchvision_v1().from_dict(inspect_weights(tmp_path / "copy.h5").config)
    model = MaskRCNN("inference", config, tmp_path / "logs")
    assert model.load_weights(name).complete
    assert Detector(name, engine="keras", precision="float32").config.NUM_CLASSES == K

    for attempt in (lambda name: model.load_weights(name), lambda name: Detector(name)):
        with pytest.raises(DownloadError, match=f"Did you mean '{name}'"):
            attempt(name[:-1])
    with pytest.raises(EngineError, match=r"theirs\.pth is neither .* `mrcnn convert .*theirs\.pth NAME\.h5`"):
        Detector(files / "theirs.pth")
    with pytest.raises(
        WeightsError, match=r"theirs\.pth is not an HDF5 weights file: it is a zip archive: of a PyTorch"
    ):
        model.load_weights(files / "theirs.pth")
    assert main(["detect", "x.png", "--weights", name[:-1], "--output", str(tmp_path / "o")]) == 1
    assert f"Did you mean '{name}'" in error_line(capsys)
    # A backbone's file that is not the one released.
    with pytest.raises(
        DownloadError, match=r"resnet18-f37072fd\.pth has \d+ bytes instead of about 46830.*downloads are off"
    ):
        model.load_weights("torchvision/resnet18_imagenet1k_v1")
    backbone = released.Release("https://example.org/r.pth", "resnet18-f37072fd.pth", magics=released._MAGICS)
    monkeypatch.setitem(released.RELEASED, "torchvision/resnet18_imagenet1k_v1", backbone)
    with pytest.warns(UserWarning, match="NORM_EPSILON is 0.0 and was 1e-05"):
        report = model.load_weights("torchvision/resnet18_imagenet1k_v1")
    assert set(report.loaded) == {layer.name for layer in model.keras_model.layers
                                  if layer.weights and layer.name.startswith(("conv1", "bn", "res"))}  # fmt: skip


def _info(folder, capsys):
    capsys.readouterr()
    assert main(["info", str(folder / "copy.h5")]) == 0
    return capsys.readouterr().out


def test_what_cannot_be_is_said_before_anything_is_written(files, tmp_path, capsys):
    theirs, backbone, out = str(files / "theirs.pth"), str(files / "resnet18.pth"), str(tmp_path / "ours.h5")
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickled({"model": call("os.system", f"touch {tmp_path}/ran")}))
    cut = tmp_path / "cut.pth"
    cut.write_bytes((files / "theirs.pth").read_bytes()[:100_000])
    before = sorted(path.name for path in tmp_path.iterdir())
    for arguments, says in (
        ([theirs, str(tmp_path / "ours.pth")], "a file named .h5"),
        ([theirs, str(tmp_path / "ours.weights.h5")], "not .weights.h5"),
        ([theirs, str(tmp_path / "none" / "ours.h5")], "does not exist"),
        ([theirs, out, "--report", str(tmp_path / "none" / "x.txt")], "does not exist"),
        ([theirs, out, "--report", out], "Give it a name of its own"),
        ([theirs, out, "--classes", "a,b"], "--classes must name the 4 classes of"),
        ([backbone, out, "--classes", "a,b"], "a backbone has no classes"),
        ([theirs, out, "--config", "NUM_CLASSES=7"], "mrcnn_class_logits/kernel is (12, 5) instead of (12, 7)"),
        ([theirs, out, "--config", "BATCH_SIZE=7"], "BATCH_SIZE follows from"),
        ([theirs, out, "--config", "NORM_EPSILLON=7"], "No such field of Config: NORM_EPSILLON. Near: NORM_EPSILON"),
        ([str(evil), out], f"{evil} asks for os.system, and is not read"),
        ([str(cut), out], f"{cut} is truncated or damaged"),
        ([str(tmp_path / "nothing.pth"), out], "no weights file"),
        ([str(tmp_path), out], "is not a file"),
        (["coco", out], "coco are weights of this package's layers already"),
        (["torchvision/maskrcnn", out], "no released weights 'torchvision/maskrcnn'. Did you mean 'torchvision/"),
    ):  # fmt: skip
        assert main(["convert", *arguments]) == 1, arguments
        assert says in error_line(capsys), arguments
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert main(["convert", theirs, out]) == 0
    capsys.readouterr()
    assert main(["convert", out, out]) == 1
    assert "is the file to convert" in error_line(capsys)
    assert main(["convert", out, str(tmp_path / "again.h5")]) == 1
    assert "holds weights of this package's layers already (mask_rcnn)" in error_line(capsys)


def test_a_backbone_to_train_from(files, tmp_path, capsys):
    out = tmp_path / "backbone.h5"
    assert main(["convert", str(files / "resnet18.pth"), str(out)]) == 0
    told = capsys.readouterr().out
    assert "a ResNet classifier of torchvision or timm" in told and f"mrcnn train ... --weights {out}" in told
    from mrcnn.cli.training import training_values

    values = training_values(inspect_weights(out))
    assert values["BACKBONE"] == "resnet18" and values["CONV_BIAS"] is False and values["NORM_EPSILON"] == 1e-5
    Config.from_dict(values)
