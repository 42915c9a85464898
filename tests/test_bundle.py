"""Exported models as folders: written whole or not at all, read with an eye for damage."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from mrcnn.bundle import MODEL_FILE, BundleError, is_bundle, read_bundle, write_bundle
from mrcnn.config import Config
from tests.backbones import five_convolutions
from tests.shapes import ShapesConfig


def write(folder, content=b"0123456789", config=None, names=("BG", "a", "b", "c"), check=lambda bundle: {"seen": 1}):
    def fill(there):
        (there / "model.xml").write_bytes(content)
        (there / "inner").mkdir()
        (there / "inner" / "more.bin").write_bytes(content)
        return "model.xml"

    return write_bundle(folder, "openvino", "float32", config or ShapesConfig(), names, fill, check)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "model")
    return tmp_path / "model"


def test_what_is_written_is_read(tmp_path):
    mean = np.array([1.5, 2.5, 3.5])
    config = ShapesConfig.from_dict({"MEAN_PIXEL": mean, "DETECTION_MIN_CONFIDENCE": 0.25})
    written = write(tmp_path / "model", config=config)
    bundle = read_bundle(str(tmp_path / "model"))
    assert bundle.format == written.format == "openvino" and bundle.precision == "float32"
    assert bundle.class_names == ("BG", "a", "b", "c") and bundle.checks == {"seen": 1}
    assert bundle.path == tmp_path / "model" / "model.xml" and bundle.path.read_bytes() == b"0123456789"
    assert bundle.config.to_dict() == config.to_dict()
    told = json.loads((tmp_path / "model" / MODEL_FILE).read_text())
    assert told["files"] == {"inner/more.bin": 10, "model.xml": 10}
    assert told["preprocessing"]["subtract"] == [1.5, 2.5, 3.5]
    assert is_bundle(tmp_path / "model") and not is_bundle(tmp_path)


def test_names_may_be_unknown_and_relative_folders_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write("model", names=None).class_names is None
    assert sorted(os.listdir(".")) == ["model"]


@pytest.mark.parametrize("name", ["model.xml", "inner/more.bin"])
def test_files_that_are_missing_or_cut_short(folder, name):
    (folder / name).write_bytes(b"0123")
    with pytest.raises(BundleError, match=r"has 4 bytes; 10 bytes were exported. Copy or export the model again"):
        read_bundle(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing; 10 bytes"):
        read_bundle(folder)


def change(folder, **fields):
    told = json.loads((folder / MODEL_FILE).read_text())
    told.update(fields)
    (folder / MODEL_FILE).write_text(json.dumps({k: v for k, v in told.items() if v != "gone"}))


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"format_version": 99}, "is of version 99; this package reads up to 1. Update it"),
        ({"format_version": "new"}, "cannot be used"),
        ({"config": "gone"}, "cannot be used: KeyError"),
        ({"config": {"NUM_CLASSES": -1}}, "cannot be used: ConfigError"),
        ({"config": {"NO_SUCH_FIELD": 1}}, "cannot be used: ConfigError"),
        ({"files": ["model.xml"]}, "cannot be used: AttributeError"),
        ({"files": {"model.xml": "many"}}, "cannot be used: ValueError"),
    ],
)
def test_descriptions_that_cannot_be_used(folder, fields, told):
    change(folder, **fields)
    with pytest.raises(BundleError, match=told):
        read_bundle(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 1'])
def test_descriptions_that_are_none(folder, text):
    (folder / MODEL_FILE).write_text(text)
    with pytest.raises(BundleError, match="cannot be used.*Export the model again"):
        read_bundle(folder)


def test_a_description_in_another_encoding(folder):
    (folder / MODEL_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="cannot be used"):
        read_bundle(folder)


def test_folders_that_are_no_exported_models(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no exported model"):
        read_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match=f"holds no {MODEL_FILE}. `mrcnn export` makes one"):
        read_bundle(tmp_path)


class Stop(Exception):
    pass


def stop(*arguments):
    raise Stop


def test_what_fails_leaves_the_old_one_as_it_was(folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(Stop):
        write(folder, b"new", check=stop)
    with pytest.raises(Stop):
        write_bundle(folder, "onnx", "float32", ShapesConfig(), None, stop, lambda bundle: {})
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert read_bundle(folder).path.read_bytes() == b"0123456789"
    assert os.listdir(folder.parent) == ["model"]  # and nothing beside it


def test_a_crash_between_the_renames_loses_nothing(folder, monkeypatch):
    """The new folder cannot take its place: the old one is there still, under another name."""
    rename, calls = os.rename, []

    def failing(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError("no more")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no more"):
        write(folder, b"new")
    monkeypatch.undo()
    left = [path for path in folder.parent.iterdir() if is_bundle(path)]
    assert left and read_bundle(left[0]).path.read_bytes() == b"0123456789"


def test_the_new_one_takes_the_place_of_the_old_one(folder):
    (folder / "stale.txt").write_text("old")
    write(folder, b"new!")
    assert read_bundle(folder).path.read_bytes() == b"new!"
    assert not (folder / "stale.txt").exists() and os.listdir(folder.parent) == ["model"]


def test_other_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.md").write_text("years of work")
    with pytest.raises(FileExistsError, match="exists and is no exported model. Choose another name"):
        write(tmp_path / "thesis")
    with pytest.raises(FileExistsError):
        write(tmp_path / "thesis" / "text.md")
    assert (tmp_path / "thesis" / "text.md").read_text() == "years of work"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write(tmp_path / "no" / "where")


def test_a_backbone_of_the_users_own_is_inside_the_model(tmp_path):
    config = ShapesConfig.from_dict({"BACKBONE": five_convolutions})
    bundle = write(tmp_path / "model", config=config)
    assert bundle.config.BACKBONE == Config.BACKBONE  # which nothing is built from
    assert bundle.config.NUM_CLASSES == 4


def test_sizes_that_only_a_function_tells_are_refused(tmp_path):
    def shapes(image_shape, extra=0):
        return np.array([[-(-image_shape[0] // s) + extra, -(-image_shape[1] // s)] for s in (4, 8, 16, 32, 64)])

    same = ShapesConfig.from_dict({"BACKBONE": five_convolutions, "COMPUTE_BACKBONE_SHAPE": shapes})
    assert write(tmp_path / "model", config=same).config.COMPUTE_BACKBONE_SHAPE is None
    other = ShapesConfig.from_dict(
        {"BACKBONE": five_convolutions, "COMPUTE_BACKBONE_SHAPE": lambda shape: shapes(shape, 1)}
    )
    with pytest.raises(BundleError, match="an exported model cannot carry a function"):
        write(tmp_path / "other", config=other)
    assert not (tmp_path / "other").exists()


def test_a_copy_elsewhere_is_as_good(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "far")
    shutil.rmtree(folder)
    assert read_bundle(tmp_path / "far").path.is_file()
