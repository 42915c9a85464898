"""Worker processes, and their turns: round after round, one candidate after the other."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.candidates import Candidate
from benchmarks.measures import Run, Start, summary
from benchmarks.quiet import busy_seconds, wait_until_quiet
from mrcnn.cache import CACHE_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
_TAIL = 600  # characters of a worker's standard error that are shown


class WorkerError(Exception):
    """A worker that could not do what it should."""


class Worker:
    """A candidate's process.

    Args:
        candidate: who.
        python: its interpreter.
        cache: folder of what is made once.
        photo: path of the photo, a `.npy` file.
        prepare: only prepare (see `benchmarks.worker`).
        environment: variables of its process, beside the candidate's and those there are.
    """

    def __init__(
        self,
        candidate: Candidate,
        python: str,
        cache: Path,
        photo: Path,
        prepare: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.candidate = candidate
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - lives as long as the worker
        command = [python, "-m", "benchmarks.worker", *(["--prepare"] if prepare else [])]
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            command, cwd=ROOT, text=True, bufsize=1,
            env={**os.environ, **(environment or {}), **candidate.environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.send(
            maker=candidate.maker,
            options=dict(candidate.options),
            cache=str(cache.resolve()),
            photo=str(photo.resolve()),
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # One that has failed is not asked to stop: it might not listen.
        self.stop(patience=10.0 if kind is None else 0.0)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put(None)

    def send(self, **message: Any) -> None:
        """Tell the worker something. A worker that is gone is found out about when its reply is missing."""
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def reply(self, timeout: float) -> dict[str, Any]:
        """What the worker says next.

        Raises:
            WorkerError: an error that it told of, its end, or its silence for `timeout` seconds.
        """
        try:
            line = self._replies.get(timeout=timeout)
        except queue.Empty:
            raise WorkerError(f"no answer in {timeout:g} seconds. {self._tail()}") from None
        if line is None:
            raise WorkerError(f"ended with exit status {self._process.wait()}. {self._tail()}")
        message = json.loads(line)
        if message["event"] == "error":
            raise WorkerError(message["error"])
        return message

    def stop(self, patience: float) -> None:
        """End the process, by asking first."""
        if self._process.poll() is None and patience:
            self.send(do="stop")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # what a dead process was still to be told
                stream.close()

    def _tail(self) -> str:
        self._errors.seek(0)
        text = self._errors.read().strip()
        return f"Its last words: ...{text[-_TAIL:]}" if text else "It said nothing."


class Measurement:
    """Measures candidates in turns: in each round each one's process is started, detects, and ends.

    So only one process is there at a time, with all the memory and all the cores, and each round times a start, too.
    Each candidate has a folder of its own for what our package keeps (MRCNN_CACHE), empty before the first start; so
    that start is one on a machine that has never run this network, and later ones are not.

    Args:
        candidates: in the order of their turns.
        python_of: a candidate -> its interpreter.
        cache, photo: see `Worker`.
        rounds: of turns.
        runs: detections that count in a turn. Two come before them: the first of the process, and one to warm up.
        timeout: seconds for a detection.
        start_timeout: seconds for a start with its first detection, and for a preparation.
        patience: seconds to wait, before each detection, for others on this machine to stop working.
        repeats: how often a detection is repeated that others' work disturbed; the least disturbed counts.
        report: is given a line of text about what happens.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        python_of: Callable[[Candidate], str] = lambda candidate: sys.executable,
        *,
        cache: Path,
        photo: Path,
        rounds: int = 5,
        runs: int = 2,
        timeout: float = 120.0,
        start_timeout: float = 900.0,
        patience: float = 0.0,
        repeats: int = 0,
        report: Callable[[str], None] = print,
    ) -> None:
        self.candidates = list(candidates)
        self._python_of = python_of
        self._cache, self._photo = cache, photo
        self._rounds, self._timeout, self._start_timeout = rounds, timeout, start_timeout
        self._runs_a_turn, self._patience, self._repeats = runs, patience, repeats
        self._report = report
        self._starts: dict[str, list[Start]] = {candidate.name: [] for candidate in candidates}
        self._runs: dict[str, list[Run]] = {candidate.name: [] for candidate in candidates}
        self._failures: dict[str, str] = {}

    def measure(self) -> list[dict[str, Any]]:
        """A summary of each candidate (see `benchmarks.measures.summary`), in their order; of one that failed, why."""
        for candidate in self.candidates:
            self._attempt(candidate, self._prepare)
        with tempfile.TemporaryDirectory() as folder:
            for turn in range(1, self._rounds + 1):
                for candidate in self.candidates:
                    if candidate.name not in self._failures:
                        self._attempt(candidate, self._take_turn, turn, Path(folder) / candidate.name)
        return [self._summary(candidate) for candidate in self.candidates]

    def _attempt(self, candidate: Candidate, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(candidate, *arguments)
        except (WorkerError, OSError) as error:
            self._failures[candidate.name] = str(error)
            self._report(f"{candidate.name}: {error}")

    def _prepare(self, candidate: Candidate) -> None:
        with Worker(candidate, self._python_of(candidate), self._cache, self._photo, prepare=True) as worker:
            worker.reply(self._start_timeout)

    def _take_turn(self, candidate: Candidate, turn: int, kept: Path) -> None:
        self._wait()
        python, environment = self._python_of(candidate), {CACHE_VARIABLE: str(kept)}
        with Worker(candidate, python, self._cache, self._photo, environment=environment) as worker:
            ready = worker.reply(self._start_timeout)
            start = Start(time.perf_counter() - worker.started, ready["peak_bytes"], ready["facts"])
            self._one_run(worker)
            runs = [self._least_disturbed(worker) for _ in range(self._runs_a_turn)]
        self._starts[candidate.name].append(start)
        self._runs[candidate.name] += runs
        times = ", ".join(f"{run.seconds:.3f}{' (disturbed)' * run.disturbed}" for run in runs)
        self._report(f"{turn}  {candidate.name:36} first after {start.seconds:.1f} s, then {times} s")

    def _least_disturbed(self, worker: Worker) -> Run:
        best = None
        for _ in range(1 + self._repeats):
            self._wait()
            run = self._one_run(worker)
            if best is None or run.foreign_cores < best.foreign_cores:
                best = run
            if not best.disturbed:
                break
        return best

    def _one_run(self, worker: Worker) -> Run:
        before, start = busy_seconds(), time.perf_counter()
        worker.send(do="run")
        message = worker.reply(self._timeout)
        after, wall = busy_seconds(), time.perf_counter() - start
        foreign = 0.0 if before is None else max(0.0, after - before - message["cpu_seconds"]) / wall
        return Run(message["seconds"], message["detections"], message["peak_bytes"], foreign)

    def _wait(self) -> None:
        if self._patience:
            wait_until_quiet(self._patience)

    def _summary(self, candidate: Candidate) -> dict[str, Any]:
        about = {
            "name": candidate.name,
            "family": candidate.family,
            "note": candidate.note,
            "options": dict(candidate.options),
            "environment": dict(candidate.environment),
        }
        if candidate.name in self._failures:
            return {**about, "error": self._failures[candidate.name]}
        return {**about, **summary(self._starts[candidate.name], self._runs[candidate.name])}
