"""Videos and cameras: frames in, detections drawn, a video out. Read and written by OpenCV; sound is not kept.

Letters: H, W height and width of a frame; N instances. Frames are RGB [H, W, 3] uint8, upright.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mrcnn.colors import instance_colors
from mrcnn.drawing import draw_instances
from mrcnn.files import atomic_path
from mrcnn.quiet import hidden_error_stream

READABLE = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv",
)  # fmt: skip

# Of each kind of file, codecs by preference; builds of OpenCV differ in what they can write. All players know H.264
# (avc1); MPEG-4 (mp4v) most, but no browser.
_CODECS = {
    ".mp4": ("avc1", "mp4v"),
    ".m4v": ("avc1", "mp4v"),
    ".mov": ("avc1", "mp4v"),
    ".mkv": ("avc1", "mp4v"),
    ".avi": ("XVID", "MJPG"),
    ".webm": ("VP80", "VP90"),
}
WRITABLE = tuple(_CODECS)

# Where a source does not tell how many frames a second it has, or tells nonsense.
_USUAL_FPS = 25.0
_FASTEST_FPS = 500.0


class VideoError(Exception):
    """A video that cannot be read or written. The message names it."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame: its number in the video from 0 on, the seconds at which it is shown, and its pixels [H, W, 3]."""

    index: int
    seconds: float
    image: np.ndarray


@dataclass(frozen=True)
class VideoReport:
    """What `annotate_video` did.

    Attributes:
        path: the video that was written.
        size: (height, width) of the frames read.
        fps: frames a second of the video that was written.
        frames: how many were looked at.
        instances: found in all of them.
        seconds: that it took, from opening the video on.
        missing: frames that the video claims to have and that could not be read.
        interrupted: whether Ctrl-C ended it before its time.
    """

    path: Path
    size: tuple[int, int]
    fps: float
    frames: int
    instances: int
    seconds: float
    missing: int
    interrupted: bool


class VideoReader:
    """The frames of a video file, a stream (an URL) or a camera (its number), one by one; a context manager.

    Args:
        source: see above.
        every: of so many frames the first is given and the others are passed over.
        max_frames: frames to read at most, those passed over among them.

    Attributes:
        size: (height, width) of upright frames.
        fps: frames a second of the source; 25 where it does not tell.
        frame_count: frames that the source claims to have; None: it does not know, as a camera.
        read: frames read so far, those passed over among them.

    Raises:
        FileNotFoundError: there is no such file.
        VideoError: it cannot be read, or holds no frame; later, a frame of another size than the first.
        ValueError: a number that cannot be.
    """

    def __init__(self, source: str | os.PathLike | int, every: int = 1, max_frames: int | None = None) -> None:
        for name, value in (("every", every), ("max_frames", max_frames)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}.")
        self.name = f"camera {source}" if isinstance(source, int) else os.fspath(source)
        self.every, self.max_frames, self.read = every, max_frames, 0
        if not isinstance(source, int):
            source = os.fspath(source)
            if "://" not in source and not Path(source).is_file():
                raise FileNotFoundError(f"No such video file: {source}")
        self._live = isinstance(source, int) or "://" in source
        self._started = 0.0
        with hidden_error_stream():  # where several readers of OpenCV's try in vain, each says so
            self._capture = cv2.VideoCapture(source)
            fps, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
            self.fps = fps if math.isfinite(fps) and 0 < fps <= _FASTEST_FPS else _USUAL_FPS
            self.frame_count = int(count) if math.isfinite(count) and 0 < count < 1e9 else None
            self._following = self._read()
            self._first = next(self._following, None) if self._capture.isOpened() else None
        if self._first is None:
            self.close()
            why = "Is it there, and free?" if self._live else "It is no video that OpenCV knows, empty, or damaged."
            raise VideoError(f"Cannot read a frame of {self.name}. {why}")
        self.size = self._first.image.shape[:2]

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file or the camera."""
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """The frames; can be asked for once."""
        first, self._first = self._first, None
        if first is not None:
            yield first
            del first  # a frame may be large, and the next are to come
            yield from self._following

    @property
    def missing(self) -> int:
        """Frames that the source claims to have beyond those read and asked for."""
        return max(0, min(self.frame_count or 0, self.max_frames or self.frame_count or 0) - self.read)

    def _read(self) -> Iterator[Frame]:
        while (self.max_frames is None or self.read < self.max_frames) and self._capture.grab():
            index = self.read
            self.read += 1
            if index % self.every:
                continue
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if index == 0:
                self._started = seconds if self._live else 0.0  # a camera's clock started with the machine
            elif seconds <= 0:  # some readers keep no time
                seconds = index / self.fps + self._started
            whole, picture = self._capture.retrieve()
            if not whole:
                raise VideoError(f"Frame {index} of {self.name} cannot be decoded.")
            if index and picture.shape[:2] != self.size:
                (height, width), (before_height, before_width) = picture.shape[:2], self.size
                raise VideoError(
                    f"Frame {index} of {self.name} measures {width} x {height}, those before {before_width} x "
                    f"{before_height}: an annotated video has one size. Ask for the first {index} frames only, or "
                    "convert the video first."
                )
            yield Frame(index, seconds - self._started, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


@contextlib.contextmanager
def video_writer(path: str | os.PathLike, fps: float, size: tuple[int, int]) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a video, which appears under its name when the body is left, whole; after an error it does not.

    Args:
        path: its suffix, one of `WRITABLE`, says what kind of file it becomes.
        fps: frames a second.
        size: (H, W) of frames. Codecs want even numbers: an odd last row or column is doubled.

    Yields:
        A function that is given the frames [H, W, 3] one after the other.

    Raises:
        FileNotFoundError: the folder does not exist.
        VideoError: another suffix, nothing here can write such a file, or it came out damaged, as on a full disk.
    """
    path = Path(path)
    codecs = _CODECS.get(path.suffix.lower())
    if codecs is None:
        raise VideoError(f"A video is written as one of {', '.join(WRITABLE)}. Received: {path.name}.")
    height, width = size
    count = 0
    with atomic_path(path) as temporary:
        work = temporary.with_suffix(path.suffix)  # the suffix tells OpenCV the kind of file
        writer = _open_writer(work, codecs, fps, (width + width % 2, height + height % 2))

        def write(frame: np.ndarray) -> None:
            nonlocal count
            if frame.shape != (height, width, 3):
                raise VideoError(f"{path} takes frames of {(height, width, 3)}. Received: {frame.shape}.")
            even = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
            count += 1

        try:
            try:
                yield write
            finally:
                with hidden_error_stream():
                    writer.release()
            _check(work, path, count)
            os.replace(work, temporary)
        finally:
            work.unlink(missing_ok=True)


def _open_writer(path: Path, codecs: Sequence[str], fps: float, size: tuple[int, int]) -> Any:
    with hidden_error_stream():
        for codec in codecs:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
            if writer.isOpened():
                return writer
    raise VideoError(
        f"OpenCV cannot write a {path.suffix} video of {size[0]} x {size[1]} at {fps:g} frames a second here (tried "
        f"{', '.join(codecs)}). Try another of {', '.join(WRITABLE)}."
    )


def _check(work: Path, path: Path, count: int) -> None:
    """OpenCV does not tell when it cannot write, so what it wrote is looked at."""
    if count == 0:
        raise VideoError(f"No frame was given to {path}, and it is not written.")
    with hidden_error_stream():
        capture = cv2.VideoCapture(str(work))
        there = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() and capture.grab() else 0
        capture.release()
    if there < count - max(1, count // 100):  # of some kinds of files the number is reckoned from the duration
        raise VideoError(f"{path} came out damaged: {there:.0f} of {count} frames can be read. Is the disk full?")


def annotate_video(
    detector: Any,
    source: str | os.PathLike | int,
    path: str | os.PathLike,
    class_names: Sequence[str] | None = None,
    *,
    every: int = 1,
    max_frames: int | None = None,
    on_frame: Callable[[Frame, dict[str, Any]], None] | None = None,
    on_open: Callable[[VideoReader], None] | None = None,
) -> VideoReport:
    """Find the objects in a video's frames, and write them out with what was found drawn in; each class has a color.

    While the network runs on a frame the next are read and those before drawn; a handful is in memory at a time. Ctrl-C
    ends it early, with a video of what there is so far.

    Args:
        detector: a `mrcnn.Detector`.
        source: a video file, a stream's URL or a camera's number.
        path: the video to write, see `video_writer`.
        class_names: [K], the background's first; None: the detector's.
        every: only every so many-th frame is looked at, and written; the video plays as fast as before.
        max_frames: so many frames of the source at most.
        on_frame: is told each frame and what `detect` returns for it, as they are done.
        on_open: is told the reader before anything is detected.

    Raises:
        FileNotFoundError, VideoError: see `VideoReader` and `video_writer`; then nothing is written.
        What the detector raises.
    """
    start = time.perf_counter()
    class_names = detector.class_names if class_names is None else class_names
    colors = instance_colors(max(1, detector.config.NUM_CLASSES - 1))
    count = instances = 0
    interrupted = False
    with VideoReader(source, every, max_frames) as reader:
        if on_open is not None:
            on_open(reader)
        waiting: deque[Frame] = deque()
        fps = reader.fps / every

        def images() -> Iterator[np.ndarray]:
            for frame in reader:
                waiting.append(frame)
                yield frame.image

        with video_writer(path, fps, reader.size) as write:
            try:
                with contextlib.closing(detector.stream(images(), masks="rle")) as results:
                    for result in results:
                        frame = waiting.popleft()
                        own = colors[result["class_ids"] - 1]
                        write(draw_instances(frame.image, result, class_names, colors=own))
                        count += 1
                        instances += len(result["class_ids"])
                        if on_frame is not None:
                            on_frame(frame, result)
            except KeyboardInterrupt:
                if count == 0:
                    raise
                interrupted = True
        missing = 0 if interrupted else reader.missing
        size = reader.size
    seconds = time.perf_counter() - start
    return VideoReport(Path(path), size, fps, count, instances, seconds, missing, interrupted)
