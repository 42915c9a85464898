"""State dicts out of files: those that torch.save wrote, in both of its formats, and those made by hand, damaged ones
among them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mrcnn.weights.contents import WeightsError
from mrcnn.weights.state_dicts import read_state_dict
from tests.foreign_weights import Stored, call, global_, pickled, safetensors, tensor, torch_state, torch_zip

ROOT = Path(__file__).parents[1]
KINDS = ("plain", "parameters", "checkpoint", "lightning", "parallel")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder with what `tests.write_torch_files` writes."""
    folder = tmp_path_factory.mktemp("torch")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.write_torch_files", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("ending", ["", "_old"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_torch_saved(saved, kind, ending):
    with np.load(saved / "expected.npz") as file:
        expected = {name.split("/")[1]: file[name] for name in file.files if name.startswith(f"{kind}/")}
    found = read_state_dict(saved / f"{kind}{ending}.pth")
    assert list(found) == list(expected) and len(expected) >= 5
    for name, array in expected.items():
        assert found[name].shape == array.shape and np.array_equal(found[name].astype(np.float32), array), name
    if kind != "parameters":
        kinds = {name: str(found[name].dtype) for name in ("halves", "brains", "doubles", "flags", "whole")}
        assert list(kinds.values()) == ["float16", "float32", "float64", "bool", "uint8"]


@pytest.mark.parametrize("ending", ["", "_old"])
def test_a_whole_model_is_refused(saved, ending):
    with pytest.raises(WeightsError, match=r"asks for tests\.write_torch_files\.Halves|asks for __main__\.Halves|step"):
        read_state_dict(saved / f"whole{ending}.pth")
    with pytest.raises(WeightsError, match=r"script\.pth is a TorchScript program\. Save its weights"):
        read_state_dict(saved / "script.pth")


@pytest.mark.parametrize("ending", ["", "_old"])
def test_truncated_anywhere(saved, ending, tmp_path):
    data = (saved / f"plain{ending}.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for end in [0, 1, 5, 20, 100, *range(200, len(data) - 1, len(data) // 40), len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(WeightsError, match=r"cut\.pth"):
            read_state_dict(path)


def test_damaged_anywhere(saved, tmp_path):
    """A byte changed: it is read, or refused with a message, and nothing else happens."""
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "bad.pth", 0
    for ending in ("", "_old"):
        whole = (saved / f"plain{ending}.pth").read_bytes()
        for _ in range(400):
            data = bytearray(whole)
            data[rng.integers(min(len(data), 4000))] = rng.integers(256)
            path.write_bytes(data)
            try:
                read_state_dict(path)
            except WeightsError:
                refused += 1
    assert refused > 300


def small(path, **entries):
    stored = Stored("0", "FloatStorage", 6)
    tree = {"a": tensor(stored, 0, (2, 3), (3, 1)), "b": tensor(stored, 1, (2,), (2,))}
    return torch_zip(path, tree, {"0": np.arange(6, dtype=np.float32).tobytes()}, **entries)


def test_made_by_hand(tmp_path):
    found = read_state_dict(small(tmp_path / "x.pth"))
    assert np.array_equal(found["a"], [[0, 1, 2], [3, 4, 5]]) and np.array_equal(found["b"], [1, 3])
    big = np.arange(6, dtype=">f4").tobytes()
    path = torch_zip(tmp_path / "big.pth", {"a": tensor(Stored("0", "FloatStorage", 6), 0, (6,), (1,))}, {"0": big},
                     byteorder=b"big")  # fmt: skip
    assert np.array_equal(read_state_dict(path)["a"], np.arange(6))


FLOATS = np.arange(6, dtype=np.float32).tobytes()


@pytest.mark.parametrize(
    ("view", "says"),
    [
        ((Stored("0", "FloatStorage", 6), 0, (7,), (1,)), "shape (7,) in a storage of 6"),
        ((Stored("0", "FloatStorage", 6), 4, (3,), (1,)), "in a storage of 6 numbers"),
        ((Stored("0", "FloatStorage", 6), 0, (2, 3), (4, 1)), "in a storage of 6 numbers"),
        ((Stored("0", "FloatStorage", 6), -1, (2,), (1,)), "a tensor without numbers"),
        ((Stored("0", "FloatStorage", 6), 0, (100, 100), (0, 0)), "in a storage of 6 numbers"),
        ((Stored("0", "FloatStorage", 6), 0, (2,), (-1,)), "a shape that cannot be"),
        ((Stored("0", "FloatStorage", 6), 0, (2,), (1, 1)), "with 2 strides"),
        ((Stored("0", "FloatStorage", 6), 0, (2**40, 0, 2**40), (1, 1, 1)), "larger than any"),
        ((Stored("0", "FloatStorage", 7), 0, (7,), (1,)), "a storage of 7 numbers of type f4 has 24 bytes"),
        ((Stored("0", "FloatStorage", 5), 0, (5,), (1,)), "a storage of 5 numbers of type f4 has 24 bytes"),
        ((Stored("0", "DoubleStorage", 6), 0, (6,), (1,)), "a storage of 6 numbers of type f8 has 24 bytes"),
        ((Stored("1", "FloatStorage", 6), 0, (6,), (1,)), "is missing (data/1)"),
        ((Stored("../../etc/passwd", "FloatStorage", 6), 0, (6,), (1,)), "is missing"),
    ],
    ids=range(13),
)  # fmt: skip
def test_tensors_and_storages_that_do_not_fit(view, says, tmp_path):
    path = torch_zip(tmp_path / "x.pth", {"a": tensor(*view)}, {"0": FLOATS})
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert says in str(caught.value) and str(caught.value).startswith(f"{path} is damaged")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"photo.jpg": b"x"}, "none that torch.save wrote: it has no data.pkl"),
        ({"model.weights.h5": b"x", "config.json": b"{}"}, r"a \.keras file\. Save its weights"),
        ({"a/data.pkl": b"\x80\x02}.", "b/data.pkl": b"\x80\x02}."}, "none that torch.save wrote"),
        ({"a/data.pkl": b"\x80\x02}."}, "no tensors or arrays by name, but: nothing"),
        ({"a/data.pkl": b"\x80\x02}.", "a/byteorder": b"middle"}, "its order of bytes is b'middle'"),
    ],
)  # fmt: skip
def test_archives_of_others(entries, says, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as file:
        for name, data in entries.items():
            file.writestr(name, data)
    with pytest.raises(WeightsError, match=says):
        read_state_dict(tmp_path / "x.pth")


def test_a_bomb(tmp_path):
    """30 MB of zeros, which a few kB stand for."""
    bomb = torch_zip(tmp_path / "bomb.pth", {"a": tensor(Stored("0", "ByteStorage", 30_000_000), 0, (2,), (1,))}, {})
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(30_000_000))
    assert bomb.stat().st_size < 60_000
    with pytest.raises(WeightsError, match="its storages are larger than itself"):
        read_state_dict(bomb)
    small(bomb)
    with zipfile.ZipFile(bomb, "a") as old, zipfile.ZipFile(tmp_path / "new.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(WeightsError, match=r"is compressed, which torch\.save does not do"):
        read_state_dict(tmp_path / "new.pth")


def test_the_same_numbers_many_times_are_not_read_many_times(tmp_path):
    data = np.zeros(10_000, np.float32).tobytes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("archive/data/0", data)
        info = file.getinfo("archive/data/0")
        tree = {f"t{n}": tensor(Stored(str(n), "FloatStorage", 10_000), 0, (10_000,), (1,)) for n in range(50)}

        def persistent(item):
            if isinstance(item, Stored):
                return ("storage", global_(f"torch.{item.kind}"), item.key, "cpu", item.count)
            return None

        file.writestr("archive/data.pkl", pickled(tree, persistent=persistent))
        for number in range(1, 50):  # entries of one place
            again = zipfile.ZipInfo(f"archive/data/{number}")
            for part in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(again, part, getattr(info, part))
            file.filelist.append(again)
            file.NameToInfo[again.filename] = again
    with pytest.raises(WeightsError, match="larger than itself|damaged"):
        read_state_dict(tmp_path / "x.zip")


def test_pickles_of_arrays(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"stem.conv1.weight": rng.normal(size=(2, 3)).astype(np.float32), "pixel_mean": np.arange(3.0)}
    path = tmp_path / "model_final.pkl"
    for item in ({"model": arrays, "__author__": "me"}, arrays, {"blobs": arrays}, {"model": arrays, "iteration": 3}):
        for protocol in (0, 2, 4):
            path.write_bytes(pickle.dumps(item, protocol))
            found = read_state_dict(path)
            assert found.keys() == arrays.keys()
            assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps({"model": {}, "epoch": 3}))
    with pytest.raises(WeightsError, match="no tensors or arrays by name"):
        read_state_dict(path)
    path.write_bytes(pickled({"model": {"a": np.zeros(2), "b": call("os.system", "true")}}))
    with pytest.raises(WeightsError, match=r"asks for os\.system"):
        read_state_dict(path)


def test_safetensors(tmp_path):
    rng = np.random.default_rng(0)
    floats = rng.normal(size=(3, 2)).astype(np.float32)
    brains = (floats.view(np.uint32) >> 16).astype(np.uint16)
    path = safetensors(
        tmp_path / "model.safetensors",
        {"a": floats, "b": brains, "c": floats.astype(np.float16), "d": np.array(7)}, b="BF16", c="F16", d="I64",
    )  # fmt: skip
    found = read_state_dict(path)
    assert np.array_equal(found["a"], floats) and found["a"].dtype == np.float32
    assert np.allclose(found["b"], floats, rtol=2**-7) and found["b"].dtype == np.float32
    assert np.array_equal(found["b"].view(np.uint32), brains.astype(np.uint32) << 16)
    assert np.array_equal(found["c"], floats.astype(np.float16)) and found["d"] == 7
    data = path.read_bytes()
    for end in range(9, len(data) - 1, 11):
        path.write_bytes(data[:end])
        with pytest.raises(WeightsError, match=r"model\.safetensors is (truncated|damaged|none of)"):
            read_state_dict(path)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ('{"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}', "a is of type F8_E4M3. Read are: F64"),
        ('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "a of shape (2,) and type F32"),
        ('{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', "does not say what a is"),
        ('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}}', "a ends at byte 12 of 8"),
        ('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}', "is said to be at -4:0"),
        ('{"a": {"dtype": "F32", "shape": [1152921504606846976], "data_offsets": [0, 4]}}', "does not say what a is"),
        ('{"a": 3}', "does not say what a is"), ('{"a": {"dtype": ["F32"]}}', "does not say what a is"),
        ("{" + "[" * 100_000, "is no JSON"), ("{}", "holds no tensors"), ('{"__metadata__": {}}', "holds no tensors"),
    ],
    ids=range(11),
)  # fmt: skip
def test_safetensors_that_are_wrong(header, says, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert says in str(caught.value) and "x.safetensors" in str(caught.value)


def test_what_is_no_file_of_weights(tmp_path):
    path = tmp_path / "x.pth"
    for data, says in (
        (b"", "it is empty"), (b"<!DOCTYPE html>", "an HTML or XML page"), (b"version https://git-lfs.", "Git LFS"),
        (b"\x1f\x8b\x08", "gzip"), (b"\x00" * 30, "it begins with"), (os.urandom(3) + b"\xff" * 40, "it begins with"),
    ):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=rf"x\.pth is none of the files that are converted: .*{says}"):
            read_state_dict(path)
    with pytest.raises(FileNotFoundError, match=r"no weights file .*nothing\.pth"):
        read_state_dict(tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match="is not a file"):
        read_state_dict(tmp_path)


def test_a_state_dict_of_many_tensors(tmp_path):
    rng = np.random.default_rng(0)
    state = {f"layer{n}.weight": rng.normal(size=(n, 3)).astype(np.float32) for n in range(40)}
    state["layer.num_batches_tracked"] = np.array(3)
    found = read_state_dict(torch_state(tmp_path / "x.pth", state))
    assert list(found) == list(state)
    assert all(np.array_equal(found[name], array) and found[name].shape == array.shape for name, array in state.items())
