"""Batches for training: samples loaded ahead by threads, in an order that a seed decides.

Letters: B images, H, W sides of the molded image, C channels, K classes (0 is background), A anchors. Boxes
are (y1, x1, y2, x2) in *pixels* of the molded image.

A batch is a function of the seed and of its step alone, not of the number of threads or of the batches before
it: a run that is resumed at step 700 sees what it would have seen.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.data.dataset import Dataset
from mrcnn.data.samples import Sample, SampleMaker, load_image_gt

if TYPE_CHECKING:
    from mrcnn.config import Config

__all__ = ["BatchError", "BatchLoader", "load_image_gt"]

# Streams of random numbers that a seed is split into. (A plain [seed, x] and [seed, x, 0] would be the same
# stream.)
_ORDER, _SAMPLE = 1, 2
# Batches whose true images are remembered, where empty ones were skipped.
_SUBSTITUTES_KEPT = 1000


class BatchError(RuntimeError):
    """A batch that could not be made. The message names the image; `__cause__` is what went wrong with it.

    Attributes:
        step: of the batch.
        image_id: number of the image in the dataset; None where it is not one image that is at fault.
    """

    def __init__(self, message: str, step: int, image_id: int | None = None) -> None:
        super().__init__(message)
        self.step = step
        self.image_id = image_id

    def __reduce__(self) -> tuple:
        """As it goes from one process to another."""
        return type(self), (str(self), self.step, self.image_id)


class BatchLoader:
    """An endless iterator of training batches. Use it in a `with` block, or `close` it.

    Images are gone through in passes, each in a new order; a batch at the end of a pass takes its last images
    from the next one. Iterating again goes on where the last iteration stopped.

    A batch is a dict of the network's inputs by name:
        input_image [B, H, W, C] float32, molded.
        input_image_meta [B, 12 + K] float32, see `ImageMeta`.
        input_rpn_match [B, A, 1] int32, 1 positive, -1 negative, 0 neutral.
        input_rpn_bbox [B, RPN_TRAIN_ANCHORS_PER_IMAGE, 4] float32.
        input_gt_class_ids [B, MAX_GT_INSTANCES] int32, zero-padded, negative for crowds.
        input_gt_boxes [B, MAX_GT_INSTANCES, 4] float32, zero-padded.
        input_gt_masks [B, h, w, MAX_GT_INSTANCES] bool: MINI_MASK_SHAPE, or H, W when USE_MINI_MASK is False.
        input_roi [B, POST_NMS_ROIS_TRAINING, 4] int32, when USE_RPN_ROIS is False.

    Args:
        dataset: prepared. Its `load_image` and `load_mask` are called by several threads at once.
        config: a `Config`.
        shuffle: False: every pass goes in the order of the dataset.
        augmentation: see `mrcnn.data.augmentation.as_augmentation`.
        seed: a whole number of at least 0. None: the configuration's SEED.
        start_step: the step of the first batch.
        workers: threads. 0: batches are made when they are asked for. None: the configuration's
            LOADER_WORKERS.
        no_augmentation_sources: sources whose images are not augmented.
        batch_size: None: the configuration's BATCH_SIZE.
        part: (number, of how many): only that part of each batch is made, for processes that share it.

    Raises:
        DatasetError: no images, not prepared, or not of the configuration's classes.
        ValueError: a number that cannot be used.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        *,
        shuffle: bool = True,
        augmentation: Any = None,
        seed: int | None = None,
        start_step: int = 0,
        workers: int | None = None,
        no_augmentation_sources: Collection[str] | None = None,
        batch_size: int | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.dataset = dataset
        self.seed = _whole("seed", config.SEED if seed is None else seed, 0)
        self.batch_size = _whole("batch_size", config.BATCH_SIZE if batch_size is None else batch_size, 1)
        number, parts = part
        if self.batch_size % parts or not 0 <= number < parts:
            raise ValueError(
                f"part must be (number, parts): the parts divide the batch of {self.batch_size}, and the number is "
                f"below them. Received: {part}."
            )
        size = self.batch_size // parts
        self._slots = slice(number * size, (number + 1) * size)
        self.workers = _whole("workers", config.LOADER_WORKERS if workers is None else workers, 0)
        self._step = _whole("start_step", start_step, 0)
        self._maker = SampleMaker(dataset, config, augmentation, no_augmentation_sources)
        self._schedule = _Schedule(np.array(dataset.image_ids), self.batch_size, self.seed, shuffle)
        self._look_ahead = 1 + -(-2 * self.workers // self.batch_size)
        self._substitutes: dict[int, list[int]] = {}
        self._pending: deque[tuple[int, list[Future]]] = deque()
        self._executor: ThreadPoolExecutor | None = None
        self._process: int | None = None
        self._stop_threads: Any = None
        self._closed = False
        self._lock = threading.RLock()

    @property
    def step(self) -> int:
        """The step that the next batch is of."""
        return self._step

    def image_ids(self, step: int) -> list[int]:
        """Numbers of the images in the batch of `step`, in its order.

        With SKIP_EMPTY_IMAGES, an image turns out to be empty when it is loaded: of batches lately made,
        these are the images that took the empty ones' places; of others, those that are to be tried first.
        """
        image_ids = self._schedule.image_ids(step)
        image_ids[self._slots] = self._substitutes.get(step) or image_ids[self._slots]
        return image_ids

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        with self._lock:
            if self._closed:
                raise StopIteration
            try:
                batch = self._take()
            except BatchError:
                self.close()
                raise
            except (CancelledError, RuntimeError):
                # Closed by another thread meanwhile.
                if self._closed:
                    raise StopIteration from None
                raise
            # Whatever interrupts before this line, the same step comes again.
            self._step += 1
            return batch

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop: iteration ends, samples not yet begun are given up. The threads end with the ones they are
        at."""
        self._closed = True
        self._pending.clear()
        if self._stop_threads is not None:
            self._stop_threads()

    def _take(self) -> Sample:
        step = self._step
        if self.workers == 0:
            results = [self._result(step, _done(*arguments)) for arguments in self._arguments(step)]
        else:
            self._submit_ahead()
            results = [self._result(step, future) for future in self._pending[0][1]]
        image_ids, samples = zip(*results, strict=True)
        if list(image_ids) != self._schedule.image_ids(step)[self._slots]:
            self._substitutes[step] = list(image_ids)
            if len(self._substitutes) > _SUBSTITUTES_KEPT:
                del self._substitutes[next(iter(self._substitutes))]
        return self._stack(step, image_ids, samples)

    def _arguments(self, step: int) -> list[tuple[SampleMaker, np.ndarray, int, np.random.Generator]]:
        """What `_make_sample` needs, for each slot of the batch."""
        return [
            (
                self._maker,
                *self._schedule.place(step, slot),
                np.random.default_rng([_SAMPLE, self.seed, step, slot]),
            )
            for slot in range(self.batch_size)[self._slots]
        ]

    def _submit_ahead(self) -> None:
        if self._executor is None or self._process != os.getpid():
            # A forked child has none of its parent's threads: it starts its own, and makes what was pending
            # itself.
            self._pending.clear()
            self._process = os.getpid()
            self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix="mrcnn-loader")
            # The threads know the executor and the maker, never the loader: once the loader is gone, they
            # end.
            self._stop_threads = weakref.finalize(self, self._executor.shutdown, wait=False, cancel_futures=True)
        while self._pending and self._pending[0][0] < self._step:
            self._pending.popleft()
        for step in range(self._step + len(self._pending), self._step + 1 + self._look_ahead):
            futures = [self._executor.submit(_make_sample, *arguments) for arguments in self._arguments(step)]
            self._pending.append((step, futures))

    def _result(self, step: int, future: Future) -> tuple[int, Sample]:
        # In slices, for Windows does not interrupt a wait without an end.
        while not future.done():
            wait([future], timeout=0.5)
        try:
            return future.result()
        except _SampleError as error:
            image_id, cause = error.image_id, error.__cause__
            info = self.dataset.image_info[image_id]
            raise BatchError(
                f"Image {image_id} (source {info['source']!r}, id {info['id']!r}, path {info['path']}), "
                f"in the batch of step {step}: {type(cause).__name__}: {cause}",
                step,
                image_id,
            ) from cause
        except _AllEmptyError as error:
            raise BatchError(
                f"None of the {len(self.dataset.image_ids)} images has an object, and SKIP_EMPTY_IMAGES "
                "leaves images "
                "without any out. Check the dataset's load_mask, or set SKIP_EMPTY_IMAGES to False.",
                step,
            ) from error

    def _stack(self, step: int, image_ids: tuple[int, ...], samples: tuple[Sample, ...]) -> Sample:
        shapes = [sample["input_image"].shape for sample in samples]
        if len(set(shapes)) > 1:
            sizes = ", ".join(
                f"{self.dataset.image_reference(image_id)}: {shape[0]} x {shape[1]}"
                for image_id, shape in zip(image_ids, shapes, strict=True)
            )
            mode = self._maker.config.IMAGE_RESIZE_MODE
            raise BatchError(
                "The images of a batch must be of one size (height x width). With IMAGE_RESIZE_MODE "
                f"{mode!r} those of "
                f"step {step} are not: {sizes}. Use IMAGE_RESIZE_MODE 'square' or 'crop', or batches of "
                "one image.",
                step,
            )
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


class _Schedule:
    """Which image goes where: pure functions of the seed."""

    def __init__(self, image_ids: np.ndarray, batch_size: int, seed: int, shuffle: bool) -> None:
        self.count = len(image_ids)
        self.batch_size = batch_size

        # A batch needs the order of its own pass and, at the end of one, of the next.
        @functools.lru_cache(maxsize=4)
        def order(turn: int) -> np.ndarray:
            return np.random.default_rng([_ORDER, seed, turn]).permutation(image_ids) if shuffle else image_ids

        self.order = order

    def place(self, step: int, slot: int) -> tuple[np.ndarray, int]:
        """The order of the pass that a slot of a batch falls into, and its place in that order."""
        turn, place = divmod(step * self.batch_size + slot, self.count)
        return self.order(turn), place

    def image_ids(self, step: int) -> list[int]:
        places = [self.place(step, slot) for slot in range(self.batch_size)]
        return [int(order[place]) for order, place in places]


class _SampleError(Exception):
    """Something went wrong with an image; `__cause__` tells what."""

    def __init__(self, image_id: int) -> None:
        super().__init__(image_id)
        self.image_id = image_id


class _AllEmptyError(Exception):
    """No image has an object."""


def _make_sample(maker: SampleMaker, order: np.ndarray, place: int, rng: np.random.Generator) -> tuple[int, Sample]:
    """The sample at `place`, or the next in the order (and on from its start) that is not to be skipped as
    empty."""
    for offset in range(len(order)):
        image_id = int(order[(place + offset) % len(order)])
        try:
            sample = maker.make(image_id, rng)
        except Exception as error:
            raise _SampleError(image_id) from error
        if sample is not None:
            return image_id, sample
    raise _AllEmptyError


def _done(*arguments: Any) -> Future:
    """`_make_sample` done at once, in the form that threads give it."""
    future: Future = Future()
    try:
        future.set_result(_make_sample(*arguments))
    except (_SampleError, _AllEmptyError) as error:
        future.set_exception(error)
    return future


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}. Received: {value!r}.")
    return int(value)
