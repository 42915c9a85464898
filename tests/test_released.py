"""Others' released weights by name, from a server on loopback: fetched once, checked, converted once. Nothing here uses
the network, or a framework."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from mrcnn import downloads, presets, released
from mrcnn.config import Config
from mrcnn.downloads import DownloadError, Release
from mrcnn.released import RELEASED, fetch_released, find_weights, find_with_part, imagenet_name, is_released
from mrcnn.weights.info import inspect_weights
from tests.foreign_weights import resnet18, torch_state, torchvision_v1
from tests.test_downloads import Handler

NAME = "torchvision/maskrcnn_resnet50_fpn_coco"
FILE = "maskrcnn-12345678.pth"


@pytest.fixture(scope="module")
def payload(tmp_path_factory):
    return torch_state(tmp_path_factory.mktemp("payload") / FILE, torchvision_v1()).read_bytes()


@pytest.fixture
def server(payload, monkeypatch, tmp_path):
    """The server, the cache in `tmp_path`, and NAME released there with what is known of its size and hash."""
    monkeypatch.setattr(downloads, "_BACKOFF_S", 0.0)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "MRCNN_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path / "cache"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.payload, server.plans, server.requests = payload, [], []
        server.etag, server.ranges, server.delay = '"one"', True, 0.0
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        digits = hashlib.sha256(payload).hexdigest()[:8]
        known = {"sha256": digits, "mebibytes": round(len(payload) / 2**20, 3), "magics": released._MAGICS}
        monkeypatch.setitem(RELEASED, NAME, Release(f"http://127.0.0.1:{server.server_port}/{FILE}", FILE, **known))
        yield server
        server.shutdown()
        thread.join()


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_fetched_and_converted_once(server, tmp_path):
    path = find_weights(NAME)
    assert path == tmp_path / "cache" / f"{NAME.replace('/', '-')}.v{released.VERSION}.h5"
    info = inspect_weights(path)
    assert (info.kind, info.metadata["preset"], info.num_classes) == ("mask_rcnn", "torchvision_v1", 5)
    assert info.metadata["converted_from"].startswith(f"torchvision's Mask R-CNN ({NAME}, http://127.0.0.1:")
    assert left_in(path.parent) == sorted([FILE, path.name])
    changed = path.stat().st_mtime_ns
    assert find_weights(NAME) == path and path.stat().st_mtime_ns == changed
    assert len(server.requests) == 1
    assert find_with_part(NAME, Config()) == (path, None)


def test_what_another_version_converted_is_converted_anew(server, tmp_path, monkeypatch):
    old = find_weights(NAME)
    monkeypatch.setattr(released, "VERSION", released.VERSION + 1)
    monkeypatch.setattr("mrcnn.converting.VERSION", released.VERSION)
    new = find_weights(NAME)
    assert new != old and inspect_weights(new).metadata["conversion"] == released.VERSION
    new.write_bytes(new.read_bytes()[:1000])  # damaged
    assert inspect_weights(find_weights(NAME)).kind == "mask_rcnn"
    assert len(server.requests) == 1


def test_broken_off_and_resumed(server):
    server.plans = [{"stop": 30_000}]
    assert find_weights(NAME).exists()
    assert [request.get("Range") for request in server.requests] == [None, "bytes=30000-"]


def test_the_wrong_file_is_not_kept(server, tmp_path):
    other = bytearray(server.payload)
    other[-1] ^= 1
    for payload, says in (
        (bytes(other), r"its SHA256 is [0-9a-f]{64} instead of [0-9a-f]{8}\.\.\."),
        (server.payload + bytes(2000), r"offers \d+ bytes instead of about \d+"),
        (b"<!DOCTYPE html>" + server.payload[15:], "is not such a file: it begins with b'<!DOCTYPE html>"),
    ):
        server.plans = [{"payload": payload}]
        with pytest.raises(DownloadError, match=says):
            find_weights(NAME)
        assert left_in(tmp_path / "cache") == []
    find_weights(NAME)


def test_put_there_by_hand(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_OFFLINE", "1")
    target = tmp_path / "cache" / FILE
    with pytest.raises(DownloadError, match=rf"downloads are off .*Put the file from .*{FILE} at {target}\."):
        find_weights(NAME)
    target.parent.mkdir()
    wrong = bytearray(server.payload)
    wrong[len(wrong) // 2] ^= 1
    target.write_bytes(wrong)
    with pytest.raises(DownloadError, match=r"is not the file from .*: its SHA256 is .*\. Remove it\."):
        find_weights(NAME)
    target.write_bytes(server.payload)
    assert find_weights(NAME).exists()
    assert server.requests == []


def test_a_backbone(server, tmp_path, monkeypatch):
    path = torch_state(tmp_path / "resnet18-x.pth", resnet18(np.random.default_rng(0)))
    server.payload = path.read_bytes()
    name = "torchvision/resnet18_imagenet1k_v1"
    monkeypatch.setitem(RELEASED, name, Release(RELEASED[NAME].url, "r.pth", magics=released._MAGICS))
    path = fetch_released(name, cache_dir=tmp_path / "elsewhere", progress=False)
    assert find_with_part(path, Config()) == (path, "backbone")
    assert left_in(tmp_path / "elsewhere") == ["r.pth", f"torchvision-resnet18_imagenet1k_v1.v{released.VERSION}.h5"]


@pytest.mark.parametrize(
    ("preset", "fields", "name"),
    [
        ("legacy", {}, "imagenet"),
        ("modern", {}, "torchvision/resnet50_imagenet1k_v2"),
        ("torchvision_v1", {"BACKBONE": "resnet18"}, "torchvision/resnet18_imagenet1k_v1"),
        ("detectron2", {"BACKBONE": "resnet101"}, "detectron2/R-101"),
    ],
)
def test_imagenet_is_what_the_backbone_computes_with(preset, fields, name):
    config = presets.subclass(Config, preset).from_dict(fields)
    assert imagenet_name(config) == name and (name == "imagenet" or name in RELEASED)


def test_imagenet_by_name(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.payload = torch_state(tmp_path / "resnet18-x.pth", resnet18(np.random.default_rng(0))).read_bytes()
    name = "torchvision/resnet18_imagenet1k_v1"
    monkeypatch.setitem(RELEASED, name, Release(RELEASED[NAME].url, "r.pth", magics=released._MAGICS))
    config = Config.modern().from_dict({"BACKBONE": "resnet18"})
    path, only = find_with_part("imagenet", config)
    assert only == "backbone" and inspect_weights(path).backbone == "resnet18"
    (tmp_path / "imagenet").write_bytes(path.read_bytes())
    assert find_with_part("imagenet", config)[0] == Path("imagenet")
    for backbone in ("resnext50_32x4d", "resnet14"):
        with pytest.raises(DownloadError, match=f"No ImageNet weights of '{backbone}'.*mrcnn convert"):
            imagenet_name(Config.modern().from_dict({"BACKBONE": backbone}))


def test_what_is_no_network_is_refused(server, tmp_path, monkeypatch):
    path = torch_state(tmp_path / "x.pth", {"encoder.weight": np.zeros(3, np.float32)})
    server.payload = path.read_bytes()
    monkeypatch.setitem(RELEASED, NAME, Release(RELEASED[NAME].url, "x.pth", magics=released._MAGICS))
    with pytest.raises(ValueError, match="no network that is known here"):
        find_weights(NAME)
    assert left_in(tmp_path / "cache") == ["x.pth"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("torchvision/maskrcnn_resnet50_fpn_v2", "Did you mean 'torchvision/maskrcnn_resnet50_fpn_v2_coco'"),
        ("detectron2/mask_rcnn_R50_FPN_3x", "Did you mean 'detectron2/mask_rcnn_R_50_FPN_3x'"),
        ("torchvision/vgg", "There are: torchvision/maskrcnn_resnet50_fpn_coco, "),
    ],
)
def test_names_that_are_nearly_one(name, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_released(name)
    with pytest.raises(DownloadError, match=f"There are no released weights {name!r}.*{says}"):
        find_weights(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("weights.h5", ""), ("cocoa", " Did you mean 'coco'?"), ("folder/weights.h5", ""), ("torchvision/x.h5", ""),
     ("mask_rcnn_R_50_FPN_3x", " Did you mean 'detectron2/mask_rcnn_R_50_FPN_3x' or")],
)  # fmt: skip
def test_files_that_are_not_there(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_released(name)
    with pytest.raises(FileNotFoundError, match=re.escape(f"There is no weights file {name}.{hint}")):
        find_weights(name)


def test_a_file_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / NAME).write_bytes(b"")
    assert not is_released(NAME)
    assert str(find_weights(NAME)) == os.path.join(*NAME.split("/"))


def test_the_list():
    """What is known of each file stands in its name: torchvision's begin with the SHA-256's first eight digits,
    detectron2's with the MD5's first six."""
    for name, release in RELEASED.items():
        whose, _, rest = name.partition("/")
        assert rest and not is_released(rest)
        assert release.magics == (b"PK\x03\x04", b"\x80")
        if whose == "torchvision":
            assert re.fullmatch(r"https://download\.pytorch\.org/models/[\w]+-[0-9a-f]{8}\.pth", release.url)
            assert release.url.endswith(f"-{release.sha256}.pth") and release.mebibytes > 40
            assert release.file_name == release.url.rpartition("/")[2]
        else:
            assert whose == "detectron2" and release.url.startswith("https://dl.fbaipublicfiles.com/detectron2/")
            if release.md5 is not None:
                assert re.fullmatch(rf".*/{rest}/\d+/model_final_{release.md5}\.pkl", release.url)
                assert re.fullmatch(r"[0-9a-f]{6}", release.md5)
    files = [release.file_name for release in RELEASED.values()]
    assert len(set(files)) == len(files)
    assert not set(files) & {release.file_name for release in downloads.RELEASES.values()}
