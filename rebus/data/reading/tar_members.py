"""Where the members of a tar lie, read from its headers alone, in time and memory that its size bounds.

Reads ustar, the long names of GNU and pax, and pax sizes. The tar module of Python would do, were it not for headers
made to hurt: its time for one pax header grows with the square of its length, and chained ones exhaust the stack.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html, "ustar Interchange Format"
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

BLOCK = 512
MAX_HEADER = 1 << 20  # bytes of a long name or of pax records
_FILES = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes: their sizes count for nothing


class Member(NamedTuple):
    """`plain`: a file whose bytes lie there as they are, neither sparse nor a link."""

    name: str
    start: int  # bytes
    size: int  # bytes; may lead past the end of a tar that is cut
    plain: bool


class TarDamage(Exception):
    """Where a tar cannot be read any further. `name`: of the member whose header is at fault, where it has one."""

    def __init__(self, reason: str, name: str = ""):
        super().__init__(reason)
        self.name = name


def members(path: Path) -> Iterator[Member]:
    """Every member, in order. Raises `TarDamage`, after those that come before the damage, and `OSError`."""
    with path.open("rb") as tar:
        whole = os.fstat(tar.fileno()).st_size
        if not whole:
            raise TarDamage("not a tar (empty file)")
        yield from _members(tar, whole)


def _members(tar: IO[bytes], whole: int) -> Iterator[Member]:
    at = 0
    everywhere: dict[str, str] = {}  # pax records that hold until others come
    own: dict[str, str] = {}  # those of the next member
    while header := _header(tar, at, whole):
        kind, size = header[156:157], _number(header[124:136])
        start = at + BLOCK
        if kind in (b"x", b"X", b"g", b"L", b"K"):
            data = _extension(tar, size, at, whole)
            if kind == b"L":
                own["path"] = _text(data)
            elif kind != b"K":  # the target of a link
                (everywhere if kind == b"g" else own).update(_pax(data, at, whole))
            at = start + _rounded(size)
            continue
        said = everywhere | own
        own = {}
        name = said.get("path") or _name(header)
        if "size" in said:
            size = _decimal(said["size"])
        if not 0 <= size < 1 << 62:
            raise TarDamage(f"damaged at byte {at:,} of {whole:,} (an impossible size)", name)
        sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in said)
        if kind == b"S":
            start = _after_sparse_map(tar, header, start)
        folder = kind in (b"0", b"\0") and name.endswith("/")  # before 1988 they were told so
        yield Member(name, start, size, kind in _FILES and not sparse and not folder)
        at = start + (0 if kind in _WITHOUT_DATA else _rounded(size))


def _header(tar: IO[bytes], at: int, whole: int) -> bytes | None:
    """The block at `at`; None for the block of zeros at the end."""
    tar.seek(min(at, whole))
    block = tar.read(BLOCK)
    if block == bytes(BLOCK):
        return None
    if len(block) < BLOCK:
        raise TarDamage(f"no end mark: perhaps truncated, at byte {at:,} of {whole:,}")
    rest = block[:148] + b" " * 8 + block[156:]
    plain = sum(rest)
    said = block[148:156].strip(b" \0")
    signed = plain - 256 * sum(byte > 127 for byte in rest)  # as some old programs summed
    if not said.isdigit() or not set(said) <= set(b"01234567") or int(said, 8) not in (plain, signed):
        raise TarDamage(f"no header there, at byte {at:,} of {whole:,}" if at else "no tar (no header at its start)")
    return block


def _number(field: bytes) -> int:
    """Octal digits, or base 256 where they do not suffice; -1 for anything else."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else int.from_bytes(field[1:], "big")
    digits = field.replace(b"\0", b" ").strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        return -1


def _decimal(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def _extension(tar: IO[bytes], size: int, at: int, whole: int) -> bytes:
    """What a header says about the next one. The file is at its end."""
    if not 0 <= size <= MAX_HEADER:
        raise TarDamage(f"damaged at byte {at:,} of {whole:,} (a header of {size:,} bytes)")
    data = tar.read(size)
    if len(data) < size:
        raise TarDamage(f"truncated at byte {whole:,}, within a header")
    return data


def _pax(data: bytes, at: int, whole: int) -> dict[str, str]:
    """Records "24 path=some/other.name\\n", whose first number is their length."""
    records, place = {}, 0
    while place < len(data) and data[place]:
        space = data.find(b" ", place, place + 20)
        length = int(data[place:space]) if space > place and data[place:space].isdigit() else 0
        record = data[space + 1 : place + length]
        if not length or place + length > len(data) or not record.endswith(b"\n"):
            raise TarDamage(f"damaged at byte {at:,} of {whole:,} (impossible pax records)")
        key, _, value = record[:-1].partition(b"=")
        if key in (b"path", b"size") or key.startswith(b"GNU.sparse."):
            records[_text(key)] = _text(value)
        place += length
    return records


def _after_sparse_map(tar: IO[bytes], header: bytes, start: int) -> int:
    """GNU's old sparse files go on with blocks of places while a mark says so."""
    more = header[482]
    tar.seek(start)
    while more and len(block := tar.read(BLOCK)) == BLOCK:
        start += BLOCK
        more = block[504]
    return start


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
