"""How long the rest of a training will take: the numbers that are told, by a clock that is made up."""

from __future__ import annotations

import datetime
import re

import pytest

from mrcnn import estimate
from mrcnn.estimate import Estimate, duration

START = datetime.datetime(2026, 1, 31, 12, 0, 0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is told to go on: of the time since, and of the day."""

    class Clock(datetime.datetime):
        passed = 0.0

        @classmethod
        def now(cls):
            return START + datetime.timedelta(seconds=cls.passed)

        @classmethod
        def wait(cls, seconds):
            cls.passed += seconds

    monkeypatch.setattr(estimate.time, "perf_counter", lambda: Clock.passed)
    monkeypatch.setattr(estimate.datetime, "datetime", Clock)
    return Clock


def run_epoch(told, clock, number, steps, each, after, first=None):
    """An epoch (from 1), its first step of another length, and what comes after its steps."""
    told.on_epoch_begin(number - 1)
    for batch in range(steps):
        clock.wait(first if first is not None and not batch else each)
        told.on_train_batch_end(batch, {"loss": 1.0})
    clock.wait(after)
    told.on_epoch_end(number - 1, {})


def numbers(text):
    """Seconds a step, how long all of so many steps take, and until when, as told."""
    found = re.search(r"After 3 steps: (\S+ s) a step, so (.+) for all (\d+), until (.+) \(without", text)
    return found.groups()


def test_the_rest_is_steps_times_their_mean_without_the_first(clock, capsys):
    told = Estimate(100, last_epoch=12)
    told.on_train_begin()
    run_epoch(told, clock, 1, 100, 0.5, after=8, first=30)
    printed = capsys.readouterr().out
    # 1200 steps of 0.5 s; at 12:00:31 there are 1197 of them left.
    assert numbers(printed) == ("0.5 s", "10 min", "1200", "12:10 on 2026-01-31")
    assert "Memory at the peak: " in printed
    # It took 30 + 99 * 0.5 + 8 s; the others will do without 29.5 s for the first step, so 58 s: 638 s from 12:01:27.5.
    assert "Epoch 1 took 88 s with validation and saving: all done about 12:12 on 2026-01-31.\n" in printed
    run_epoch(told, clock, 2, 100, 0.5, after=8)
    assert capsys.readouterr().out == ""


def test_steps_over_the_ends_of_epochs_leave_out_what_lies_between(clock, capsys):
    told = Estimate(2, last_epoch=50, evaluate_every=5)
    told.on_train_begin()
    run_epoch(told, clock, 1, 2, 3, after=100, first=9)
    run_epoch(told, clock, 2, 2, 3, after=100)
    printed = capsys.readouterr().out
    assert numbers(printed)[:3] == ("3 s", "5 min", "100")
    # 49 epochs of 106 s are 87 minutes; the first took 112.
    assert "Epoch 1 took 2 min with validation and saving: all done about 13:28 on 2026-01-31; average" in printed
    assert "average precision every 5 epochs comes on top." in printed


def test_each_stage_is_told_of_anew(clock, capsys):
    told = Estimate(10, last_epoch=20)
    told.on_train_begin()
    for number in range(1, 11):
        run_epoch(told, clock, number, 10, 1, after=2)
    printed = capsys.readouterr().out
    assert printed.count("After 3 steps") == printed.count(" took ") == 1
    assert numbers(printed) == ("1 s", "3 min", "200", "12:03 on 2026-01-31")
    told.on_train_begin()  # the second stage, four times as slow
    for number in range(11, 21):
        run_epoch(told, clock, number, 10, 4, after=2, first=24)
    printed = capsys.readouterr().out
    assert printed.count("After 3 steps") == printed.count(" took ") == 1
    # At 12:02:32 there are 97 steps left; at 12:03:02 nine epochs of 42 s.
    assert numbers(printed) == ("4 s", "7 min", "100", "12:09 on 2026-01-31")
    assert "Epoch 11 took 62 s with validation and saving: all done about 12:09" in printed


def test_going_on_counts_what_is_left(clock, capsys):
    told = Estimate(10, last_epoch=3, begun=14)  # in the middle of the second epoch
    told.on_train_begin()
    run_epoch(told, clock, 2, 6, 10, after=2)
    printed = capsys.readouterr().out
    assert numbers(printed) == ("10 s", "3 min", "16", "12:02 on 2026-01-31")
    assert " took " not in printed  # it was no whole one
    run_epoch(told, clock, 3, 10, 10, after=2)
    assert capsys.readouterr().out == ""  # and after the last there is nothing to tell


def test_an_epoch_that_is_only_measured_is_none_to_judge_by(clock, capsys):
    told = Estimate(4, last_epoch=5, begun=8)
    told.on_train_begin()
    run_epoch(told, clock, 2, 0, 0, after=60)
    assert capsys.readouterr().out == ""
    run_epoch(told, clock, 3, 4, 1, after=2)
    assert numbers(text := capsys.readouterr().out)[2] == "12" and "Epoch 3 took 6 s" in text


def test_durations_in_words():
    assert [duration(seconds) for seconds in (0.084, 9, 61, 600, 7530)] == [
        "0.084 s", "9 s", "61 s", "10 min", "2 h 06 min",
    ]  # fmt: skip
