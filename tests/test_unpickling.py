"""Pickles read as data: arrays as numpy 1 and 2 write them in every protocol, and no step that a file could gain by."""

from __future__ import annotations

import argparse
import io
import os
import pickle
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest

from mrcnn.weights.contents import WeightsError
from mrcnn.weights.pickled_arrays import NUMPY, Array
from mrcnn.weights.torch_files import TORCH
from mrcnn.weights.unpickling import read_pickle
from tests.foreign_weights import call, global_, pickled


def read(data: bytes, known=TORCH):
    return read_pickle(io.BytesIO(data), "file.pkl", known)


def values(item):
    """Arrays and containers as they were before they were pickled."""
    if isinstance(item, Array):
        return item.array()
    if isinstance(item, dict):
        return {key: values(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return type(item)(values(value) for value in item)
    return item


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_arrays_of_every_protocol(protocol, core):
    rng = np.random.default_rng(0)
    arrays = {
        "kernel": rng.normal(size=(3, 2, 4)).astype(np.float32), "halves": np.arange(6, dtype=np.float16),
        "columns": np.asfortranarray(rng.normal(size=(3, 4))), "big": np.arange(5, dtype=">f8"),
        "count": np.array(7), "none": np.zeros((0, 3), np.float32), "flags": np.array([True, False]),
        "view": np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2], "bytes": np.arange(256, dtype=np.uint8),
    }  # fmt: skip
    own = f"{np._core.__name__ if hasattr(np, '_core') else 'numpy.core'}".encode()
    data = pickle.dumps(arrays, protocol)
    if protocol < 4:  # names of modules are of known length in later ones
        data = data.replace(own, core.encode())
    found = values(read(data, NUMPY))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_every_protocol(protocol):
    tree = {
        "text": "Ähre", "bytes": b"\x00\xff", "numbers": [0, 1, 255, 65536, -1, 2**70, 1.5], "none": None, "yes": True,
        "no": False, "nested": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, [], {"a": []}],
        "scalar": np.float32(0.5), "whole": np.int64(3),
    }  # fmt: skip
    assert values(read(pickle.dumps(tree, protocol))) == tree
    made = read(pickle.dumps([OrderedDict(a=1, b=2), Counter("aab"), defaultdict(list, a=[1]), {3, 4}], protocol))
    assert made == [{"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": [1]}, {3, 4}]
    shared = read(pickle.dumps([[1]] * 3, protocol))
    assert shared[0] is shared[2]
    if protocol > 1:  # torch.save's is 2
        assert len(read(pickle.dumps([argparse.Namespace(lr=0.1), OrderedDict()], protocol))) == 2


def test_python_2():
    """As cPickle of Python 2 has text and arrays: strings of bytes, which here are Latin-1."""
    array = np.arange(-3, 3, dtype=np.float32)
    raw = array.tobytes()
    binary = (
        b"\x80\x02}q\x00(U\x07conv1_wq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85"
        b"U\x01b\x87Rq\x04(K\x01K\x06\x85cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tbu."
    )
    text = (
        b"(dp0\nS'conv1_w'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntS'b'\ntRp4\n(I1\n"
        b"(I6\ntcnumpy\ndtype\np5\n(S'f4'\nI0\nI1\ntRp6\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'"
        + "".join(f"\\x{byte:02x}" for byte in raw).encode()
        + b"'\ntbs."
    )
    for data in (binary, text):
        assert np.array_equal(values(read(data))["conv1_w"], array)
    assert read(b"U\x02\xc4\xe9.") == "Äé"


def hostile():
    """Pickles that would run something, by what they ask for."""
    ran = "touch ran"
    reach = call("builtins.getattr", call("builtins.__import__", "os"), "system")
    yield "os.system", pickled(call("os.system", ran))
    yield "posix.system", pickled(call("posix.system", ran))
    yield "nt.system", pickled(call("nt.system", ran))
    yield "subprocess.Popen", pickled(call("subprocess.Popen", ran))
    yield "builtins.eval", pickled(call("builtins.eval", "__import__('os').system('touch ran')"))
    yield "__builtin__.eval", pickled(call("__builtin__.eval", "1"))
    yield "builtins.exec", pickled({"conv1.weight": call("builtins.exec", "open('ran', 'w')")})
    yield "builtins.getattr", pickled(reach)
    yield "numpy.load", pickled(call("numpy.load", "x.npy"))
    yield "numpy.testing._private.utils.runstring", pickled(call("numpy.testing._private.utils.runstring", ran, {}))
    yield "numpy.f2py.crackfortran.getlincoef", pickled(call("numpy.f2py.crackfortran.getlincoef", ran, {}))
    yield "torch.load", pickled(call("torch.load", "x.pth"))
    yield "torch.storage._load_from_bytes", pickled(call("torch.storage._load_from_bytes", b"x"))
    yield "torch.hub.load", pickled(call("torch.hub.load", "x", "y"))
    yield "torch.nn.modules.conv.Conv2d", pickled(call("torch.nn.modules.conv.Conv2d"))
    yield "collections.OrderedDict.__init__", b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93."
    yield "runpy._run_code", pickled([global_("runpy._run_code")])
    # In a dict that is otherwise one of weights, in the state of an array, and as a persistent id.
    yield "os.system", pickled({"a": np.zeros(2), "b": call("os.system", ran)})
    array = call(
        "numpy.core.multiarray._reconstruct", global_("numpy.ndarray"), (0,), b"b", state=call("os.system", ran)
    )
    yield "os.system", pickled({"a": array})
    yield "os.system", pickled(global_("os.system"), 0)


@pytest.mark.parametrize(("asked", "data"), list(hostile()), ids=lambda part: part if isinstance(part, str) else "")
def test_what_could_run_is_refused_by_name(asked, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for known in (NUMPY, TORCH):
        with pytest.raises(WeightsError) as caught:
            read(data, known)
        assert f"asks for {asked}, and is not read" in str(caught.value)
        assert str(caught.value).startswith("file.pkl") and "torch.save(model.state_dict(), path)" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_what_the_interpreter_would_run_is_what_is_refused(tmp_path, monkeypatch):
    """The files above are real: loaded by Python itself, they do run."""
    monkeypatch.chdir(tmp_path)
    ran = dict(hostile())["builtins.exec"]
    pickle.loads(ran)
    assert os.listdir(tmp_path) == ["ran"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pickled(call("numpy.ndarray", (2,))), "numpy.ndarray is called"),
        (pickled(call("numpy.dtype", "O")), "'O', which holds no plain numbers"),
        (pickled(call("numpy.dtype", "S100000000000")), "holds no plain numbers"),
        (pickled(call("numpy.dtype", "f4", state=(3, "<", ("f4", (9,)), None, None, -1, -1, 0))), "several parts"),
        (pickled(call("_codecs.encode", "x", "unicode_escape")), "encoded otherwise"),
        (pickled(call("torch.FloatStorage")), "torch.FloatStorage is called"),
        (pickled(call("torch._utils._rebuild_tensor_v2", 1, 0, (1,), (1,), False, None)), "a tensor without numbers"),
        (b"\x80\x02cnumpy\nndarray\n(dc\x00", "truncated or damaged"),
        # A state for a class, which would change it for everybody.
        (pickled(call("numpy.dtype", "f4"))[:-1] + b"0cnumpy\nndarray\n}U\x01aK\x01sb.", "not what a step needs"),
        (b"\x80\x02(cos\nsystem\n", "os.system"),
        (b"(S'touch ran'\nios\nsystem\n.", "the step INST"),
        (b"(cnumpy\ndtype\nS'f4'\no.", "the step OBJ"),
        (b"\x80\x02\x82\x01.", "the step EXT1"),
        (b"\x80\x05\x97.", "the step NEXT_BUFFER"),
        (b"Pabc\n.", "the step PERSID"),
        (b"\x80\x02K\x01Q.", "refers to what is not in it"),
        (b"\x80\x02}(K\x01)\x85)\x85K\x02u.", "a key of type tuple"),
        (b"\x80\x02}K\x01s.", "truncated or damaged"),
        (b"", "ends before the pickle does"),
        (b".", "truncated or damaged"),
        (b"\xffabc", "no step of a pickle"),
        (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.", "damaged"),
        (b"\x80\x02h\x07.", "truncated or damaged"),
        (b"S'abc\n.", "a string without its end"),
    ],
    ids=range(24),
)  # fmt: skip
def test_what_no_weights_have(data, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=says) as caught:
        read(data)
    assert "file.pkl" in str(caught.value) and len(str(caught.value)) < 500
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "state",
    [
        (1, (3,), np.dtype("f4"), False, b"\0" * 8), (1, (-1,), np.dtype("f4"), False, b""),
        (1, (2**40, 2**40), np.dtype("f4"), False, b""), (1, (0, 2**60), np.dtype("f4"), False, b""),
        (1, (2,), np.dtype("f4"), False, [1, 2]), (1, (1,) * 9, np.dtype("f4"), False, b"\0" * 4),
        (1, (1.0,), np.dtype("f4"), False, b"\0" * 4), (1, (True,), np.dtype("f4"), False, b"\0" * 4),
        (1, (2,), "f4", False, b"\0" * 8), (2,), None,
    ],
)  # fmt: skip
def test_arrays_of_wrong_sizes(state):
    array = call("numpy.core.multiarray._reconstruct", global_("numpy.ndarray"), (0,), b"b", state=state or 1)
    with pytest.raises(WeightsError, match=r"file\.pkl is (truncated or )?damaged"):
        read(pickled({"a": array}))


def test_small_files_do_not_become_large():
    # The memo's places are by number: of Python's own reader, this one takes 64 GB.
    assert read(b"\x80\x02K\x01r\xff\xff\xff\xff.") == 1
    # One long list, made into a thousand dicts.
    pairs = [(str(number), 0) for number in range(100_000)]
    data = pickled([call("collections.OrderedDict", pairs) for _ in range(1000)])
    assert len(data) < 3_000_000
    with pytest.raises(WeightsError, match="larger than itself"):
        read(data)


def test_damaged_anywhere():
    """Whatever bytes are lost or changed: it is read, or refused with a message, and nothing else happens."""
    rng = np.random.default_rng(0)
    tree = {"conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "epoch": 3, "names": ["a", ("b", None)]}
    outcomes = Counter()
    for protocol in (0, 2, 4):
        whole = pickle.dumps(tree, protocol)
        for end in range(0, len(whole) - 1, 3):
            with pytest.raises(WeightsError):
                read(whole[:end])
        for _ in range(1500):
            data = bytearray(whole)
            for place in rng.integers(len(data), size=rng.integers(1, 4)):
                data[place] = rng.integers(256)
            try:
                values(read(bytes(data)))
            except WeightsError:
                outcomes["refused"] += 1
            else:
                outcomes["read"] += 1
    assert min(outcomes.values()) > 300
