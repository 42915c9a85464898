"""A dataset's content split into parts by `mrcnn.data.splitting`: what keeps images together, how even it is."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mrcnn.data.content import Content, short
from mrcnn.data.dataset import DatasetError
from mrcnn.data.splitting import deal


@dataclass(frozen=True)
class Split:
    """A split.

    Attributes:
        parts: the contents by name.
        groups: how many groups of images there were; None where each image went by itself.
        largest: images of the largest group.
        alone: images that are in no group, and went by themselves.
    """

    parts: dict[str, Content]
    groups: int | None
    largest: int
    alone: int


def split_content(content: Content, shares: Mapping[str, float], group: str | None = None, seed: int = 0) -> Split:
    """Split a dataset by images.

    Args:
        content: what is to be split; its problems go into no part.
        shares: of the images, by the name of the part; they sum to 1.
        group: what images that must stay together share: "folder", their folder; the name of a field of the image
            entries, such as `patient_id`; else a regular expression, its first group, or all that it matches, in the
            image's name. Images without it go by themselves. None: each image goes by itself.
        seed: another one splits otherwise.

    Raises:
        DatasetError: `group` is none of these, or no image has it.
        ValueError: the shares cannot be; an image is there twice, in two groups.
    """
    images = content.images
    counts: dict[Any, Counter[int]] = {image["id"]: Counter() for image in images}
    for annotation in content.annotations:
        if not annotation["iscrowd"]:
            counts[annotation["image_id"]][annotation["category_id"]] += 1
    names = [f"{image['file_name']}\0{image['frame']}" if "frame" in image else image["file_name"] for image in images]
    found = [None] * len(images) if group is None else group_names(content, group)
    # The names of groups and of single images must not meet.
    owners = [f"image {name}" if one is None else f"group {one}" for name, one in zip(names, found, strict=True)]
    chosen = deal(names, [counts[image["id"]] for image in images], list(shares.values()), owners, seed).tolist()
    part_of = {image["id"]: part for image, part in zip(images, chosen, strict=True)}
    parts = {}
    for number, name in enumerate(shares):
        parts[name] = replace(
            content,
            images=[image for image in images if part_of[image["id"]] == number],
            annotations=[one for one in content.annotations if part_of[one["image_id"]] == number],
            problems=[],
            rejected=0,
            rejected_images=0,
        )
    sizes = Counter(one for one in found if one is not None)
    return Split(
        parts, None if group is None else len(sizes), max(sizes.values(), default=0), sum(one is None for one in found)
    )


def group_names(content: Content, group: str) -> list[str | None]:
    """The group of each image, see `split_content`; None where it has none.

    Raises:
        DatasetError: `group` is no regular expression, or no image has it.
    """
    images = content.images
    names = [str(image["file_name"]).replace("\\", "/") for image in images]
    if group == "folder":
        return [posixpath.dirname(name) for name in names]
    if any(group in image for image in images):
        values = [image.get(group) for image in images]
        return [None if value is None else str(value) for value in values]
    try:
        pattern = re.compile(group)
    except re.error as error:
        fields = sorted({field for image in images for field in image})
        raise DatasetError(
            f"{group!r} is no regular expression ({error}) and no field of the images, which have: {', '.join(fields)}."
        ) from error
    matches = [pattern.search(name) for name in names]
    if images and not any(matches):
        raise DatasetError(
            f"{group!r} is no field of the images of {content.path}, and no image's name matches it as a regular "
            f"expression. The first is {short(names[0])}, with the fields {', '.join(map(str, images[0]))}."
        )
    return [None if match is None else match[pattern.groups > 0] for match in matches]


def evenness(parts: Mapping[str, Content]) -> list[tuple[str, list[int]]]:
    """Rows of a table: images, images without objects, crowds aside the objects of each class, with the numbers of the
    parts; classes from the most frequent to the rarest."""
    contents = list(parts.values())
    rows = [("images", [len(content.images) for content in contents])]
    empty = [
        len(content.images) - len({a["image_id"] for a in content.annotations if not a["iscrowd"]})
        for content in contents
    ]
    if any(empty):
        rows.append(("images without objects", empty))
    names = {category["id"]: str(category["name"]) for content in contents for category in content.categories}
    of_part = [Counter(a["category_id"] for a in content.annotations if not a["iscrowd"]) for content in contents]
    classes = [(name, [counter[category_id] for counter in of_part]) for category_id, name in names.items()]
    return rows + sorted(classes, key=lambda row: -sum(row[1]))


def farthest(rows: Sequence[tuple[str, Sequence[int]]], shares: Sequence[float]) -> tuple[str, int, float] | None:
    """The row and part whose share is the farthest from the one asked for, and that share. Rows of fewer than 10 are
    left out, for they cannot be even. None where there is none."""
    found = [
        (abs(number / sum(numbers) - share), name, part, number / sum(numbers))
        for name, numbers in rows
        if sum(numbers) >= 10
        for part, (number, share) in enumerate(zip(numbers, shares, strict=True))
    ]
    return max(found)[1:] if found else None
