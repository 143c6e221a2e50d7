"""Gzip files: their bytes in pieces as far as they are whole, and a plain copy of the few that are being read."""

import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

from rebus.core.atomic_write import write_file_atomically
from rebus.core.errors import CannotWrite
from rebus.data.reading.disk_cache import place, stamp

KEEP_BYTES = 8 << 30  # of all plain copies together, and of each
_PIECE = 64 << 10  # of compressed bytes: what is lost before a damaged place
_MOST = 4 << 20  # of plain bytes at a time


class Inflated:
    """`pieces()` gives the plain bytes; `fault` then says why they end early, "" if they do not."""

    def __init__(self, path: Path):
        self.path, self.fault = path, ""

    def pieces(self) -> Iterator[bytes]:
        total = 0
        try:
            for piece in self._inflate():
                total += len(piece)
                if total > KEEP_BYTES:
                    self.fault = f"holds more than {KEEP_BYTES:,} bytes; the rest is not read"
                    return
                yield piece
        except zlib.error as error:
            self.fault = f"damaged ({error})"

    def _inflate(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            data = file.read(_PIECE)
            while data:
                member = zlib.decompressobj(wbits=31)
                while data and not member.eof:
                    if piece := member.decompress(data, _MOST):
                        yield piece
                    data = member.unconsumed_tail or (b"" if member.eof else file.read(_PIECE))
                if not member.eof:
                    self.fault = "cut before its end"
                    return
                data = (member.unused_data or file.read(_PIECE)).lstrip(b"\0")  # padding of zeros may follow


_WRITING = threading.Lock()  # or every thread would write the copy that all of them want


def plain_copy(path: Path) -> Path:
    """The file of the cache that holds the plain bytes of `path`, written now if it is not there.

    Copies that were not used for longest are removed when all together pass `KEEP_BYTES`. Raises `CannotWrite`.
    """
    size, changed = stamp(path)
    target = place("plain", [path], f".{size}-{changed}")
    with _WRITING:
        if target.exists():
            os.utime(target)
        else:
            _write_copy(path, target, size)
    return target


def _write_copy(path: Path, target: Path, size: int) -> None:
    written = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with write_file_atomically(target) as file:
            for piece in Inflated(path).pieces():
                written += file.write(piece)
            _make_room(target.parent, written)
    except (OSError, CannotWrite) as error:
        raise CannotWrite(
            f"no uncompressed copy of {path.name} can be stored: {error}. Set REBUS_HOME to a folder with "
            f"{max(2 * written, 10 * size):,} bytes of room, or unpack the files yourself"
        ) from None


def _make_room(folder: Path, wanted: int) -> None:
    files = []
    for file in folder.iterdir():
        try:
            status = file.stat()
        except OSError:  # another process removed it
            continue
        if not file.name.startswith("."):
            files.append((status.st_mtime, status.st_size, file))
    total = wanted + sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total <= KEEP_BYTES:
            break
        try:
            file.unlink(missing_ok=True)
        except OSError:  # open in another process, where systems mind that
            continue
        total -= size
