"""XML files, read piece by piece, with the line that each element is on. Entities that a file declares are refused: a
few nested ones can stand for more text than there is memory."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator
from pathlib import Path
from xml.parsers import expat

from mrcnn.data.dataset import DatasetError

# The attribute that holds an element's line. No attribute of a file can have a name with a space.
_LINE = "its line"
_CHUNK = 1 << 20


def line_of(element: ElementTree.Element) -> str:
    """What to call an element in messages."""
    return f"line {element.get(_LINE)}"


def root_of(path: Path) -> str | None:
    """The name of a file's root element; None where it is no XML file."""
    try:
        return next(elements(path, None)).tag
    except (DatasetError, StopIteration):
        return None


def elements(path: Path, names: Collection[str] | None) -> Iterator[ElementTree.Element]:
    """The elements of these names, each complete, as the file is read; what lies around them is not kept.

    Args:
        path: the file.
        names: those inside of others that are wanted are not given apart. None: the root element as it begins.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it is no well-formed XML, or declares entities.
    """
    collector = _Collector(path, names)
    try:
        with path.open("rb") as file:
            is_over = False
            while not is_over:
                chunk = file.read(_CHUNK)
                is_over = not chunk
                collector.parser.Parse(chunk, is_over)
                yield from collector.taken()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"No such annotation file: {path}") from error
    except expat.ExpatError as error:
        raise DatasetError(
            f"{path}: line {error.lineno}: no well-formed XML: {expat.ErrorString(error.code)}"
        ) from error
    except DatasetError:
        raise
    except (LookupError, ValueError) as error:  # an encoding that Python does not know
        raise DatasetError(f"{path} is not an XML file: {error}") from error


class _Collector:
    def __init__(self, path: Path, names: Collection[str] | None) -> None:
        self.path, self.names = path, names
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._refuse
        self._builder: ElementTree.TreeBuilder | None = None
        self._depth = 0
        self._finished: list[ElementTree.Element] = []

    def taken(self) -> list[ElementTree.Element]:
        finished, self._finished = self._finished, []
        return finished

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self.names is None:
            self._finished.append(ElementTree.Element(name))
            self.names = ()
        if self._builder is None and name in self.names:
            self._builder = ElementTree.TreeBuilder()
        if self._builder is not None:
            self._depth += 1
            self._builder.start(name, {**attributes, _LINE: str(self.parser.CurrentLineNumber)})

    def _end(self, name: str) -> None:
        if self._builder is not None:
            self._builder.end(name)
            self._depth -= 1
            if self._depth == 0:
                self._finished.append(self._builder.close())
                self._builder = None

    def _text(self, text: str) -> None:
        if self._builder is not None:
            self._builder.data(text)

    def _refuse(self, name: str, *rest: object) -> None:
        raise DatasetError(
            f"{self.path}: line {self.parser.CurrentLineNumber}: declares an entity {name!r}. No annotation tool does, "
            "and it could stand for more than fits into memory: remove it."
        )
