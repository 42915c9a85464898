"""Downloads, from a server on loopback that also misbehaves. Nothing here uses the network."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mrcnn import downloads
from mrcnn.cache import cache_folder
from mrcnn.downloads import DownloadError, Release, fetch_weights
from tests.test_weights_files import keras2_file

NAME = "weights.h5"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.payload; the next of server.plans, if any, says what goes wrong with a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        plan = server.plans.pop(0) if server.plans else {}
        server.requests.append(dict(self.headers))
        payload, status, start = plan.get("payload", server.payload), plan.get("status", 200), 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", server.etag) == server.etag
        if wanted and plan.get("ranges", server.ranges) and same and status == 200:
            start, status = int(wanted[1]), 206
            if start >= len(payload):
                status = 416
        body = payload[start:] if status in (200, 206) else b"no"
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", plan.get("range", f"bytes {start}-{len(payload) - 1}/{len(payload)}"))
        if "location" in plan:
            self.send_header("Location", plan["location"])
        if server.etag:
            self.send_header("ETag", plan.get("etag", server.etag))
        self.send_header("Content-Type", plan.get("type", "application/octet-stream"))
        if plan.get("length", True):
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        time.sleep(server.delay)
        self.wfile.write(body[: plan.get("stop")])
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(downloads, "_BACKOFF_S", 0.0)
    monkeypatch.setattr(downloads, "_BLOCK", 1 << 14)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "MRCNN_OFFLINE", "MRCNN_CACHE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def payload(tmp_path_factory):
    rng = np.random.default_rng(0)
    weights = {"dense": {"dense/kernel:0": rng.normal(size=(200, 100)).astype(np.float32)}}
    return keras2_file(tmp_path_factory.mktemp("payload") / NAME, weights).read_bytes()


@pytest.fixture
def server(payload):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.payload, server.plans, server.requests = payload, [], []
        server.etag, server.ranges, server.delay = '"one"', True, 0.0
        server.base = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def released(server, monkeypatch):
    """The server's file as a released one, with its size and hash known."""
    release = Release(f"{server.base}/{NAME}", NAME, len(server.payload), hashlib.md5(server.payload).hexdigest())
    monkeypatch.setitem(downloads.RELEASES, "coco", release)
    return server


def fetch(folder, name="coco", **arguments):
    return fetch_weights(name, cache_dir=folder, progress=False, **arguments)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_fetched_once(released, tmp_path):
    path = fetch(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / NAME
    assert path.read_bytes() == released.payload
    assert left_in(path.parent) == [NAME]
    assert fetch(path.parent) == path
    assert len(released.requests) == 1


def test_broken_off_twice_and_resumed(released, tmp_path):
    released.plans = [{"stop": 30_000}, {"stop": 20_000}]
    assert fetch(tmp_path).read_bytes() == released.payload
    assert [request.get("Range") for request in released.requests] == [None, "bytes=30000-", "bytes=50000-"]
    assert released.requests[1]["If-Range"] == '"one"'


def test_resumed_by_the_next_call(released, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_ATTEMPTS", 1)
    released.plans = [{"stop": 30_000}, {"status": 503}]
    with pytest.raises(DownloadError, match=r"503.*30000 bytes are kept.*Put the file from .* at .*weights\.h5"):
        fetch(tmp_path)
    assert left_in(tmp_path) == [NAME + ".part", NAME + ".part.json"]
    assert fetch(tmp_path).read_bytes() == released.payload
    assert released.requests[-1]["Range"] == "bytes=30000-"
    assert left_in(tmp_path) == [NAME]


def test_resumed_by_length_where_there_is_no_etag(released, tmp_path):
    released.etag = ""
    released.plans = [{"stop": 30_000}]
    assert fetch(tmp_path).read_bytes() == released.payload
    assert released.requests[1]["Range"] == "bytes=30000-"
    assert "If-Range" not in released.requests[1]


def test_a_server_without_ranges(released, tmp_path):
    released.ranges = False
    released.plans = [{"stop": 30_000}]
    assert fetch(tmp_path).read_bytes() == released.payload
    released.plans = [{"stop": 30_000}] * 20
    os.unlink(tmp_path / NAME)
    with pytest.raises(DownloadError, match="broke off at 30000 of"):
        fetch(tmp_path)
    assert len(released.plans) == 20 - (1 + downloads._ATTEMPTS)


@pytest.mark.parametrize("notices", ["server", "range", "total"])
def test_a_file_that_changed_meanwhile(server, tmp_path, notices):
    new = keras2_file(tmp_path / "new.h5", {"a": {"a/kernel:0": np.ones((90, 90))}}).read_bytes()
    server.plans = [{"stop": 30_000, "payload": server.payload}]
    server.payload = new
    if notices == "server":  # its ETag is another now, so it answers with the whole file
        server.plans[0]["etag"] = '"old"'
    elif notices == "range":
        server.plans.append({"range": "bytes 7-9/10"})
    path = fetch(tmp_path / "cache", f"{server.base}/x.h5")
    assert path.read_bytes() == new


@pytest.mark.parametrize("length", [200, 10_000_000])
def test_a_part_that_does_not_belong(released, tmp_path, length):
    (tmp_path / (NAME + ".part")).write_bytes(b"x" * length)
    assert fetch(tmp_path).read_bytes() == released.payload  # no note beside it: not trusted
    assert "Range" not in released.requests[0]
    os.unlink(tmp_path / NAME)
    (tmp_path / (NAME + ".part")).write_bytes(b"x" * length)
    note = {"url": f"{released.base}/{NAME}", "validator": '"one"', "total": len(released.payload)}
    (tmp_path / (NAME + ".part.json")).write_text(json.dumps(note))
    if length < len(released.payload):
        with pytest.raises(DownloadError, match="not the file"):
            fetch(tmp_path)
        assert left_in(tmp_path) == []
    assert fetch(tmp_path).read_bytes() == released.payload


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (403, "Forbidden"), (410, "Gone")])
def test_not_there(released, tmp_path, status, reason):
    released.plans = [{"status": status}]
    with pytest.raises(DownloadError, match=f"answers {status} {reason}"):
        fetch(tmp_path)
    assert len(released.requests) == 1
    assert left_in(tmp_path) == []


def test_trouble_that_passes(released, tmp_path):
    released.plans = [{"status": 500}, {"status": 429}, {"status": 503}]
    assert fetch(tmp_path).read_bytes() == released.payload
    assert len(released.requests) == 4


def test_trouble_that_stays(released, tmp_path):
    released.plans = [{"status": 502}] * 50
    with pytest.raises(DownloadError, match=r"502 Bad Gateway \(5 attempts\)"):
        fetch(tmp_path)


def test_nobody_answers(tmp_path):
    with pytest.raises(DownloadError, match=r"ConnectionRefusedError.*Put the file from"):
        fetch(tmp_path, "http://127.0.0.1:9/w.h5")


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"payload": b"<!DOCTYPE html><html>sign in</html>", "type": "text/html; charset=utf-8"}, "web page"),
        ({"payload": b"<!DOCTYPE html><html>sign in</html>"}, "begins with b'<!DOCTYPE html>"),
        ({"payload": b""}, "empty"),
        ({"payload": b"\x89HDF\r\n\x1a\n" + bytes(5000)}, "truncated or damaged"),
    ],
)
@pytest.mark.parametrize("length", [True, False])
def test_garbage_is_removed(server, tmp_path, plan, says, length):
    server.plans = [{**plan, "length": length}]
    with pytest.raises(DownloadError, match=says):
        fetch(tmp_path, f"{server.base}/w.h5")
    assert left_in(tmp_path) == []
    assert fetch(tmp_path, f"{server.base}/w.h5").read_bytes() == server.payload


def test_size_and_hash_are_held_to(released, tmp_path):
    other = bytearray(released.payload)
    other[-1] ^= 1
    released.plans = [{"payload": bytes(other)}]
    with pytest.raises(DownloadError, match="its MD5 is"):
        fetch(tmp_path)
    released.plans = [{"payload": released.payload + b"x"}]
    with pytest.raises(DownloadError, match=rf"offers {len(released.payload) + 1} bytes instead of"):
        fetch(tmp_path)
    assert left_in(tmp_path) == []


def test_without_a_length(server, tmp_path):
    server.plans = [{"length": False}]
    assert fetch(tmp_path, f"{server.base}/w.h5").read_bytes() == server.payload
    server.plans = [{"length": False, "stop": 30_000}]
    with pytest.raises(DownloadError, match="truncated"):
        fetch(tmp_path, f"{server.base}/v.h5")


def test_a_damaged_file_in_the_cache_is_fetched_again(released, tmp_path):
    (tmp_path / NAME).write_bytes(released.payload[:-100])
    assert fetch(tmp_path).read_bytes() == released.payload


def test_offline(released, tmp_path, monkeypatch):
    for arguments, setting in (({"offline": True}, "0"), ({}, "1"), ({}, "true")):
        monkeypatch.setenv("MRCNN_OFFLINE", setting)
        with pytest.raises(DownloadError, match=rf"MRCNN_OFFLINE.*Put the file from .* at {tmp_path / NAME}\."):
            fetch(tmp_path, **arguments)
    assert released.requests == []
    (tmp_path / NAME).write_bytes(b"")
    with pytest.raises(DownloadError, match=f"0 bytes instead of {len(released.payload)}"):
        fetch(tmp_path)
    fetch(tmp_path, offline=False)
    assert fetch(tmp_path) == tmp_path / NAME


def test_a_mirror(released, tmp_path):
    released.requests.clear()
    assert fetch(tmp_path, base_url=f"{released.base}/mirror/").name == NAME
    with pytest.raises(DownloadError, match="http"):
        fetch(tmp_path / "x", base_url="ftp://example.org")


def test_redirects(server, tmp_path):
    server.plans = [{"status": 302, "location": f"{server.base}/elsewhere.h5"}]
    assert fetch(tmp_path, f"{server.base}/w.h5").read_bytes() == server.payload
    for location in ("file:///etc/passwd", "ftp://127.0.0.1/w.h5"):
        server.plans = [{"status": 302, "location": location}]
        with pytest.raises(DownloadError, match="302|leads to"):
            fetch(tmp_path, f"{server.base}/v.h5")


def test_urls_of_the_same_name_are_kept_apart(server, tmp_path):
    first, second = fetch(tmp_path, f"{server.base}/a/w.h5"), fetch(tmp_path, f"{server.base}/b/w.h5")
    assert first != second
    assert first.name.endswith("-w.h5")
    sly = fetch(tmp_path, f"{server.base}/..%2f..%2fetc%2fw%20x.h5?download=1")
    assert sly.parent == tmp_path
    assert sly.name.endswith("-w_x.h5")
    assert fetch(tmp_path, f"{server.base}/").name.endswith("-weights.h5")


@pytest.mark.parametrize(
    ("name", "says"),
    [("cocoa", "Did you mean 'coco'"), ("weights.h5", "an http"), ("file:///etc/passwd", "http"), ("http://", "http")],
)
def test_names_that_are_none(tmp_path, name, says):
    with pytest.raises(DownloadError, match=says):
        fetch(tmp_path, name)


def test_a_full_disk(released, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DownloadError, match=r"0 MB free"):
        fetch(tmp_path)


def test_a_cache_that_cannot_be_written(released, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="failed"):
        fetch(tmp_path / "file")


def test_progress(released, tmp_path, capsys):
    fetch_weights("coco", cache_dir=tmp_path)
    assert f"{NAME}: 100%" in capsys.readouterr().err
    fetch_weights("coco", cache_dir=tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""


FETCH = """
import sys
from mrcnn import downloads
downloads._POLL_S = 0.02
print(downloads.fetch_weights(sys.argv[1], cache_dir=sys.argv[2], progress=False))
"""


def test_processes_take_turns(server, tmp_path):
    server.delay = 0.5
    command = [sys.executable, "-c", FETCH, f"{server.base}/w.h5", str(tmp_path)]
    root = Path(downloads.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    paths = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == server.payload
    assert len(server.requests) == 1


def test_without_locks(released, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_try_lock", lambda file: None)
    assert fetch(tmp_path).read_bytes() == released.payload
    assert left_in(tmp_path) == [NAME]


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("MRCNN_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("MRCNN_CACHE")
    assert cache_folder().name == "mrcnn" or "mrcnn" in str(cache_folder())


def test_released_files():
    assert downloads.RELEASES["coco"].url.endswith("/v2.0/mask_rcnn_coco.h5")
    assert downloads.RELEASES["imagenet"].url.endswith("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5")
    for release in downloads.RELEASES.values():
        assert release.url.startswith("https://")
        assert release.url.endswith("/" + release.file_name)
