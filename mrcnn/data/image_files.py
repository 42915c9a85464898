"""Many image files looked through: decoded in threads, compared by their bytes, and those beside them."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mrcnn.data.image_facts import ImageFacts, file_digest, image_facts
from mrcnn.data.image_lists import is_image

_FILES_AT_A_TIME = 4  # for each thread


def facts_in_threads(
    files: Mapping[str, Sequence[int]], end: float | None, workers: int
) -> Iterator[tuple[str, list[ImageFacts | Exception | None]]]:
    """Decode files, no more at a time than the threads need.

    Args:
        files: the frames of each that are wanted.
        end: `time.monotonic()` at which to stop decoding; None: at the end.
        workers: threads.

    Yields:
        Each file, in the order given, with what `image_facts` gives; None for each frame where the time was over.
    """

    def look(path: str) -> list[ImageFacts | Exception | None]:
        if end is not None and time.monotonic() >= end:
            return [None] * len(files[path])
        return image_facts(path, files[path])

    with ThreadPoolExecutor(workers, "mrcnn-check") as pool:
        waiting: deque[tuple[str, Future]] = deque()
        try:
            for path in files:
                waiting.append((path, pool.submit(look, path)))
                if len(waiting) >= workers * _FILES_AT_A_TIME:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def same_content(files: Iterable[str], end: float | None, workers: int) -> Iterator[tuple[str, str]]:
    """Files of the same bytes as one before, with that one. Only files of one length are read, until the time `end`.
    Empty ones, and those that cannot be read, are left out."""
    of_length: dict[int, list[str]] = {}
    for path in files:
        try:
            of_length.setdefault(os.stat(path).st_size, []).append(path)
        except (OSError, ValueError):  # it is missing, which is told
            continue
    doubtful = [path for length, paths in of_length.items() if length and len(paths) > 1 for path in paths]

    def digest(path: str) -> bytes | None:
        if end is not None and time.monotonic() >= end:
            return None
        try:
            return file_digest(path)
        except OSError:
            return None

    first: dict[bytes, str] = {}
    with ThreadPoolExecutor(workers, "mrcnn-check") as pool:
        for path, found in zip(doubtful, pool.map(digest, doubtful), strict=True):
            if found is not None and first.setdefault(found, path) != path:
                yield path, first[found]


def unlisted(files: Iterable[str]) -> Iterator[str]:
    """Image files beside those that are listed."""
    listed = set(files)
    for folder in sorted({os.path.dirname(path) for path in files}):
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        except (OSError, ValueError):  # its images are missing, which is told
            continue
        for name in names:
            path = os.path.join(folder, name)
            if is_image(Path(name)) and path not in listed:
                yield path
