"""Loaders in other processes and for a long time: spawned children, and memory that does not grow."""

import gc
import json
import multiprocessing
import pickle
import tracemalloc
from concurrent.futures import wait
from itertools import islice

import cv2
import numpy as np
import pytest

from mrcnn.config import Config
from mrcnn.data.augmentation import Compose, Flip, recipe
from mrcnn.data.batches import BatchError, BatchLoader
from mrcnn.data.coco import CocoDataset
from mrcnn.data.content import Kind
from mrcnn.data.segmentations import SegmentationError
from mrcnn.interrupts import TrainingInterrupted
from tests.test_batches import same, shapes


class TinyConfig(Config):
    NUM_CLASSES = 4
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 16
    MAX_GT_INSTANCES = 4
    MINI_MASK_SHAPE = (14, 14)
    IMAGES_PER_GPU = 2


def coco(folder):
    """A dataset of three files with two squares each."""
    images, annotations = [], []
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "height": 40, "width": 60})
        for left in (5, 30):
            polygon = [left, 5, left + 15, 5, left + 15, 20 + number, left, 20 + number]
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1 + left // 30,
                                "segmentation": [polygon], "iscrowd": 0})  # fmt: skip
    categories = [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}, {"id": 3, "name": "none"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "a.json").write_text(json.dumps(content))
    dataset = CocoDataset()
    dataset.load_coco(folder / "a.json", folder)
    dataset.prepare()
    return dataset


def load_some(connection, dataset, config, augmentation, workers):
    with BatchLoader(dataset, config, augmentation=augmentation, seed=5, workers=workers) as loader:
        connection.send([next(loader) for _ in range(4)])
    connection.close()


def test_a_spawned_process_makes_the_same_batches(tmp_path):
    context = multiprocessing.get_context("spawn")
    for dataset, config, augmentation, workers in (
        (coco(tmp_path), TinyConfig.from_dict({"SEED": 1}), recipe("strong"), 2),
        (shapes(3), TinyConfig(), Compose([Flip()]), 0),
    ):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=load_some, args=(theirs, dataset, config, augmentation, workers))
        process.start()
        theirs.close()
        assert ours.poll(60)
        batches = ours.recv()
        process.join(60)
        assert process.exitcode == 0
        with BatchLoader(dataset, config, augmentation=augmentation, seed=5, workers=0) as loader:
            for batch in batches:
                same(batch, next(loader))


def send_error(connection, dataset, config):
    with BatchLoader(dataset, config, workers=0) as loader:
        try:
            next(loader)
        except BatchError as error:
            connection.send(error)
    connection.close()


def test_a_spawned_process_can_send_its_error(tmp_path):
    dataset = coco(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"none")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send_error, args=(theirs, dataset, TinyConfig()))
    process.start()
    theirs.close()
    assert ours.poll(60)
    error = ours.recv()
    process.join(60)
    assert isinstance(error, BatchError) and error.step == 0 and f"{error.image_id}.png" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        BatchError("image 3 is broken", 7, 3),
        SegmentationError(Kind.POINTS, "has too few points"),
        TrainingInterrupted("stopped", "a.h5", 15),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error) and vars(copy) == vars(error)


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_does_not_grow(workers):
    """300 batches; `python -m benchmarks.loader --batches 10000` goes on for longer."""
    config = TinyConfig.from_dict({"SKIP_EMPTY_IMAGES": True})
    with BatchLoader(shapes(9, empty=[4]), config, augmentation=recipe("strong"), workers=workers) as loader:
        sizes = []
        for count in (100, 100, 100):
            for _ in islice(loader, count):
                pass
            wait([future for _, futures in loader._pending for future in futures])  # what is made ahead is there
            if not tracemalloc.is_tracing():
                tracemalloc.start()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # From the second hundred to the third; a batch has 0.2 MB.
    assert abs(sizes[2] - sizes[1]) < 50_000
