"""Pickles read as data. A pickle is a program for a small stack machine, and loading one calls what it names; here its
steps are followed by a machine that can build containers and numbers only, and where it asks for a function or a class,
it gets one of a list of harmless stand-ins of this package, or is refused. Nothing is imported and nothing is called
that the file chose.

Needs no framework.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from mrcnn.weights.contents import WeightsError

CURE = (
    "Where it was made, save its weights alone and give that file: torch.save(model.state_dict(), path), or arrays in "
    "a dict"
)

# More steps than the largest checkpoint takes, an optimizer's state included.
_MOST_STEPS = 20_000_000
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "FLOAT", "BINFLOAT",
})  # fmt: skip
# Hashing nested tuples recurses as deep as they are nested: keys are plain.
_KEYS = (str, bytes, int, float, bool, type(None))
_SIZED = (str, bytes, bytearray, list, tuple, dict, set)
_SLACK = 1_000_000
_MARK = object()


class Shell:
    """What a stand-in makes that the pickle completes later (BUILD)."""

    def build(self, state: Any) -> None:
        """Take the state that the pickle gives."""
        raise WeightsError("a state for something that has none")


@dataclass(frozen=True)
class Known:
    """A stand-in for a function or class that a pickle may ask for. `make` None: it may be named and not called."""

    name: str
    make: Callable[..., Any] | None = None


class Inert(Shell):
    """An object that is of no interest: its contents are left out."""

    def build(self, state: Any) -> None:
        """Leave the state out."""


class _Mapping(dict, Shell):
    """An OrderedDict and the like; attributes that it has beside its items, as those of state dicts, are left out."""

    def __init__(self, pairs: Any = ()) -> None:
        super().__init__()
        if isinstance(pairs, dict):
            self.update(pairs)
        else:
            for pair in pairs:
                key, value = pair
                self[_key(key)] = value

    def build(self, state: Any) -> None:
        """Leave the state out."""


# What every pickle may ask for, under the names of Python 3 and 2.
PLAIN: dict[str, Callable[..., Any] | None] = {
    "collections.OrderedDict": lambda pairs=(): _Mapping(pairs),
    "collections.defaultdict": lambda factory=None, pairs=(): _Mapping(pairs),
    "collections.Counter": lambda pairs=(): _Mapping(pairs),
    "argparse.Namespace": lambda *_: Inert(),
    "builtins.set": lambda items=(): {_key(item) for item in items},
    "__builtin__.set": lambda items=(): {_key(item) for item in items},
    **{f"{module}.{name}": None for module in ("builtins", "__builtin__") for name in ("list", "dict", "int", "float")},
    "builtins.bytes": lambda: b"",
    "__builtin__.bytes": lambda: b"",
    "_codecs.encode": lambda text, encoding="latin1": _encoded(text, encoding),
}


def read_pickle(
    file: BinaryIO,
    where: str,
    known: Mapping[str, Callable[..., Any] | None],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle, of any protocol; the file is then behind it.

    Args:
        file: open for reading bytes, at the pickle's first.
        where: what messages call it.
        known: stand-ins by "module.name", beside those of `PLAIN`.
        persistent: makes of a persistent id what stands for it; None: there are none.

    Raises:
        WeightsError: the file asks for what is not known, or is no whole pickle.
    """
    machine = _Machine(where, {**PLAIN, **known}, persistent)
    try:
        return machine.run(file)
    except WeightsError as error:
        message = str(error)
        raise WeightsError(message if message.startswith(where) else f"{where} is damaged: {message}.") from error
    except MemoryError as error:
        raise WeightsError(f"{where} is damaged, or too large for this machine's memory.") from error
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, OSError) as error:
        raise WeightsError(f"{where} is truncated or damaged: {error}. Fetch or save it again.") from error


def _key(value: Any) -> Any:
    if not isinstance(value, _KEYS):
        raise WeightsError(f"a key of type {type(value).__name__}")
    return value


def _encoded(text: Any, encoding: Any) -> bytes:
    """How protocols 0 to 2 of Python 3 have bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise WeightsError("bytes that are encoded otherwise than all others")
    return text.encode("latin-1")


class _Machine:
    """A stack, and a memo of what may be needed again."""

    def __init__(
        self, where: str, known: Mapping[str, Callable[..., Any] | None], persistent: Callable[[Any], Any] | None
    ) -> None:
        self.where = where
        self.known = known
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.read = self.copied = 0

    def run(self, file: BinaryIO) -> Any:
        start = file.tell()
        for _ in range(_MOST_STEPS):
            code = file.read(1)
            if not code:
                raise ValueError("it ends before the pickle does")
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise ValueError(f"{code!r} is no step of a pickle")
            argument = _argument(opcode, file)
            self.read = file.tell() - start
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise WeightsError(f"{self.where} takes more than {_MOST_STEPS} steps to read. {CURE}.")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        else:
            action = getattr(self, f"_{name.lower()}", None)
            if action is None:
                raise WeightsError(f"{self.where} needs the step {name} of pickles, which weights do not. {CURE}.")
            if argument is None:
                action()
            else:
                action(argument)

    def marked(self) -> list[Any]:
        """What lies above the topmost mark, taken off with it."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                found = self.stack[index + 1 :]
                del self.stack[index:]
                return found
        raise ValueError("a mark is missing")

    def pop(self, kind: type | tuple[type, ...] = object) -> Any:
        value = self.stack.pop()
        if value is _MARK or not isinstance(value, kind):
            raise ValueError("what lies on the stack is not what a step needs")
        return value

    def _mark(self) -> None:
        self.stack.append(_MARK)

    def _pop(self) -> None:
        self.stack.pop()

    def _pop_mark(self) -> None:
        self.marked()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self) -> None:
        self.stack.append(tuple(self.marked()))

    def _tuple1(self) -> None:
        self.take(1)

    def _tuple2(self) -> None:
        self.take(2)

    def _tuple3(self) -> None:
        self.take(3)

    def take(self, count: int) -> None:
        items = tuple(self.pop() for _ in range(count))
        self.stack.append(items[::-1])

    def _list(self) -> None:
        self.stack.append(self.marked())

    def _dict(self) -> None:
        items = self.marked()
        self.stack.append({})
        self.set_items(items)

    def _append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def _appends(self) -> None:
        items = self.marked()
        self.top(list).extend(items)

    def _additems(self) -> None:
        items = self.marked()
        self.top(set).update(_key(item) for item in items)

    def _setitem(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def _setitems(self) -> None:
        self.set_items(self.marked())

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError("what lies on the stack is not what a step needs")
        return self.stack[-1]

    def _global(self, argument: str) -> None:
        self.find(*argument.split(" ", 1))

    def _stack_global(self) -> None:
        name, module = self.pop(str), self.pop(str)
        self.find(module, name)

    def find(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self.known:
            shown = full if len(full) <= 100 and full.isprintable() else ascii(full[:100])
            raise WeightsError(
                f"{self.where} asks for {shown}, and is not read: only arrays, tensors and plain containers are. It is "
                "not a file of weights alone (a whole model, or an attempt to run a program). If you trust it: "
                f"{CURE[0].lower()}{CURE[1:]}."
            )
        self.stack.append(Known(full, self.known[full]))

    def _count(self, arguments: Any) -> None:
        """Refuse a file that makes more of what it holds than it holds, by using the same large thing many times."""
        self.copied += sum(len(item) for item in arguments if isinstance(item, _SIZED))
        if self.copied > self.read + _SLACK:
            raise WeightsError("what it makes is larger than itself")

    def _reduce(self) -> None:
        arguments, function = self.pop(tuple), self.pop(Known)
        self._count(arguments)
        if function.make is None:
            raise ValueError(f"{function.name} is called, which is nothing to call")
        self.stack.append(function.make(*arguments))

    def _newobj(self) -> None:
        self._reduce()

    def _build(self) -> None:
        state = self.pop()
        self._count(state if isinstance(state, tuple) else ())
        self.top(Shell).build(state)

    def _binpersid(self) -> None:
        if self.persistent is None:
            raise ValueError("it refers to what is not in it")
        self.stack.append(self.persistent(self.pop()))


def _argument(opcode: pickletools.OpcodeInfo, file: BinaryIO) -> Any:
    if opcode.name == "STRING":  # of Python 2, which has any bytes in it
        return _string(file.readline())
    return None if opcode.arg is None else opcode.arg.reader(file)


def _string(line: bytes) -> str:
    """The value of a quoted, escaped string of protocol 0."""
    import codecs

    text = line.rstrip(b"\r\n")
    if not line.endswith(b"\n") or len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise ValueError("a string without its end")
    return codecs.escape_decode(text[1:-1])[0].decode("latin-1")
