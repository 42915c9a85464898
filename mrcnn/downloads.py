"""Released weights fetched into a cache folder: resumable, checked, and never half a file under the final
name.

A download grows in `<name>.part`, with what is needed to go on with it after a break in `<name>.part.json`,
and takes its name only when its size, its hash where one is known, and its contents are right. Processes that
want the same file at once take turns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mrcnn.cache import cache_folder
from mrcnn.release_files import HDF5, RELEASES, Release, complaint_of

__all__ = ["RELEASES", "DownloadError", "Release", "fetch_release", "fetch_weights", "is_offline"]

OFFLINE_VARIABLE = "MRCNN_OFFLINE"

_ATTEMPTS = 5  # in a row that bring nothing new, before giving up
_BACKOFF_S = 1.0  # before the second attempt; doubles with each
_LONGEST_BACKOFF_S = 30.0
_TIMEOUT_S = 30.0  # without a single byte
_POLL_S = 0.2
_BLOCK = 1 << 18

# Worth another attempt: time-outs, too many requests, and the server's own troubles.
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})


class DownloadError(RuntimeError):
    """A file that could not be fetched. The message says why, and where to put it by hand."""


class _BrokenOffError(Exception):
    """A transfer that may go better next time."""


def is_offline() -> bool:
    """Whether the environment variable MRCNN_OFFLINE forbids the network."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off")


def fetch_weights(
    name_or_url: str,
    cache_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    progress: bool = True,
    base_url: str | None = None,
) -> Path:
    """The path of a weights file, which is downloaded first if it is not in the cache.

    Args:
        name_or_url: "coco" (Mask R-CNN with a ResNet-101, 81 classes, 258 MB), "imagenet" (the backbone of a
            ResNet-50, 94 MB), or the http(s) URL of a weights file.
        cache_dir: the folder to keep it in. None: `cache_folder()`.
        offline: True never uses the network. None: what MRCNN_OFFLINE says.
        progress: whether to show a progress bar, on standard error.
        base_url: a mirror to take "coco" and "imagenet" from: the URL of a folder with files of the same
            names.

    Returns:
        The path. The file is whole, and holds Keras weights.

    Raises:
        DownloadError: the file could not be fetched, or is not what it should be. A transfer that broke off
            goes on from there at the next call.
    """
    return fetch_release(_release(name_or_url, base_url), name_or_url, cache_dir, offline, progress)


def fetch_release(
    release: Release, name: str, cache_dir: str | os.PathLike | None, offline: bool | None, progress: bool
) -> Path:
    """As `fetch_weights`, of a file that is described; `name` is what messages call it."""
    folder = cache_folder() if cache_dir is None else Path(cache_dir)
    target = folder / release.file_name
    complaint = complaint_of(target, release)
    if complaint is None:
        return target
    by_hand = f"Put the file from {release.url} at {target}."
    if is_offline() if offline is None else offline:
        raise DownloadError(f"{name}: {complaint}, and downloads are off ({OFFLINE_VARIABLE}). {by_hand}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(target, progress) as alone:
            if complaint_of(target, release) is None:  # another process was quicker
                return target
            part = target.with_name(target.name + (".part" if alone else f".{os.getpid()}.part"))
            _download(release, part, progress)
            complaint = complaint_of(part, release, whole=True)
            if complaint is not None:
                _discard(part)
                raise DownloadError(f"What came from {release.url} is not the file: {complaint}. It was removed.")
            os.replace(part, target)
            _discard(part)
    except DownloadError as error:
        raise DownloadError(f"{error} {by_hand}") from error
    except OSError as error:
        raise DownloadError(f"Keeping {release.file_name} in {folder} failed: {error}.") from error
    return target


def _release(name_or_url: str, base_url: str | None) -> Release:
    if name_or_url in RELEASES:
        release = RELEASES[name_or_url]
        if base_url is None:
            return release
        return dataclasses.replace(release, url=_checked_url(f"{base_url.rstrip('/')}/{release.file_name}"))
    if "://" not in str(name_or_url):
        near = difflib.get_close_matches(str(name_or_url).lower(), RELEASES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DownloadError(
            f"Weights to fetch are {', '.join(map(repr, RELEASES))} or an http(s) URL. Received: {name_or_url!r}.{hint}"
        )
    url = _checked_url(name_or_url)
    # Files of the same name from two places must not be taken for each other.
    place = hashlib.sha256(url.encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(urlsplit(url).path).rpartition("/")[2])[-80:]
    return Release(url, f"{place}-{name or 'weights.h5'}")


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise DownloadError(f"A URL begins with http:// or https://. Received: {url!r}.")
    return url


def _download(release: Release, part: Path, progress: bool) -> None:
    """Bring `part` to its full length, over as many connections as it takes."""
    furthest, failures = 0, 0
    while True:
        try:
            _transfer(release, part, progress)
            return
        except _BrokenOffError as error:
            size = _size(part)
            failures = 0 if size > furthest else failures + 1
            furthest = max(furthest, size)
            if failures >= _ATTEMPTS:
                kept = f" {size} bytes are kept: the next call goes on from there." if size else ""
                raise DownloadError(f"{release.url} cannot be read: {error} ({failures} attempts).{kept}") from error
            time.sleep(min(_BACKOFF_S * 2**failures, _LONGEST_BACKOFF_S))


def _transfer(release: Release, part: Path, progress: bool) -> None:
    """One connection: start `part`, or go on with it where the server allows that and still has the same
    file."""
    state = _read_state(part, release.url)
    offset = _size(part) if state else 0
    if state and state["total"] is not None and offset == state["total"]:
        return
    headers = {"User-Agent": "mrcnn", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if state["validator"]:
            headers["If-Range"] = state["validator"]
    with _opened(release.url, headers, part) as response:
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        if response.status == 206:
            first, total = _content_range(response.headers)
            if not offset or first != offset or (state["total"] is not None and total != state["total"]):
                _discard(part)
                raise _BrokenOffError("the file changed meanwhile")
        elif response.status == 200:  # from the beginning: a new file, or no resuming here
            offset = 0
            _discard(part)
            if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
                raise DownloadError(f"{release.url} answers with a web page instead of a file.")
            _write_state(part, release.url, response.headers, total)
        else:
            raise DownloadError(f"{release.url} answers {response.status} {response.reason}.")
        right = None if total is None else release.right_size(total)
        if right is not None:
            _discard(part)
            raise DownloadError(f"{release.url} offers {total} bytes instead of {right}.")
        _refuse_full_disk(part, None if total is None else total - offset)
        try:
            received = _receive(response, part, offset, total, release, progress)
        except DownloadError:
            _discard(part)
            raise
    if total is not None and received < total:
        raise _BrokenOffError(f"the connection broke off at {received} of {total} bytes")


@contextlib.contextmanager
def _opened(url: str, headers: dict[str, str], part: Path) -> Iterator[http.client.HTTPResponse]:
    """A response, with errors sorted into those that are final and those worth another attempt."""
    opener = urllib.request.build_opener(_Redirects())
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # what is kept is longer than what there is
            _discard(part)
            raise _BrokenOffError("the file changed meanwhile") from error
        if error.code in _TEMPORARY:
            raise _BrokenOffError(f"the server answers {error.code} {error.reason}") from error
        raise DownloadError(f"{url} answers {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"The certificate of {url} cannot be trusted: {reason.verify_message}.") from error
        raise _BrokenOffError(f"{type(reason).__name__}: {reason}" if str(reason) else type(reason).__name__) from error
    with response:
        yield response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects, but not from https to http, where anyone on the way could exchange the file."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("https", "http")
        if urlsplit(newurl).scheme not in allowed:
            raise DownloadError(f"{req.full_url} leads to {newurl}, which is not {' or '.join(allowed)}.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(
    response: http.client.HTTPResponse, part: Path, offset: int, total: int | None, release: Release, progress: bool
) -> int:
    """Append the body to `part`; how long it is then."""
    from tqdm import tqdm

    bar = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=release.file_name, disable=not progress)
    with bar, part.open("ab") as file:
        while True:
            try:
                block = response.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _BrokenOffError(f"the connection broke off: {type(error).__name__}") from error
            if not block:
                break
            if not offset and not any(block.startswith(magic[: len(block)]) for magic in release.magics or HDF5):
                kind = "such a file" if release.magics else "an HDF5 file"
                raise DownloadError(f"{release.url} is not {kind}: it begins with {block[:16]!r}.")
            file.write(block)
            offset += len(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
    return offset


def _content_range(headers: Message) -> tuple[int, int | None]:
    """First byte and total length of a partial answer; (-1, None) where it does not say."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _refuse_full_disk(part: Path, wanted: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted is not None and wanted > free:
        raise DownloadError(f"{wanted / 1e6:.0f} MB are to come, and {part.parent} has {free / 1e6:.0f} MB free.")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _write_state(part: Path, url: str, headers: Message, total: int | None) -> None:
    """Note what tells later whether the server still has the same file. A weak ETag does not tell."""
    etag = headers.get("ETag", "")
    validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    _state_path(part).write_text(json.dumps({"url": url, "validator": validator, "total": total}))


def _read_state(part: Path, url: str) -> dict[str, Any] | None:
    """The note on a download that can be gone on with, or None."""
    try:
        state = json.loads(_state_path(part).read_text())
        if state["url"] == url and (state["validator"] or state["total"] is not None):
            return state
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or not ours: the download starts again
    return None


def _discard(part: Path) -> None:
    for path in (part, _state_path(part)):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _turn(target: Path, progress: bool) -> Iterator[bool]:
    """Wait until no other process downloads `target`. The system frees the lock when a process dies.

    Gives False where the file system has no locks: the caller must then use a name of its own.
    """
    with target.with_name(f".{target.name}.lock").open("a+b") as file:
        told = False
        while not (locked := _try_lock(file)):
            if locked is None:
                yield False
                return
            if progress and not told:
                print(f"Waiting for another process to download {target.name}.", file=sys.stderr)
                told = True
            time.sleep(_POLL_S)
        yield True


def _try_lock(file: Any) -> bool | None:
    """True: locked until the file is closed. False: another process holds it. None: there are no locks
    here."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True
