"""A dataset checked before it is trained on: every image decoded, every object looked at, and what is wrong listed.

Images are decoded in threads and let go of at once; of a file of several frames one is held at a time.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.data.anchor_fit import FAIR_IOU, best_overlaps
from mrcnn.data.content import Content, Kind
from mrcnn.data.findings import KINDS, Findings, Level
from mrcnn.data.image_facts import ImageFacts
from mrcnn.data.image_files import facts_in_threads, same_content, unlisted
from mrcnn.data.object_checks import ObjectsLook, look_at_objects
from mrcnn.data.survey import Survey, mold_boxes

if TYPE_CHECKING:
    from mrcnn.config import Config

# Formats that tell no size of an image, so that none tells how it was turned.
_WITHOUT_SIZES = ("yolo", "via")
# Formats whose masks are image files themselves, perhaps beside the images.
_OF_MASK_FILES = ("masks", "voc")
# From this share of objects without a good anchor on, it is told.
_MANY_WITHOUT_ANCHOR = 0.1


@dataclass
class Trouble:
    """What was found of one image: the gravest of it, and how much."""

    level: Level
    message: str
    count: int = 1


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        findings: all that is wrong, or good to know.
        survey: the objects that can be learned, and sizes, as `mrcnn.data.survey.survey` gives them.
        troubled: by the place in `Content.images`, the images that something is wrong with.
        decoded: how many images were decoded, or tried.
    """

    findings: Findings
    survey: Survey
    troubled: dict[int, Trouble]
    decoded: int


def check(
    content: Content,
    config: Config,
    seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    seed: int = 0,
) -> Check:
    """Look at all of a dataset.

    Args:
        content: as it was read, problems and all.
        config: its sizes, anchors and MAX_GT_INSTANCES are used. NUM_CLASSES is not.
        seconds: images are decoded no longer than this, in an order that the seed decides; their objects are all looked
            at. None: all images are decoded.
        progress: is told how many images are done, and of how many.
        workers: threads that decode. None: as many as there are processors, 8 at most.
    """
    start = time.monotonic()
    looks = _Looks(content, config)
    for problem in content.problems:
        looks.findings.add_problem(problem)
    files = _by_file(content)
    if seconds is not None:
        order = np.random.default_rng(seed).permutation(len(files))
        paths = list(files)
        files = {paths[i]: files[paths[i]] for i in order}
    end = None if seconds is None else start + seconds
    workers = workers or min(8, os.cpu_count() or 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of large images and odd EXIF data: what cannot be read is told
        frames = {path: [content.images[place].get("frame", 0) for place in places] for path, places in files.items()}
        for path, facts in facts_in_threads(frames, end, workers):
            looks.add_file(files[path], facts)
            if progress is not None:
                progress(looks.done, len(content.images))
        looks.add_same_content(files, same_content(files, end, workers))
    looks.add_whole(files)
    survey = looks.survey(time.monotonic() - start)
    looks.add_anchors(survey)
    return Check(looks.findings, survey, looks.troubled, looks.decoded)


def _by_file(content: Content) -> dict[str, list[int]]:
    """Places of the images of each file."""
    files: dict[str, list[int]] = {}
    for place, image in enumerate(content.images):
        files.setdefault(os.path.abspath(content.image_path(image)), []).append(place)
    return files


class _Looks:
    """What was seen so far."""

    def __init__(self, content: Content, config: Config) -> None:
        self.content, self.config = content, config
        self.findings = Findings()
        self.troubled: dict[int, Trouble] = {}
        self.done = self.decoded = 0
        self.annotations: dict[Any, list[dict[str, Any]]] = {}
        for annotation in content.annotations:
            self.annotations.setdefault(annotation["image_id"], []).append(annotation)
        self.class_names = {category["id"]: str(category["name"]) for category in content.categories}
        self.numbers = {category_id: i for i, category_id in enumerate(sorted(self.class_names), start=1)}
        self.told_missing = {p.entry for p in content.problems if p.kind == Kind.MISSING_IMAGE}
        self.places: list[int] = []
        self.objects: list[ObjectsLook] = []

    def add_file(self, places: Sequence[int], facts: Sequence[ImageFacts | Exception | None]) -> None:
        """Take in what is known of a file's images."""
        images = self.content.images
        by_frame: dict[int, int] = {}
        for place, one in zip(places, facts, strict=True):
            image = images[place]
            first = by_frame.setdefault(image.get("frame", 0), place)
            if first != place:
                ids = f"as {images[first]['id']!r} and as {image['id']!r}"
                self._tell("image-listed-twice", place, f"{ids}: objects of the one are background in the other.")
            self._take_objects(place)
            if one is not None:
                self.decoded += 1
                self._take_facts(place, one)
            self.done += 1
        frames = max((one.frames for one in facts if isinstance(one, ImageFacts)), default=1)
        if frames > 1 and len(by_frame) == 1:
            self._tell("several-frames", places[0], f"{frames} frames, of which one is used.")

    def _tell(self, kind: str, place: int, message: str = "", entry: str = "", remark: str = "") -> None:
        """Add a finding of an image. `remark` is what stands below its picture, where the message is not enough."""
        image = self.content.images[place]
        frame = f" (frame {image['frame']})" if "frame" in image else ""
        self.findings.add(kind, f"{image['file_name']}{frame}", entry, message)
        self._trouble(place, KINDS[kind][0], remark or (f"{entry}: {message}" if entry else message))

    def _trouble(self, place: int, level: Level, message: str) -> None:
        if level == Level.NOTE:
            return
        known = self.troubled.get(place)
        if known is None:
            self.troubled[place] = Trouble(level, message)
            return
        known.count += 1
        if level == Level.ERROR and known.level != Level.ERROR:
            known.level, known.message = level, message

    def _take_facts(self, place: int, facts: ImageFacts | Exception) -> None:
        image = self.content.images[place]
        if isinstance(facts, FileNotFoundError):
            if image["file_name"] in self.told_missing:
                self._trouble(place, Level.ERROR, "there is no such image file.")
            else:
                self._tell(Kind.MISSING_IMAGE, place, "there is no such image file.")
            return
        if isinstance(facts, Exception):
            path = str(self.content.image_path(image))
            message = str(facts).removeprefix(f"Cannot read the image file {path}: ").replace(path, image["file_name"])
            self._tell(Kind.UNREADABLE_IMAGE, place, message)
            return
        self._take_size(place, (image["height"], image["width"]), facts)
        if facts.is_blank:
            self._tell("blank-image", place, remark="All its pixels are alike.")
        if facts.is_dim:
            self._tell("dim-16-bit", place, remark="Its values fill less than a sixteenth of 0..65535.")
        for kind, is_so in (
            ("grayscale", facts.is_gray), ("transparency", facts.has_alpha), ("16-bit", facts.is_deep)
        ):  # fmt: skip
            if is_so:
                self._tell(kind, place)

    def _take_size(self, place: int, wanted: tuple[int, int], facts: ImageFacts) -> None:
        is_turned = facts.orientation != 1
        if wanted not in (facts.size, facts.stored):
            height, width = facts.size
            message = (
                f"it is {height} pixels high and {width} wide, its annotations are for {wanted[0]} x {wanted[1]} "
                "(height x width)"
            )
            exchanged = ", height and width exchanged" if wanted == facts.size[::-1] else ""
            self._tell(Kind.WRONG_SIZE, place, f"{message}{exchanged}.")
        elif is_turned and (facts.size == facts.stored or self.content.format in _WITHOUT_SIZES):
            remark = f"EXIF orientation {facts.orientation}: do the objects lie where they are to?"
            self._tell("rotation-unclear", place, remark=remark)
        elif is_turned and wanted == facts.stored:
            self._tell("rotation-ignored", place)

    def _take_objects(self, place: int) -> None:
        image = self.content.images[place]
        look = look_at_objects(self.annotations.get(image["id"], ()), image["height"], image["width"], self.class_names)
        for kind, entry, message in look.findings:
            self._tell(kind, place, message, entry)
        look.findings.clear()
        most = self.config.MAX_GT_INSTANCES
        if len(look.boxes) > most:
            message = f"{len(look.boxes)} objects, of which training draws {most} each time: the others are background."
            self._tell("crowded-image", place, message)
        if not len(look.boxes):
            self._tell("image-without-objects", place)
        self.places.append(place)
        self.objects.append(look)

    def add_same_content(self, files: Mapping[str, list[int]], pairs: Iterator[tuple[str, str]]) -> None:
        """Tell of files whose bytes are the same."""
        for path, first in pairs:
            name = self.content.images[files[first][0]]["file_name"]
            self._tell("same-content", files[path][0], f"the same as {name}.")

    def add_whole(self, files: Iterable[str]) -> None:
        """Tell what shows only in the dataset as a whole."""
        findings, path = self.findings, self.content.path
        if not self.content.images:
            findings.add("no-images", path)
        elif not any(len(look.boxes) for look in self.objects):
            findings.add("no-objects", path)
        used = {category_id for look in self.objects for category_id in look.category_ids}
        for category_id, name in self.class_names.items():
            if category_id not in used:
                findings.add("class-without-objects", entry=name)
        alike: dict[str, list[str]] = {}
        for name in self.class_names.values():
            alike.setdefault("".join(name.split()).replace("-", "").replace("_", "").casefold(), []).append(name)
        for names in alike.values():
            if len(names) > 1:
                findings.add("similar-classes", entry=" and ".join(map(repr, names)))
        if self.content.format not in _OF_MASK_FILES:
            for name in unlisted(files):
                findings.add("unlisted-image", os.path.relpath(name, self.content.folder))

    def add_anchors(self, seen: Survey) -> None:
        """Tell of anchors that do not fit the objects."""
        outside = best_overlaps(seen.boxes, seen.molded[seen.owners], self.config) < FAIR_IOU
        if len(outside) and outside.mean() >= _MANY_WITHOUT_ANCHOR:
            message = (
                f"{outside.mean():.0%} ({outside.sum()} of {len(outside)}) overlap no anchor by an IoU of {FAIR_IOU}. "
                f"`mrcnn data anchors` proposes others than {tuple(self.config.RPN_ANCHOR_SCALES)}."
            )
            self.findings.add("anchors-do-not-fit", message=message)

    def survey(self, seconds: float) -> Survey:
        """The objects, as they lie once images are resized."""
        boxes, shapes, molded, class_ids, owners = [], [], [], [], []
        for i, (place, look) in enumerate(zip(self.places, self.objects, strict=True)):
            image = self.content.images[place]
            shapes.append((image["height"], image["width"]))
            placed, size = mold_boxes(look.boxes[~look.crowds], shapes[-1], self.config)
            molded.append(size)
            boxes.append(placed)
            ids = np.array([self.numbers[category_id] for category_id in look.category_ids], np.int64)
            class_ids.append(ids[~look.crowds])
            owners.append(np.full(len(placed), i))
        return Survey(
            total=len(self.content.images),
            image_ids=np.array(self.places, np.int64),
            shapes=np.array(shapes, np.int64).reshape(-1, 2),
            molded=np.array(molded, np.int64).reshape(-1, 2),
            boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
            class_ids=np.concatenate([np.zeros(0, np.int64), *class_ids]),
            owners=np.concatenate([np.zeros(0, np.int64), *owners]),
            crowds=sum(int(look.crowds.sum()) for look in self.objects),
            class_names=("BG", *(self.class_names[category_id] for category_id in self.numbers)),
            failures=(),
            failed=0,
            seconds=seconds,
        )
