"""What can be wrong with a dataset: the kinds of findings, how grave each is, and a list that stays small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mrcnn.data.content import Kind, Problem

# Of each kind so many are kept with their words; the others are counted.
KEPT = 1000


class Level(StrEnum):
    """How grave a finding is: training is refused or taught wrongly; it is worth a look; it is good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


# Each kind: how grave, and what is told of it in the plural. Those of `Kind` are what readers find.
KINDS: dict[str, tuple[Level, str]] = {
    Kind.FILE: (Level.ERROR, "unreadable annotation files"),
    Kind.IMAGE_ENTRY: (Level.ERROR, "malformed image entries"),
    Kind.CATEGORY: (Level.ERROR, "malformed classes"),
    Kind.MISSING_IMAGE: (Level.ERROR, "missing images"),
    Kind.UNREADABLE_IMAGE: (Level.ERROR, "unreadable images"),
    Kind.WRONG_SIZE: (Level.ERROR, "images of another size than their annotations"),
    Kind.DUPLICATE_ID: (Level.ERROR, "duplicate ids"),
    Kind.ANNOTATION: (Level.ERROR, "malformed annotations"),
    Kind.POINTS: (Level.ERROR, "polygons of too few points"),
    Kind.COORDINATES: (Level.ERROR, "impossible coordinates"),
    Kind.RUNS: (Level.ERROR, "malformed run lengths"),
    Kind.CLASS: (Level.ERROR, "unknown classes"),
    Kind.SHAPE: (Level.ERROR, "shapes that are no areas"),
    Kind.EMPTY: (Level.WARNING, "objects without a pixel"),
    "object-outside": (Level.ERROR, "objects outside their image"),
    "image-listed-twice": (Level.ERROR, "images listed more than once"),
    "no-images": (Level.ERROR, "no images"),
    "no-objects": (Level.ERROR, "no objects"),
    "reaches-outside": (Level.WARNING, "objects that reach outside their image"),
    "box-disagrees": (Level.WARNING, "boxes that disagree with their mask"),
    "object-twice": (Level.WARNING, "objects annotated more than once"),
    "same-content": (Level.WARNING, "image files of the same content"),
    "rotation-unclear": (Level.WARNING, "photos turned by EXIF, and no size tells whether their annotations heed it"),
    "blank-image": (Level.WARNING, "images of a single color"),
    "dim-16-bit": (
        Level.WARNING,
        "16-bit images that come out nearly black or flat (scale them before, or in Dataset.load_image)",
    ),
    "class-without-objects": (Level.WARNING, "classes without objects"),
    "similar-classes": (Level.WARNING, "classes whose names differ by little"),
    "crowded-image": (Level.WARNING, "images of more objects than MAX_GT_INSTANCES"),
    "anchors-do-not-fit": (Level.WARNING, "anchors that do not fit the objects"),
    "rotation-ignored": (Level.NOTE, "photos turned by EXIF, which their annotations ignore (they are read unturned)"),
    "image-without-objects": (Level.NOTE, "images without objects"),
    "unlisted-image": (Level.NOTE, "image files that are not listed"),
    "grayscale": (Level.NOTE, "grayscale images"),
    "transparency": (Level.NOTE, "images with transparency"),
    "16-bit": (Level.NOTE, "16-bit images"),
    "several-frames": (Level.NOTE, "image files of several frames"),
}


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        kind: of `KINDS`.
        level: how grave.
        file: the image or annotation file it is about; "" for the dataset as a whole.
        entry: what of it, such as "annotation 17"; "" for all.
        message: what was found, and what it does or what would do. "" where the kind says all.
    """

    kind: str
    level: Level
    file: str
    entry: str
    message: str

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.entry) if part)
        return ": ".join(part for part in (place, self.message) if part)


@dataclass
class Findings:
    """All that was found, by kind: counted, the first ones kept."""

    counts: dict[tuple[Level, str], int] = field(default_factory=dict)
    kept: dict[tuple[Level, str], list[Finding]] = field(default_factory=dict)

    def add(self, kind: str, file: Any = "", entry: str = "", message: str = "", level: Level | None = None) -> None:
        """Add one. `level` is the kind's where None."""
        level = level or KINDS[kind][0]
        self.counts[level, kind] = self.counts.get((level, kind), 0) + 1
        kept = self.kept.setdefault((level, kind), [])
        if len(kept) < KEPT:
            kept.append(Finding(str(kind), level, str(file), entry, message))

    def add_problem(self, problem: Problem) -> None:
        """Add what a reader found."""
        level = Level.ERROR if problem.is_error else Level.WARNING
        self.add(problem.kind, problem.file, problem.entry, problem.message, level)

    def count(self, level: Level) -> int:
        """How many there are of a level."""
        return sum(count for (other, _), count in self.counts.items() if other == level)

    def of_level(self, level: Level) -> Iterator[tuple[str, int, list[Finding]]]:
        """Kind, count and kept findings of each kind of a level, in the order of `KINDS`."""
        for kind in KINDS:
            if (level, kind) in self.counts:
                yield kind, self.counts[level, kind], self.kept[level, kind]
