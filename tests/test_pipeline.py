"""The production line: order, batches, how much is on it, what goes wrong on it, and that its threads end."""

from __future__ import annotations

import threading
import time

import pytest

from mrcnn.pipeline import Line


def make_line(batches=None, prepare=None, run=None, **values):
    """A line of numbers whose kind is their remainder by 3; what comes out is (number, its square)."""
    batches = [] if batches is None else batches

    def squares(numbers):
        batches.append(numbers)
        return [number**2 for number in numbers]

    return Line(
        prepare=prepare or (lambda index, number: number),
        run=run or squares,
        finish=lambda number, square: (number, square),
        kind_of=lambda number: number % 3,
        **values,
    )


def own_threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("mrcnn-")]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("look_ahead", [1, 2, 7, 100])
@pytest.mark.parametrize("workers", [1, 8])
def test_results_come_in_order(batch_size, look_ahead, workers):
    numbers = [4, 1, 7, 7, 0, 3, 3, 6, 2, 8, 5, 1, 1, 0, 4] * 2
    line = make_line(batch_size=batch_size, look_ahead=look_ahead, workers=workers)
    assert list(line.results(iter(numbers))) == [(n, n * n) for n in numbers]
    assert list(line.results([])) == []
    assert own_threads() == []


def test_those_of_a_kind_go_together_as_their_order_says_and_not_time():
    numbers = [0, 1, 3, 6, 2, 4, 9, 12, 5, 7]
    seen = []
    for pause in (0.0, 0.003):
        batches = []

        def slowly(index, number, pause=pause):
            time.sleep(pause * (7 - number % 7))
            return number

        line = make_line(batches, prepare=slowly, batch_size=2, look_ahead=4, workers=3)
        for _ in line.results(numbers):
            time.sleep(pause)
        seen.append(batches)
    assert seen[0] == seen[1]
    assert seen[0] == [[0, 3], [1], [6, 9], [2], [4], [12], [5], [7]]


def test_no_more_than_look_ahead_are_on_the_line():
    taken = []

    def numbers():
        for number in range(20):
            taken.append(number)
            yield number

    for count, _ in enumerate(make_line(look_ahead=5).results(numbers()), start=1):
        assert len(taken) <= count + 4
    assert len(taken) == 20


def test_items_are_prepared_while_the_network_runs_and_finished_while_it_runs_on():
    """Each step waits for another item to be at another one: in turns, one after the other, this would never end."""
    prepared, ran = [threading.Event() for _ in range(6)], [threading.Event() for _ in range(6)]

    def prepare(index, number):
        prepared[index].set()
        return index

    def run(indices):
        following = indices[0] + 1
        assert following == 6 or prepared[following].wait(10)
        ran[indices[0]].set()
        return indices

    def finish(index, _):
        return index == 5 or ran[index + 1].wait(10)

    line = Line(prepare, run, finish, kind_of=lambda index: 0, look_ahead=4, workers=4)
    assert list(line.results(range(6))) == [True] * 6


def prepare_small(index, number):
    if number > 5:
        raise ValueError(f"{number} is too large")
    return number


@pytest.mark.parametrize("batch_size", [1, 2])
def test_what_is_wrong_with_an_item_is_told_at_its_place(batch_size):
    line = make_line(prepare=prepare_small, batch_size=batch_size, look_ahead=4)
    results = line.results([1, 2, 9, 3])
    assert [next(results), next(results)] == [(1, 1), (2, 4)]
    with pytest.raises(ValueError, match="9 is too large"):
        next(results)
    assert list(results) == []
    assert own_threads() == []


def test_the_others_go_on_where_errors_are_taken():
    told = []
    line = make_line(prepare=prepare_small, batch_size=2)
    found = list(line.results([1, 9, 3, 8, 4], on_error=lambda *what: told.append(what)))
    assert found == [(1, 1), None, (3, 9), None, (4, 16)]
    assert [(index, item, str(error)) for index, item, error in told] == [
        (1, 9, "9 is too large"),
        (3, 8, "8 is too large"),
    ]


def test_an_error_of_the_network_or_of_finishing_is_raised_at_its_place_whoever_takes_errors():
    def run(numbers):
        if 7 in numbers:
            raise RuntimeError("no network")
        return numbers

    told = []
    results = make_line(run=run).results([1, 2, 7, 3], on_error=lambda *what: told.append(what))
    assert [next(results)[0], next(results)[0]] == [1, 2]
    with pytest.raises(RuntimeError, match="no network"):
        next(results)
    line = Line(lambda _, n: n, lambda ns: ns, lambda n, _: 1 // n, kind_of=lambda n: 0)
    results = line.results([1, 0, 1], on_error=lambda *what: told.append(what))
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    line = make_line(run=lambda numbers: [])  # fewer results than items
    with pytest.raises(ValueError, match="shorter"):
        list(line.results([1]))
    assert told == []
    assert own_threads() == []


def test_an_error_of_the_items_themselves_comes_after_the_results_before_it():
    def numbers():
        yield 1
        yield 2
        raise OSError("the camera is gone")

    results = make_line(look_ahead=10).results(numbers())
    assert [next(results), next(results)] == [(1, 1), (2, 4)]
    with pytest.raises(OSError, match="camera"):
        next(results)


def test_threads_end_when_the_results_are_no_longer_wanted():
    batches = []

    def numbers():
        number = 0
        while True:
            yield number
            number += 1

    results = make_line(batches, batch_size=2, look_ahead=8).results(numbers())
    next(results)
    assert own_threads() != []
    results.close()
    assert own_threads() == []
    count = len(batches)
    time.sleep(0.05)
    assert len(batches) == count
