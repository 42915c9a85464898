"""Losses of a step that wait on the device until somebody looks: reading a number back waits for the step that made it,
and the next one could have begun meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keras import ops

# Steps whose losses are read back together, and after which processes that share a batch ask each other.
LOOK_EVERY = 10


class LazyLogs(dict):
    """Logs of a step as callbacks get them: to look at a value reads them all, as plain numbers.

    Args:
        values: names and what the step gave for them, numbers or tensors.
    """

    def __init__(self, values: Mapping[str, Any] | None) -> None:
        super().__init__(dict.fromkeys(values or {}))
        self._waiting: dict[str, Any] | None = dict(values) if values else None

    @property
    def is_read(self) -> bool:
        """Whether the values are numbers by now."""
        return self._waiting is None

    def __iter__(self) -> Any:  # without an own one, dict(logs) would not ask for the values but take what is there
        return super().__iter__()


def read(logs: Iterable[LazyLogs]) -> None:
    """Read the logs of several steps back at once."""
    waiting = [(each, name, value) for each in logs if not each.is_read for name, value in each._waiting.items()]
    numbers: list[Any] = [value for _, _, value in waiting]
    tensors = [index for index, number in enumerate(numbers) if getattr(number, "shape", None) == ()]
    if tensors:
        together = ops.convert_to_numpy(ops.stack([ops.cast(numbers[index], "float32") for index in tensors]))
        for index, number in zip(tensors, together.tolist(), strict=True):
            numbers[index] = number
    for (each, name, _), number in zip(waiting, numbers, strict=True):
        dict.__setitem__(each, name, number)
    for each, _, _ in waiting:
        each._waiting = None


def _reading(name: str) -> Any:
    plain = getattr(dict, name)

    def method(self: LazyLogs, *args: Any) -> Any:
        if not self.is_read:
            read([self])
        return plain(self, *args)

    return method


for _name in ("__getitem__", "get", "items", "values", "copy", "pop", "popitem", "setdefault", "__eq__", "__repr__",
              "__or__", "__ror__", "__setitem__", "update"):  # fmt: skip
    setattr(LazyLogs, _name, _reading(_name))
