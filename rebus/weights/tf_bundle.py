"""Checkpoints of TensorFlow 1, read without TensorFlow: an `.index` of names, and `.data-…-of-…` shards of values.

The index is a sorted table as LevelDB writes them: blocks of entries whose keys leave out what they share with the key
before, each block with a checksum, and at the end of the file where the block of blocks lies. Its values are protocol
buffers: type, shape, shard, offset, size and checksum of a tensor. `model.ckpt-180000.index` names the checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from rebus.core.errors import BadCheckpoint, MissingFile
from rebus.weights.crc32c import crc32c, masked
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.mapped_safetensors import MappedFile

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes: two places, padding, the magic number
_DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}
_STRING = 7
_MAX_SHARDS = 99_999  # five digits


def open_bundle(index: Path) -> dict[str, LazyTensor]:
    """The tensors of a checkpoint by their names, none read yet; each is held to its checksum when it is. Strings,
    which are no weights, are left out.

    Raises `BadCheckpoint` for a damaged file or one of another machine's byte order, `MissingFile` for a lacking shard.
    """
    table = _Table(MappedFile(index))
    entries = dict(table.entries())
    header = _fields(entries.pop(b"", b""), table)
    if header.number(2):
        raise BadCheckpoint(f"{index}: written by a big-endian machine, which is not supported")
    num_shards = header.number(1)
    if not 1 <= num_shards <= _MAX_SHARDS:
        raise table.damaged(f"{num_shards:,} shards")
    shards: dict[int, MappedFile] = {}
    tensors: dict[str, LazyTensor] = {}
    for key, value in entries.items():
        name = key.decode(errors="replace")
        entry = _fields(value, table)
        if entry.number(1) == _STRING:
            continue
        if entry.many.get(7):
            raise BadCheckpoint(f'{index}: weight "{name}" is stored in slices, which are not supported')
        shard = entry.number(3)
        if shard >= num_shards:
            raise table.damaged(f'weight "{name}" is in shard {shard} of {num_shards}')
        if shard not in shards:
            shards[shard] = MappedFile(_shard_file(index, shard, num_shards))
        tensors[name] = _tensor(name, entry, shards[shard], table)
    return tensors


def _shard_file(index: Path, shard: int, num_shards: int) -> Path:
    path = index.with_name(f"{index.name.removesuffix('.index')}.data-{shard:05d}-of-{num_shards:05d}")
    if not path.exists():
        raise MissingFile(f"{index.name} names {path.name}, which is not in {index.parent}. Copy it there.")
    return path


def _tensor(name: str, entry: "_Fields", file: MappedFile, table: "_Table") -> LazyTensor:
    kind = _DTYPES.get(entry.number(1))
    if kind is None:
        raise BadCheckpoint(f'{table.file.path}: weight "{name}" has type {entry.number(1)}, which is not read')
    dimensions = _fields(entry.bytes(2), table).many.get(2, [])
    shape = tuple(_fields(one, table).number(1) for one in dimensions if isinstance(one, bytes))
    offset, size = entry.number(4), entry.number(5)
    if size != prod(shape) * kind.itemsize:
        raise table.damaged(f'weight "{name}" of shape {list(shape)} has {size:,} bytes')
    if offset + size > file.size:
        raise BadCheckpoint(
            f'{file.path}: truncated; weight "{name}" ends at byte {offset + size:,} of {file.size:,}. Copy it again.'
        )
    raw, wanted = file.tensor(offset, shape, kind), entry.number(6)

    def load() -> Tensor:
        values = raw.load()
        found = masked(crc32c(values.contiguous().view(-1).view(torch.uint8).numpy())) if size else wanted
        if found != wanted:
            raise BadCheckpoint(f'{file.path}: weight "{name}" is damaged: checksum mismatch. Copy it again.')
        return values

    return LazyTensor(shape, kind, load, raw.tie, None, raw.release)


class _Table:
    """The sorted table of an index file."""

    def __init__(self, file: MappedFile):
        self.file = file
        if file.size < _FOOTER or int.from_bytes(file.map[file.size - 8 : file.size], "little") != _MAGIC:
            raise BadCheckpoint(f"{file.path}: not the index of a TensorFlow checkpoint, or truncated")

    def damaged(self, how: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.file.path}: damaged index: {how}")

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in order."""
        footer = self.file.map[self.file.size - _FOOTER : self.file.size - 8]
        _, at = self._place(footer, 0)
        blocks, _ = self._place(footer, at)
        for _, place in self._block(*blocks):
            yield from self._block(*self._place(place, 0)[0])

    def _place(self, data: bytes, at: int) -> tuple[tuple[int, int], int]:
        """(offset, size) of a block, and where in `data` its place ends."""
        offset, at = self.varint(data, at)
        size, at = self.varint(data, at)
        return (offset, size), at

    def _block(self, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        end = offset + size
        if end + 5 > self.file.size - _FOOTER:
            raise self.damaged(f"a block ends at byte {end:,} of {self.file.size:,}")
        data: bytes = self.file.map[offset:end]
        kind = self.file.map[end]
        if masked(crc32c(self.file.map[offset : end + 1])) != int.from_bytes(
            self.file.map[end + 1 : end + 5], "little"
        ):
            raise self.damaged(f"the checksum of the block at byte {offset:,} is another")
        if kind:
            raise BadCheckpoint(f"{self.file.path}: compressed (kind {kind}), which TensorFlow does not do by default")
        restarts = int.from_bytes(data[-4:], "little")
        last = size - 4 - 4 * restarts
        if last < 0:
            raise self.damaged(f"a block of {size:,} bytes with {restarts:,} restarts")
        at, key = 0, b""
        while at < last:
            shared, at = self.varint(data, at)
            own, at = self.varint(data, at)
            length, at = self.varint(data, at)
            if shared > len(key) or at + own + length > last:
                raise self.damaged(f"an entry goes beyond its block at byte {offset + at:,}")
            key = key[:shared] + data[at : at + own]
            yield key, data[at + own : at + own + length]
            at += own + length

    def varint(self, data: bytes, at: int) -> tuple[int, int]:
        """A number of seven bits a byte, and where it ends."""
        value = 0
        for shift in range(0, 64, 7):
            if at >= len(data):
                break
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self.damaged("a number without an end")


@dataclass(frozen=True)
class _Fields:
    """A protocol buffer by the numbers of its fields."""

    many: dict[int, list[int | bytes]]

    def number(self, field: int) -> int:
        """A field that is a number, 0 where it is left out."""
        value = self.many.get(field, [0])[-1]
        return value if isinstance(value, int) else 0

    def bytes(self, field: int) -> bytes:
        """A field that is text or another buffer, empty where it is left out."""
        value = self.many.get(field, [b""])[-1]
        return value if isinstance(value, bytes) else b""


def _fields(data: bytes, table: _Table) -> _Fields:
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = table.varint(data, at)
        kind, value = tag & 7, b""
        if kind == 0:
            number, at = table.varint(data, at)
            found.setdefault(tag >> 3, []).append(number)
            continue
        if kind == 2:
            length, at = table.varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise table.damaged(f"a field of kind {kind}")
        if at + length > len(data):
            raise table.damaged("a field goes beyond its entry")
        value = data[at : at + length]
        at += length
        found.setdefault(tag >> 3, []).append(value if kind == 2 else int.from_bytes(value, "little"))
    return _Fields(found)
