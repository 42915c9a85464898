"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
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
