"""`mrcnn detect`: images and videos in, pictures, videos and results in files out."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrcnn.cli import CommandError, is_users, note, show_error
from mrcnn.cli.configuration import find_weights
from mrcnn.cli.filming import DETECTED, detect_video, is_video, names_video, output_path
from mrcnn.cli.running import Running, open_detector, tiling
from mrcnn.data.image_lists import images_in
from mrcnn.data.images import image_sizes
from mrcnn.data.writing.names import free_name
from mrcnn.drawing import save_instances
from mrcnn.files import require_folder
from mrcnn.results.instances import Instances, ResultImage, class_name
from mrcnn.results.saving import FORMATS
from mrcnn.results.writer import Writer
from mrcnn.tiling import tile_progress

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
    output = Path(args.output)
    tiles = tiling(args)
    if tiles and videos:
        raise CommandError("--tile is for images. Leave it out for videos, or detect in images and videos one by one.")
    places = _places(args, output, paths, videos)  # what cannot work is told before anything is made
    find_weights(args.weights)
    if file:
        require_folder(output)
    else:
        output.mkdir(parents=True, exist_ok=True)
    if "coco" in places:
        require_folder(places["coco"])
    running = open_detector(args)

    tally, image_ids = _Tally(), itertools.count(1)
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(FORMATS[name].open(path, running.class_names)) for name, path in places.items()
        }
        if paths:
            with tile_progress("Tiles") if tiles else contextlib.nullcontext() as on_tile:
                if tiles:
                    tiles["on_tile"] = on_tile
                _detect_images(paths, output, running, args, image_ids, writers, tally, tiles)
        for name in videos:
            if tally.interrupted:
                break
            path = output if file else output_path(name, output, tally.used)
            try:
                coco = writers["coco"] if args.json else None
                tally.interrupted = detect_video(name, path, running, args, image_ids, coco)
            except Exception as error:
                if not is_users(error):
                    raise
                show_error(error, args.verbose, about=name)
                tally.failed += 1
        for name, writer in writers.items():
            for told in writer.notes():
                note(f"{name}: {told}")
    if places:
        print(f"Results: {', '.join(map(str, places.values()))}.")
    return 130 if tally.interrupted else 1 if tally.failed else 0


def _places(args: argparse.Namespace, output: Path, paths: list[Path], videos: list[str]) -> dict[str, Path]:
    """Where results go, by their format.

    Raises:
        CommandError: videos are to be written in a format that is of images only.
    """
    of_images = [name for name in args.format if name in FORMATS]
    others = [name for name in of_images if name != "coco"]
    if videos and others:
        raise CommandError(
            f"--format {' '.join(others)} is for images. Of a video an annotated one is written and, with --json FILE, "
            "its results in COCO's format."
        )
    places = {name: output / FORMATS[name].place for name in of_images} if paths else {}
    if args.json:
        places["coco"] = Path(args.json)
    return places


def _detect_images(
    paths: list[Path],
    output: Path,
    running: Running,
    args: argparse.Namespace,
    image_ids: Iterator[int],
    writers: Mapping[str, Writer],
    tally: _Tally,
    tiles: Mapping[str, Any],
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

    def draw(image: ResultImage, result: dict[str, Any]) -> tuple[Counter[str], dict[str, Any]]:
        """In a thread of its own: compressing a picture can take as long as the network does."""
        shape = result["image"].shape if with_pictures else None
        if shape is None and not len(result["masks"]):  # nothing tells the size
            shape = image_sizes(image.path)[0]
        found = Instances.of(result, image.path, shape)
        if with_pictures:
            save_instances(output / f"{image.name}{DETECTED}.png", result["image"], result, running.class_names)
        rendered = {name: writer.render(image, found) for name, writer in writers.items()}
        return Counter(class_name(running.class_names, n) for n in found.class_ids.tolist()), rendered

    def tell_next() -> None:
        """Wait for the picture that comes next, and tell of it."""
        path, seconds, drawing = waiting[0]
        try:
            counts, rendered = drawing.result()
        except Exception as error:
            waiting.popleft()
            failed(error, path)
            return
        waiting.popleft()
        for name, writer in writers.items():
            writer.add(rendered[name])
        count = sum(counts.values())
        tally.done += 1
        tally.instances += count
        told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        print(f"{path!s:{width}}  {count:9}  {seconds:9.2f}  {told or '-'}", flush=True)

    with_pictures = "pictures" in args.format  # else no image is kept, and of one read by windows there is no whole
    waiting: deque[tuple[Path, float, Future]] = deque()
    width = max(len(str(path)) for path in paths)
    print(f"{'image':{width}}  instances  network s  classes")
    start = time.perf_counter()
    stream = running.detector.stream(
        paths,
        masks="rle",
        on_error=lambda index, path, error: failed(error.__cause__ or error, path),
        with_images=with_pictures,
        **tiles,
    )
    most_waiting = 1 if tiles else 2 * _ARTISTS  # images that are cut are large
    with ThreadPoolExecutor(_ARTISTS, "mrcnn-artist") as pool:
        try:
            with contextlib.closing(stream) as results:
                for path, result in zip(paths, results, strict=True):
                    image_id = next(image_ids)
                    if result is None:
                        continue
                    name = free_name(path.stem, tally.used, f"{DETECTED}.png")
                    image = ResultImage(str(path), name, image_id)
                    seconds = running.clock.rest() if tiles else running.clock.next()
                    waiting.append((path, seconds, pool.submit(draw, image, result)))
                    result = None
                    while waiting and (waiting[0][-1].done() or len(waiting) > most_waiting):
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
        f"{tally.done / seconds:.{2 if tiles else 1}f} images a second (the network alone: {running.clock.rate:.1f}"
        f"{' tiles' if tiles else ''})."
    )
    if "pictures" in args.format:
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
        try:
            paths += images_in(path)
        except FileNotFoundError as error:
            raise CommandError(f"{error} Videos are named one by one.") from error
    return paths
