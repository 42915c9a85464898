"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; on leaving, flush it to the disk and rename it to
    `path`.

    If the body raises, the temporary file is removed and `path` stays as it was.

        with atomic_path("results.json") as temporary:
            temporary.write_text(...)

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: `path` is a folder.
    """
    path = Path(path)
    require_folder(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself reaches the disk with the folder; elsewhere a folder cannot be opened
        _flush(path.parent)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file as UTF-8, with lines ended by a newline alone, whole or not at all.

    Raises:
        FileNotFoundError, IsADirectoryError: as `atomic_path`.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


@contextlib.contextmanager
def atomic_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary folder beside `folder` to fill; on leaving, flush it to the disk and rename it to `folder`, in
    place of one that is there.

    If the body raises, the temporary folder is removed and `folder` stays as it was. A crash between two renames, of
    the old folder out of the way and of the new one into its place, leaves both beside it, under hidden names.

    Raises:
        FileNotFoundError: the folder that it is to be in does not exist.
        NotADirectoryError: `folder` is a file.
    """
    folder = Path(folder)
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"The folder {folder.parent} does not exist. Create it first, or choose another.")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"A folder is to be written, and this is a file: {folder}")
    beside = f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary, old = folder.with_name(beside + ".tmp"), folder.with_name(beside + ".old")
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file() or os.name == "posix":
                _flush(path)
        if folder.exists():
            os.rename(folder, old)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
    if os.name == "posix":
        _flush(folder.parent)


def require_folder(path: str | os.PathLike) -> None:
    """Refuse a `path` that no file can be written to: cheap, so worth asking before a long run.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"A file name is needed, and this is a folder: {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {path.parent} does not exist. Create it first, or choose another than {path}."
        )


def _flush(path: Path) -> None:
    # Windows flushes only what is open for writing; POSIX opens a folder only for reading.
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
