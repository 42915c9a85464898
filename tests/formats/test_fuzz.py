"""A thousand mutated files of each format: nothing but the package's own errors, at once.

A dataset that is read in spite of its mutation is looked at: its images and masks load, or say what is wrong.
"""

from __future__ import annotations

import copy
import json
import random
import time

import pytest

from mrcnn.data.coco import CocoDataset
from mrcnn.data.content import Problem
from mrcnn.data.dataset import DatasetError
from mrcnn.data.formats import read_content
from mrcnn.data.formats.coco import read_coco
from mrcnn.data.images import ImageError
from tests.formats import samples

MUTATIONS = 1000
# Seconds that one file may take, on a machine that has other things to do.
LIMIT = 2.0
OWN = (DatasetError, ImageError, FileNotFoundError)
STRANGE = [None, True, False, 0, -1, 1.5, 10**9, 10**30, float("nan"), float("inf"), -1e308, "", "x", "1",
           "\ud800", "\0", "a" * 300, [], {}, [[]], [1, 2, 3], {"a": 1}, [float("nan")] * 6, [[1e9] * 6]]  # fmt: skip
FRAGMENTS = [b"\0", b"\xff", b"{", b"}", b"[", b"]", b'"', b"<", b">", b"&a;", b",", b":", b"nan", b"NaN", b"1e999",
             b"-", b"\n", b"9" * 20, b"[" * 3000, b"<a>" * 3000, b'{"a":' * 3000, b"- " * 300, b"&a [*a]",
             b"!!python/object:os"]  # fmt: skip
# Of each format, the files to mutate.
FILES = {
    "coco": ["annotations/instances.json"],
    "via": ["via_project_1Jan2026_10h0m.json"],
    "via_csv": ["via_export_csv.csv"],
    "labelme": ["a.json"],
    "yolo": ["data.yaml", "labels/train/a.txt"],
    "voc": ["SegmentationObject/2007_000001.png", "SegmentationClass/2007_000001.png", "JPEGImages/2007_000001.jpg",
            "ImageSets/Segmentation/train.txt"],
    "masks": ["0ab1/masks/0.png", "0ab1/masks/1.png", "0ab1/images/0ab1.png"],
    "label_images": ["a_mask.tif", "a.png"],
    "cvat": ["annotations.xml"],
}  # fmt: skip


def places(value: object) -> list[tuple]:
    """All places in the content of a JSON file: what holds them, and the key there."""
    found, left = [], [value]
    while left:
        holder = left.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                left.append(holder[key])
    return found


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change, drop, double or swap some values."""
    content = json.loads(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        there = places(content)
        holder, key = rng.choice(there)
        action = rng.randrange(5)
        if action < 2:
            holder[key] = copy.deepcopy(rng.choice(STRANGE))
        elif action == 2:
            del holder[key]
        elif action == 3:
            other, place = rng.choice(there)
            holder[key] = json.loads(json.dumps(other[place]))
        elif isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder["other" if rng.random() < 0.5 else str(key) + "2"] = holder[key]
    return json.dumps(content).encode()


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, repeat."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(len(data) + 1)
        action = rng.randrange(6)
        if action < 2 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif action == 2:
            del data[place:]
        elif action == 3:
            data[place:place] = rng.choice(FRAGMENTS)
        elif action == 4:
            del data[place : place + rng.randrange(1, 30)]
        else:
            data[place:place] = data[place : place + rng.randrange(1, 30)]
    return bytes(data)


def overwrite(path, data: bytes) -> None:
    """Write into a file as it is: file systems take their time for one that is emptied first."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def look(path) -> bool:
    """Read a dataset and all that is in it; whether nothing was wrong."""
    content = read_content(path)
    assert all(isinstance(problem, Problem) and str(problem) for problem in content.problems)
    dataset = CocoDataset()
    dataset.add_content(content)
    dataset.prepare()
    for image_id in dataset.image_ids:
        try:
            shape = dataset.load_image(image_id).shape
        except OWN:
            continue
        masks, class_ids = dataset.load_mask(image_id)
        assert masks.shape == (*shape[:2], len(class_ids)) and masks.any(axis=(0, 1)).all()
    content.require_sound()
    return True


@pytest.mark.parametrize("name", FILES)
def test_mutated_files(tmp_path, name, recwarn):
    path = samples.WRITERS[name](tmp_path)
    rng = random.Random(name)
    originals = {file: (tmp_path / file).read_bytes() for file in FILES[name]}
    counts = {"sound": 0, "refused": 0}
    for number in range(MUTATIONS):
        file = rng.choice(FILES[name])
        is_json = file.endswith(".json") and rng.random() < 0.7
        data = (mutate_json if is_json else mutate_bytes)(originals[file], rng)
        overwrite(tmp_path / file, data)
        start = time.monotonic()
        try:
            counts["sound"] += look(path)
        except OWN as error:
            counts["refused"] += 1
            message = str(error)
        except Exception as error:
            raise AssertionError(f"mutation {number} of {file}: {data[:2000]!r}") from error
        else:
            message = str(tmp_path)
        assert str(tmp_path) in message
        assert time.monotonic() - start < LIMIT, f"mutation {number} of {file}: {data[:2000]!r}"
        if len(originals) > 1:
            overwrite(tmp_path / file, originals[file])
    # Mutations that all go through, or that none does, would test little.
    assert min(counts.values()) > 0.02 * MUTATIONS, counts


def test_what_makes_json_readers_slow_or_deep(tmp_path):
    path = samples.coco(tmp_path)
    for text in ("[" * 200_000, '{"a":' * 200_000, '{"images": ' + "[" * 100_000 + "]" * 100_000 + "}", "1" * 100_000):
        path.write_text(text)
        start = time.monotonic()
        with pytest.raises(DatasetError, match=r"instances\.json"):
            read_coco(path)
        assert time.monotonic() - start < LIMIT
