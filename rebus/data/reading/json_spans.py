"""JSON files too large to hold: read through once, then element by element from where each lies in the file.

A reader keeps two numbers for each element, not the element, so that it stays small and goes to worker processes
cheaply.
"""

import json
import mmap
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import msgspec
import numpy as np

from rebus.core.errors import RebusError
from rebus.data.reading.disk_cache import check_unchanged, stamp

Span: TypeAlias = tuple[int, int]  # bytes from, to
Visit: TypeAlias = Callable[[dict[str, Any], int, int], None]  # the fields of an element that can be read, its span

_BOM = b"\xef\xbb\xbf"
_NOT_FINITE = re.compile(rb"(?<=[\s,:\[])(?:NaN|-?Infinity)(?=[\s,\]}])")
_AT_BYTE = re.compile(r"(?:JSON is malformed: )?(.*) \(byte (\d+)\)")


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

    def scan(self, lists: Mapping[str, tuple[Sequence[str], Visit]]) -> dict[str, Any]:
        """Read through an object once: for each element of the list `name`, `lists[name]` being (fields, visit),
        `visit(element, start, end)` with those of the fields that it has.

        The other fields are passed over unread; an element that is no object, or whose fields are damaged, comes empty.
        Returns the values of the other names; a file that is no object comes as a whole under "". Raises `RebusError`
        naming file, line and column.
        """
        content = self._mapped()
        start = len(_BOM) if content[: len(_BOM)] == _BOM else 0
        try:
            valid = _valid(memoryview(content)[start:])
            try:
                found = msgspec.json.decode(valid, type=dict[str, msgspec.Raw])
            except msgspec.ValidationError:  # no object
                return {"": json.loads(content[start:])}
            origin = _address(valid) - start
            rest: dict[str, Any] = {}
            for name, raw in found.items():
                if name in lists and bytes(memoryview(raw)[:1]) == b"[":
                    _visit(raw, origin, *lists[name])
                else:
                    at = _address(raw) - origin
                    rest[name] = json.loads(content[at : at + len(memoryview(raw))])
            return rest
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise RebusError(f"{self.path}{_explained(str(error), content, start)}") from None

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

    def _mapped(self) -> mmap.mmap:
        try:
            with self.path.open("rb") as file:
                if not self.path.stat().st_size:
                    raise RebusError(f"{self.path}: empty file, expected JSON")
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise RebusError(f"{self.path}: cannot be read: {error}") from None


def read_json(path: Path) -> Any:
    """The whole file. Raises `RebusError` naming file, line and column when it is no JSON."""
    content = JsonFile.open(path).scan({})
    return content[""] if content.keys() == {""} else content


def _valid(text: memoryview) -> memoryview:
    """The text, where it is JSON but for NaN and infinities, which Python writes: in their place stand empty lists, of
    the same length, so that an element with one is read and found wanting by itself."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        text = memoryview(_NOT_FINITE.sub(lambda found: b"[" + b" " * (len(found[0]) - 2) + b"]", text))
        msgspec.json.decode(text, type=msgspec.Raw)
    return text


def _visit(raw: msgspec.Raw, origin: int, fields: Sequence[str], visit: Visit) -> None:
    wanted: Any = TypedDict("wanted", dict.fromkeys(fields, Any), total=False)  # type: ignore[misc]
    decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(wanted)
    for element in msgspec.json.decode(raw, type=list[msgspec.Raw]):
        start = _address(element) - origin
        try:
            found = decoder.decode(element)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = {}
        visit(found, start, start + len(memoryview(element)))


def _address(buffer: Any) -> int:
    """Where its first byte is in memory: msgspec's raw values are views of what they were read from."""
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])


def _explained(message: str, content: mmap.mmap, start: int) -> str:
    """`:line:column: damaged JSON: …`, as far as the parser says at which byte, counted from `start`."""
    placed = _AT_BYTE.fullmatch(message)
    if placed is None and "truncated" not in message:
        return f": damaged JSON: {message.splitlines()[0]}"
    said, at = (placed[1], start + int(placed[2])) if placed else ("ends too early", len(content))
    if said == "trailing characters":
        at -= 1  # the parser has read the first of them
    before = content[:at].split(b"\n")
    return f":{len(before)}:{len(before[-1]) + 1}: damaged JSON: {said}"
