"""A production line for images: each is prepared, goes through the network and is finished, all three at a time.

Helper threads prepare the items that come next and finish those that have been through; one thread more runs the
network, on several items at once where they are of one kind. Results come out in the order of the items. Which items
go through together follows from that order alone, never from how long something took, so the same items always give
the same results.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Line:
    """What is done to items, and how many at a time.

    Attributes:
        prepare: (index, item) -> prepared; in a helper thread. Raises what is wrong with the item.
        run: a list of prepared of one kind -> a list of raw results; always in the same thread.
        finish: (prepared, raw) -> result; in a helper thread.
        kind_of: prepared -> what those that go through `run` together have in common.
        batch_size: so many at most go through `run` together.
        look_ahead: so many items at most are on the line.
        workers: helper threads.
    """

    prepare: Callable[[int, Any], Any]
    run: Callable[[list[Any]], Sequence[Any]]
    finish: Callable[[Any, Any], Any]
    kind_of: Callable[[Any], Hashable]
    batch_size: int = 1
    look_ahead: int = 4
    workers: int = 2

    def results(
        self, items: Iterable[Any], on_error: Callable[[int, Any, Exception], Any] | None = None
    ) -> Iterator[Any]:
        """Take items through the line.

        Args:
            items: taken one by one, in the thread that asks for results.
            on_error: (index, item, error) is told what `prepare` raised, and None takes the place of the result. None:
                the error is raised when its turn has come.

        Yields:
            The results, in the order of the items. When the iterator is closed, or raises, all threads end.
        """
        state = _State(self, ThreadPoolExecutor(self.workers, "mrcnn-helper"))
        runner = threading.Thread(target=state.run_batches, name="mrcnn-network", daemon=True)
        runner.start()
        try:
            yield from state.results(items, on_error)
        finally:
            state.stopped.set()
            state.orders.put(None)
            state.pool.shutdown(wait=True, cancel_futures=True)
            runner.join()


@dataclass(eq=False)
class _Place:
    """An item on the line. `finished` comes to hold the future of its result; or None, where `error` tells why."""

    index: int
    item: Any
    prepared: Future | None = None
    kind: Hashable = None
    error: Exception | None = None
    finished: Future = field(default_factory=Future)


@dataclass(eq=False)
class _State:
    line: Line
    pool: ThreadPoolExecutor
    orders: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)  # (place, whether it must run now); None: end
    stopped: threading.Event = field(default_factory=threading.Event)

    def results(self, items: Iterable[Any], on_error: Callable[[int, Any, Exception], Any] | None) -> Iterator[Any]:
        places = self._places(items)
        on_line: deque[_Place] = deque()
        while True:
            while len(on_line) < self.line.look_ahead and (place := next(places, None)) is not None:
                on_line.append(place)
            if not on_line:
                return
            place = on_line.popleft()
            # Nothing else comes onto the line before this one leaves it: it can wait for others of its kind no longer.
            self.orders.put((place, True))
            finishing = place.finished.result()
            if place.error is not None:
                if on_error is None:
                    raise place.error
                on_error(place.index, place.item, place.error)
            place = None  # the image and all that was made of it can go while the result is looked at
            yield None if finishing is None else finishing.result()

    def _places(self, items: Iterable[Any]) -> Iterator[_Place]:
        """Put items onto the line. An error of `items` itself has its place there too: the results before come out."""
        index = 0
        try:
            for index, item in enumerate(items):
                place = _Place(index, item)
                place.prepared = self.pool.submit(self.line.prepare, index, item)
                self.orders.put((place, False))
                yield place
        except Exception as error:
            place = _Place(index, None)
            place.finished.set_exception(error)
            yield place

    def run_batches(self) -> None:
        """What the network's thread does."""
        waiting: dict[Hashable, list[_Place]] = {}
        while (order := self.orders.get()) is not None and not self.stopped.is_set():
            place, now = order
            if now:
                ready = place in waiting.get(place.kind, ())
            else:
                ready = self._joined(place, waiting) and len(waiting[place.kind]) == self.line.batch_size
            if ready:
                self._run(waiting.pop(place.kind))

    def _joined(self, place: _Place, waiting: dict[Hashable, list[_Place]]) -> bool:
        try:
            place.kind = self.line.kind_of(place.prepared.result())
        except CancelledError:  # the line is being closed
            return False
        except Exception as error:
            place.error = error
            place.finished.set_result(None)
            return False
        waiting.setdefault(place.kind, []).append(place)
        return True

    def _run(self, batch: list[_Place]) -> None:
        try:
            prepared = [place.prepared.result() for place in batch]
            raw = self.line.run(prepared)
            for place, one, found in zip(batch, prepared, raw, strict=True):
                place.prepared = None
                place.finished.set_result(self.pool.submit(self.line.finish, one, found))
        except Exception as error:  # of the network, or because the line is being closed
            for place in batch:
                if not place.finished.done():
                    place.finished.set_exception(error)


def named_error(error: Exception, name: str) -> Exception:
    """An error of the same type whose message says which image it is about, with `error` as its cause."""
    try:
        named = type(error)(f"{name}: {error}")
    except TypeError:  # a type that is not made from a message alone
        named = ValueError(f"{name}: {type(error).__name__}: {error}")
    named.__cause__ = error
    return named
