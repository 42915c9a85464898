"""`mrcnn detect`: images and videos in, pictures, videos and a results file out."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrcnn.cli import CommandError, is_users, note, show_error
from mrcnn.cli.configuration import find_weights
from mrcnn.cli.filming import detect_video, is_video, names_video, output_path
from mrcnn.cli.results import Add, detected_name, image_entries, results_file
from mrcnn.cli.running import Running, open_detector
from mrcnn.drawing import save_instances
from mrcnn.files import require_folder

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")

# Threads that draw pictures and write them.
_ARTISTS = 2


@dataclass
class _Tally:
    """How far a run is."""

    done: int = 0
    failed: int = 0
    instances: int = 0
    interrupted: bool = False
    used: set[str] = field(default_factory=set)


def run(args: argparse.Namespace) -> int:
    """Detect; 1 if an image or a video could not be read, and the others are done; 130 if Ctrl-C ended it early."""
    videos = [name for name in args.images if is_video(name)]
    paths = find_images(name for name in args.images if not is_video(name))
    file = names_video(args.output)
    if file and (len(videos) != 1 or paths):
        raise CommandError(
            f"--output {args.output} names a video, where a single video can go. For {len(paths)} images and "
            f"{len(videos)} videos give a folder."
        )
    find_weights(args.weights)  # what cannot work is told before anything is made
    output = Path(args.output)
    if file:
        require_folder(output)
    else:
        output.mkdir(parents=True, exist_ok=True)
    json_path = Path(args.json) if args.json else output / "detections.json" if paths else None
    if json_path is not None:
        require_folder(json_path)
    running = open_detector(args)

    tally, image_ids = _Tally(), itertools.count(1)
    with results_file(json_path) as add:
        if paths:
            _detect_images(paths, output, running, args, image_ids, add, tally)
        for name in videos:
            if tally.interrupted:
                break
            path = output if file else output_path(name, output, tally.used)
            try:
                tally.interrupted = detect_video(name, path, running, args, image_ids, add if args.json else None)
            except Exception as error:
                if not is_users(error):
                    raise
                show_error(error, args.verbose, about=name)
                tally.failed += 1
    if json_path is not None:
        print(f"Results: {json_path}.")
    return 130 if tally.interrupted else 1 if tally.failed else 0


def _detect_images(
    paths: list[Path],
    output: Path,
    running: Running,
    args: argparse.Namespace,
    image_ids: Iterator[int],
    add: Add,
    tally: _Tally,
) -> None:
    """Detect in images. While the network runs on one, the next are read and the pictures of those before drawn."""

    def failed(error: BaseException, path: Path) -> None:
        """Tell of an image's error; what is a bug goes on."""
        try:
            raise error
        except Exception as raised:
            if not is_users(raised):
                raise
            show_error(raised, args.verbose, about=str(path))
        tally.failed += 1

    def draw(path: Path, picture: Path, image_id: int, result: dict[str, Any]) -> list[dict[str, Any]]:
        """In a thread of its own: compressing a picture can take as long as the network does."""
        save_instances(picture, result["image"], result, running.class_names)
        return image_entries({"image_id": image_id, "file_name": str(path)}, result, running.class_names)

    def tell_next() -> None:
        """Wait for the picture that comes next, and tell of it."""
        path, seconds, drawing = waiting[0]
        try:
            entries = drawing.result()
        except Exception as error:
            waiting.popleft()
            failed(error, path)
            return
        waiting.popleft()
        add(entries)
        tally.done += 1
        tally.instances += len(entries)
        counts = Counter(entry["category_name"] for entry in entries)
        told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        print(f"{path!s:{width}}  {len(entries):9}  {seconds:9.2f}  {told or '-'}", flush=True)

    waiting: deque[tuple[Path, float, Future]] = deque()
    width = max(len(str(path)) for path in paths)
    print(f"{'image':{width}}  instances  network s  classes")
    start = time.perf_counter()
    stream = running.detector.stream(
        paths,
        on_error=lambda index, path, error: failed(error.__cause__ or error, path),
        with_images=True,
    )
    with ThreadPoolExecutor(_ARTISTS, "mrcnn-artist") as pool:
        try:
            with contextlib.closing(stream) as results:
                for path, result in zip(paths, results, strict=True):
                    image_id = next(image_ids)
                    if result is None:
                        continue
                    picture = output / detected_name(path.stem, ".png", tally.used)
                    seconds = running.clock.next()
                    waiting.append((path, seconds, pool.submit(draw, path, picture, image_id, result)))
                    while waiting and (waiting[0][-1].done() or len(waiting) > 2 * _ARTISTS):
                        tell_next()
        except KeyboardInterrupt:
            tally.interrupted = True
        while waiting:
            tell_next()
    if tally.interrupted:
        note("Interrupted: the images that are done have been kept.")
    seconds = time.perf_counter() - start
    failures = f", {tally.failed} failed" if tally.failed else ""
    print(
        f"{tally.done} of {len(paths)} images, {tally.instances} instances{failures}. In {seconds:.1f} s: "
        f"{tally.done / seconds:.1f} images a second (the network alone: {running.clock.rate:.1f})."
    )
    print(f"Pictures: {output}.")


def find_images(names: Iterable[str]) -> list[Path]:
    """The image files that arguments stand for: files themselves, there or not, and folders' images by name.

    Raises:
        CommandError: a folder without images.
    """
    paths = []
    for name in names:
        path = Path(name)
        if not path.is_dir():
            paths.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
        if not inside:
            raise CommandError(
                f"The folder {path} holds no images ({', '.join(_SUFFIXES)}). Videos are named one by one."
            )
        paths += inside
    return paths
