"""Configurations in pickles, so that a process that is spawned can be given one.

Python pickles an object's class by its name alone. Configurations are often of classes that have none to be found by:
`Config.from_dict` makes one for each, and so do programs, in functions.
"""

from __future__ import annotations

import sys
from typing import Any


def reduced(config: Any) -> tuple[Any, ...]:
    """What `config.__reduce__` is to return."""
    return _instance, (_Class(type(config)),), vars(config)


class _Class:
    """A class that is pickled by its name where it is found by that, else by its bases and its own attributes."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        if _is_found(self.kind):
            return _Class, (self.kind,)
        own = {
            name: value.__func__ if isinstance(value, staticmethod) else value
            for name, value in vars(self.kind).items()
            if not name.startswith("__")
        }
        return _made_again, (self.kind.__name__, [_Class(base) for base in self.kind.__bases__], own)


def _instance(of: _Class) -> Any:
    return object.__new__(of.kind)


def _made_again(name: str, bases: list[_Class], own: dict[str, Any]) -> _Class:
    return _Class(type(name, tuple(base.kind for base in bases), own))


def _is_found(kind: type) -> bool:
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind
