"""`mrcnn detect` of videos, streams and cameras: a video in, an annotated one out."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mrcnn.cli import CommandError, note
from mrcnn.cli.running import Running
from mrcnn.data.writing.names import free_name
from mrcnn.results.instances import Instances, ResultImage
from mrcnn.results.writer import Writer
from mrcnn.video import READABLE, WRITABLE, Frame, VideoReader, annotate_video

# What the names of pictures and videos end in.
DETECTED = "_detected"

_NUMBER = re.compile(r"\d{1,3}")


def is_video(name: str) -> bool:
    """Whether an argument stands for a video file, a stream or a camera; by its name."""
    is_camera = _NUMBER.fullmatch(name) is not None and not Path(name).exists()
    return is_camera or "://" in name or (Path(name).suffix.lower() in READABLE and not Path(name).is_dir())


def names_video(path: str) -> bool:
    """Whether --output names a video to write, and no folder."""
    return Path(path).suffix.lower() in WRITABLE and not Path(path).is_dir()


def output_path(name: str, folder: Path, used: set[str]) -> Path:
    """Where the annotated video of an argument goes: `<stem>_detected.mp4`, or of the source's own kind if such can be
    written; with a number where another video of this run has that name."""
    stem, suffix = Path(name).stem, Path(name).suffix.lower()
    if "://" in name:
        stem = re.sub(r"[^\w-]+", "_", name.partition("://")[2].partition("?")[0].rpartition("@")[2]).strip("_")
        suffix = ".mp4"
    elif _NUMBER.fullmatch(name):
        stem, suffix = f"camera{name}", ".mp4"
    suffix = suffix if suffix in WRITABLE else ".mp4"
    return folder / f"{free_name(stem or 'stream', used, DETECTED + suffix)}{DETECTED}{suffix}"


def detect_video(
    name: str, path: Path, running: Running, args: argparse.Namespace, image_ids: Iterator[int], coco: Writer | None
) -> bool:
    """Annotate a video, say how it went, and give its results away.

    Args:
        name: file, URL or number.
        path: of the video to write.
        running: the network.
        args: the command's.
        image_ids: a new id for each frame.
        coco: is given the frames' results; None: nobody wants them.

    Returns:
        Whether it was ended early by Ctrl-C.

    Raises:
        CommandError: the video would replace its source. What else `annotate_video` raises.
    """
    if "://" not in name and path.exists() and Path(name).exists() and path.samefile(name):
        raise CommandError(f"The annotated video would replace its source, {path}. Choose another --output.")
    if not args.verbose:  # what FFmpeg's parts have to say about a video that plays all the same
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    source = int(name) if _NUMBER.fullmatch(name) and not Path(name).exists() else name

    with _progress(name, args) as (opened, tick):

        def on_frame(frame: Frame, result: dict[str, Any]) -> None:
            if coco is not None:
                more = {"frame": frame.index, "time": round(frame.seconds, 4)}
                image = ResultImage(name, "", next(image_ids), more)
                coco.add(coco.render(image, Instances.of(result, name, frame.image.shape)))
            tick(running)

        report = annotate_video(
            running.detector,
            source,
            path,
            running.class_names,
            every=args.every,
            max_frames=args.max_frames,
            on_frame=on_frame,
            on_open=opened,
        )
    height, width = report.size
    print(
        f"{name}: {report.frames} frames of {width} x {height}, {report.instances} instances. In {report.seconds:.1f} "
        f"s: {report.frames / report.seconds:.1f} frames a second (the network alone: {running.clock.rate:.1f})."
    )
    print(f"Video: {path} ({report.fps:.4g} frames a second).", flush=True)
    if report.missing > 1 + report.frames // 50:
        note(f"{name} tells of {report.missing} frames more than can be read: it may be damaged or cut short.")
    if report.interrupted:
        note(f"Interrupted: {path} ends there.")
    return report.interrupted


@contextlib.contextmanager
def _progress(
    name: str, args: argparse.Namespace
) -> Iterator[tuple[Callable[[VideoReader], None], Callable[[Running], None]]]:
    """A bar with frames a second on the error stream, where that is a terminal: what to call when the video is open,
    and for each frame."""
    try:
        from tqdm import tqdm
    except ImportError:  # where only detection is installed
        yield (lambda reader: None), (lambda running: None)
        return
    with tqdm(
        desc=name if "://" in name else Path(name).name, unit=" frames", disable=None, dynamic_ncols=True, leave=False
    ) as bar:

        def opened(reader: VideoReader) -> None:
            count = min(reader.frame_count or 0, args.max_frames or reader.frame_count or 0) or args.max_frames
            bar.total = None if not count else -(-count // args.every)
            bar.refresh()

        def tick(running: Running) -> None:
            bar.set_postfix_str(f"network {running.clock.rate:.1f} frames/s", refresh=False)
            bar.update()

        yield opened, tick
