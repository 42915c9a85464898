"""Signals while training: noted, and obeyed when the step is done."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any


class TrainingInterrupted(KeyboardInterrupt):
    """Training that a signal has stopped, after a step and with all saved.

    Attributes:
        path: of the checkpoint.
        signal: number of the signal.
    """

    def __init__(self, message: str, path: str, number: int) -> None:
        super().__init__(message)
        self.path = path
        self.signal = number

    def __reduce__(self) -> tuple:
        """As it goes from one process to another."""
        return type(self), (str(self), self.path, self.signal)


class Interrupts:
    """Within a `with` block, the first SIGINT (Ctrl-C) or SIGTERM is only noted; a second SIGINT interrupts at once. In
    another thread than the main one, and where a script has its own handlers, signals do what they did.

    Attributes:
        received: number of the signal; None before one came.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) is usual:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: Any) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        print(
            "\nStopping after this step, with all saved. (Ctrl-C again: at once, without.)", file=sys.stderr, flush=True
        )
