"""What a tokenizer file may cost: its size, its longest piece, how much its rules make a text grow, and character maps
that lead nowhere. Checked before the library reads the file, which would take the memory, or panic.
"""

import base64
import binascii
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rebus.core.errors import BadCheckpoint
from rebus.core.limits import check

MAX_PIECE = 1_000  # characters; the longest of released vocabularies has 128 to 512
MAX_GROWTH = 256  # characters that come of one; NFKC makes 18 of one Arabic ligature
MAX_ADDED = 1_000  # characters put before a text
MAX_MERGES_BYTES = 16_000_000  # of unpacked merges; CLIP's have 3 MB


def read_file(path: Path) -> bytes:
    """A tokenizer file. Raises `LimitExceeded`, before it is read."""
    check("MAX_TOKENIZER_BYTES", path.stat().st_size, f"{path}: bytes")
    return path.read_bytes()


def inflated(data: bytes) -> bytes:
    """A gzip file that holds merges. Raises `zlib.error`, `EOFError`, `BadCheckpoint`."""
    stream = zlib.decompressobj(wbits=31)
    plain = stream.decompress(data, MAX_MERGES_BYTES + 1)
    if len(plain) > MAX_MERGES_BYTES:
        raise BadCheckpoint(f"it unpacks to more than {MAX_MERGES_BYTES:,} bytes")
    if not stream.eof:
        raise EOFError("it ends early")
    return plain


def check_pieces(pieces: Iterable[str]) -> None:
    """Raise `BadCheckpoint` for a piece so long that to cut it in two everywhere would take minutes."""
    longest = max(map(len, pieces), default=0)
    if longest > MAX_PIECE:
        raise BadCheckpoint(f"a piece of {longest:,} characters; at most {MAX_PIECE:,} are read")


def check_growth(steps: Any, what: str) -> None:
    """Raise `BadCheckpoint` where a normaliser or decoder makes texts grow too much, or would panic over its map."""
    factor, added = _growth(steps)
    if factor > MAX_GROWTH or added > MAX_ADDED:
        said = f"{factor:,.0f} characters of one" if factor > MAX_GROWTH else f"{added:,} characters before a text"
        most = MAX_GROWTH if factor > MAX_GROWTH else MAX_ADDED
        raise BadCheckpoint(f"its {what} makes {said}; at most {most:,} are allowed")


def _growth(step: Any) -> tuple[float, int]:
    """(characters that come of one at most, characters put in front) of a step and those in it. Unicode's own forms
    count as one: it bounds them."""
    if not isinstance(step, Mapping):
        return 1.0, 0
    kind = step.get("type")
    if kind == "Sequence":
        inner = [_growth(part) for part in step.get("normalizers") or step.get("decoders") or ()]
        return math.prod(factor for factor, _ in inner), sum(added for _, added in inner)
    if kind == "Replace":
        content, pattern = str(step.get("content", "")), step.get("pattern") or {}
        found = pattern.get("String") if isinstance(pattern, Mapping) else None
        # A regular expression may match nothing, everywhere.
        return max(1.0, len(content) / len(found) if found else len(content) + 1), 0
    if kind == "Prepend":
        return 1.0, len(str(step.get("prepend", "")))
    if kind == "ByteLevel":
        return 4.0, 0
    if kind == "Precompiled":
        return float(_longest_replacement(str(step.get("precompiled_charsmap", "")))), 0
    return 1.0, 0


def _longest_replacement(encoded: str) -> int:
    try:
        return check_character_map(base64.b64decode(encoded))
    except binascii.Error as error:
        raise BadCheckpoint(f"its character map is no base64 ({error})") from None


def check_character_map(data: bytes) -> int:
    """Characters of the longest replacement in sentencepiece's `precompiled_charsmap`: bytes of the trie (uint32), the
    trie, replacements that end with NUL. Raises `BadCheckpoint` where a place in it lies outside.

    The trie is a double array (Aoe 1989, as darts-clone stores it): each unit says where its children lie, which differ
    from there by one byte.
    """
    size = int.from_bytes(data[:4], "little")
    texts = data[4 + size :]
    if len(data) < 8 or size < 4 or size % 4 or 4 + size > len(data):
        raise BadCheckpoint("its character map ends early")
    try:
        longest = max(map(len, texts.decode().split("\0")))
    except UnicodeDecodeError:
        raise BadCheckpoint("its character map is not UTF-8") from None
    units = np.frombuffer(data, dtype="<u4", count=size // 4, offset=4).astype(np.int64)
    nodes = np.flatnonzero(units < 1 << 31)  # the others are values
    children = nodes ^ (units[nodes] >> 10 << ((units[nodes] & 1 << 9) >> 6))
    leaves = children[(units[nodes] & 1 << 8) > 0]
    if not len(nodes) or nodes[0] != 0 or int((children | 0xFF).max()) >= len(units):
        raise BadCheckpoint("its character map leads outside itself")
    starts = units[leaves] & (1 << 31) - 1
    if len(starts) and int(starts.max()) > len(texts):
        raise BadCheckpoint("its character map leads outside its texts")
    padded = np.frombuffer(texts + b"\0", dtype=np.uint8)
    if bool((padded[starts] & 0xC0 == 0x80).any()):
        raise BadCheckpoint("its character map leads into the middle of a character")
    return longest
