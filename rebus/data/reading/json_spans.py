"""JSON files too large to hold: read through once, then element by element from where each lies in the file.

A reader keeps two numbers for each element, not the element, so that it stays small and goes to worker processes
cheaply.
"""

import json
import mmap
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rebus.core.errors import RebusError
from rebus.data.reading.disk_cache import check_unchanged, stamp

Span: TypeAlias = tuple[int, int]  # bytes from, to
Visit: TypeAlias = Callable[[Any, int, int], None]

_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class JsonFile:
    """A file of JSON that stays what it was when it was opened, also for a worker process."""

    path: Path
    size: int
    changed: int

    @classmethod
    def open(cls, path: Path) -> "JsonFile":
        """Raises `MissingFile`."""
        return cls(path, *stamp(path))

    def scan(self, visit: Mapping[str, Visit]) -> dict[str, Any]:
        """Read through an object once: `visit[name](element, start, end)` for each element of the list `name`.

        Elements come with letters beyond ASCII spoilt: they are meant for numbers and names of keys, and are read again
        with `elements`. Returns the values of the other names, unspoilt; a file that is no object comes as a whole
        under "". Raises `RebusError` naming file, line and column.
        """
        text = _letters(self.path)
        try:
            return _scan(text, 3 if text.startswith("\xef\xbb\xbf") else 0, visit)
        except json.JSONDecodeError as error:
            raise RebusError(f"{self.path}:{error.lineno}:{error.colno}: damaged JSON: {error.msg}") from None
        except (RecursionError, ValueError) as error:
            raise RebusError(f"{self.path}: damaged JSON: {str(error).splitlines()[0]}") from None

    def elements(self, spans: Iterable[Span]) -> list[Any]:
        """The elements that lie there. Raises `RebusError` where the file has changed or they are damaged."""
        found: list[Any] = []
        try:
            check_unchanged(self.path, (self.size, self.changed))
            with self.path.open("rb") as file:
                for start, end in spans:
                    file.seek(start)
                    found.append(json.loads(file.read(end - start).decode("utf-8")))
        except RebusError:
            raise
        except (OSError, RecursionError, ValueError) as error:
            raise RebusError(f"cannot be read at its place in {self.path.name}: {error}") from None
        return found


def read_json(path: Path) -> Any:
    """The whole file. Raises `RebusError` naming file, line and column when it is no JSON."""
    content = JsonFile.open(path).scan({})
    return content[""] if content.keys() == {""} else content


def _letters(path: Path) -> str:
    """One letter for each byte, so that places in the text are places in the file."""
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise RebusError(f"{path}: empty file, JSON wanted")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return str(content, "latin-1")
    except OSError as error:
        raise RebusError(f"{path}: cannot be read: {error}") from None


def _scan(text: str, at: int, visit: Mapping[str, Visit]) -> dict[str, Any]:
    at = _skip(text, at)
    if not text.startswith("{", at):
        value, at = _value(text, at)
        _nothing_more(text, at)
        return {"": value}
    rest: dict[str, Any] = {}
    more, at = not text.startswith("}", _skip(text, at + 1)), _skip(text, at + 1)
    while more:
        if not text.startswith('"', at):
            raise json.JSONDecodeError("a name in double quotes wanted", text, at)
        name, at = _value(text, at)
        at = _skip(text, _expect(text, _skip(text, at), ":"))
        if name in visit and text.startswith("[", at):
            at = _visit(text, at, visit[name])
        else:
            rest[name], at = _value(text, at)
        more, at = _another(text, at, "}")
    _nothing_more(text, _expect(text, at, "}"))
    return rest


def _visit(text: str, at: int, see: Visit) -> int:
    """Show each element of the list that begins at `at`; gives the place after it."""
    at = _skip(text, at + 1)
    more = not text.startswith("]", at)
    while more:
        element, end = _DECODER.raw_decode(text, at)
        see(element, at, end)
        more, at = _another(text, end, "]")
    return _expect(text, at, "]")


def _value(text: str, at: int) -> tuple[Any, int]:
    _, end = _DECODER.raw_decode(text, at)
    return json.loads(text[at:end].encode("latin-1").decode("utf-8")), end


def _another(text: str, at: int, close: str) -> tuple[bool, int]:
    """Whether another element follows, and where it, or the closing bracket, is."""
    at = _skip(text, at)
    if text.startswith(",", at):
        return True, _skip(text, at + 1)
    if not text.startswith(close, at):
        raise json.JSONDecodeError(f'"," or "{close}" wanted', text, at)
    return False, at


def _expect(text: str, at: int, letter: str) -> int:
    if not text.startswith(letter, at):
        raise json.JSONDecodeError(f'"{letter}" wanted', text, at)
    return at + 1


def _nothing_more(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise json.JSONDecodeError("something follows the end", text, _skip(text, at))


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None
    return found.end()
