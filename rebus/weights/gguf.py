"""GGUF, the container of llama.cpp: metadata and tensors in one file, most tensors quantised in small blocks.

The header is read here, since the `gguf` package takes seconds for what takes a tenth of one and trusts its lengths;
the package knows the block formats and gives their values (the extra `gguf`).
"""

import struct
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rebus.core import extras
from rebus.core.errors import BadCheckpoint
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.mapped_safetensors import MappedFile

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = "BbHhIif?"  # by type number: unsigned and signed integers of 1, 2, 4 bytes, float32, bool
_STRING, _ARRAY = 8, 9
_LONG = {10: "Q", 11: "q", 12: "d"}
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_MAX_DIMENSIONS = 4


class GGUF(NamedTuple):
    """`metadata`: numbers, strings, bools and lists of them. `tensors`: by their names in the file, none read yet;
    quantised ones are float32 when they are."""

    metadata: dict[str, Any]
    tensors: dict[str, LazyTensor]


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path names: itself, or the only one of a directory without a `config.json`."""
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.is_dir() and not (path / "config.json").exists():
        found = list(path.glob("*.gguf"))
        return found[0] if len(found) == 1 else None
    return None


def open_gguf(path: Path) -> GGUF:
    """Metadata and tensors of one file. Raises `BadCheckpoint` for a damaged one, `MissingExtra`."""
    extras.demand("gguf", f"{path.name}, a GGUF file,")
    reader = _Reader(MappedFile(path))
    if reader.bytes(4) != _MAGIC:
        raise reader.damaged("it does not begin with GGUF")
    version = reader.number("I")
    if version not in _VERSIONS:
        raise BadCheckpoint(f"{path}: version {version} of GGUF; {' and '.join(map(str, _VERSIONS))} can be read")
    num_tensors, num_fields = reader.count(24), reader.count(12)
    metadata: dict[str, Any] = {}
    for _ in range(num_fields):
        name = reader.string()
        if name in metadata:
            raise reader.damaged(f"two fields {name!r}")
        metadata[name] = reader.value(reader.number("I"))
    if metadata.get("split.count", 1) not in (0, 1):
        raise BadCheckpoint(f"{path}: one of {metadata['split.count']} parts; join them with llama-gguf-split --merge")
    entries = [reader.entry() for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise reader.damaged(f"general.alignment must be a power of two; got {alignment!r}")
    first = reader.at + -reader.at % alignment
    tensors: dict[str, LazyTensor] = {}
    for name, shape, kind, offset in entries:
        if name in tensors:
            raise reader.damaged(f"two weights {name!r}")
        tensors[name] = _tensor(reader, name, shape, kind, first + offset)
    return GGUF(metadata, tensors)


def _tensor(reader: "_Reader", name: str, shape: tuple[int, ...], kind: int, start: int) -> LazyTensor:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    file = reader.file
    known = {int(one): one for one in GGMLQuantizationType}
    if kind not in known:
        raise reader.damaged(f"weight {name!r} has the unknown type {kind}")
    quantised = known[kind]
    per_block, block_bytes = GGML_QUANT_SIZES[quantised]
    if shape[-1] % per_block:
        raise reader.damaged(f"weight {name!r} has rows of {shape[-1]:,}, which are no blocks of {per_block}")
    num_rows, row_bytes = prod(shape[:-1]), shape[-1] // per_block * block_bytes
    if start + num_rows * row_bytes > file.size:
        raise BadCheckpoint(
            f"{file.path}: truncated; weight {name!r} ends at byte {start + num_rows * row_bytes:,} of {file.size:,}. "
            "Download or copy the file again."
        )
    if quantised.name in _PLAIN:
        return file.tensor(start, shape, _PLAIN[quantised.name])
    raw = file.tensor(start, (num_rows, row_bytes), torch.uint8)

    def values(blocks: Tensor) -> Tensor:
        try:
            return torch.from_numpy(dequantize(blocks.numpy(), quantised))
        except (NotImplementedError, KeyError):
            raise BadCheckpoint(
                f"{file.path}: weight {name!r} has type {quantised.name}, which is not supported"
            ) from None

    def rows(first: int, last: int) -> Tensor:
        each = num_rows // shape[0] if len(shape) > 1 else 1
        assert raw.rows is not None
        return values(raw.rows(first * each, last * each)).reshape(last - first, *shape[1:])

    whole = len(shape) > 1
    return LazyTensor(
        shape,
        torch.float32,
        lambda: values(raw.load()).reshape(shape),
        (str(file.path), start, shape),
        rows if whole else None,
        raw.release,
    )


class _Reader:
    """A place in the header, which moves on with what is read and never beyond the end of the file."""

    def __init__(self, file: MappedFile):
        self.file, self.at = file, 0

    def damaged(self, how: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.file.path}: damaged GGUF file: {how}")

    def bytes(self, length: int) -> bytes:
        self._has(length)
        found: bytes = self.file.map[self.at : self.at + length]
        self.at += length
        return found

    def number(self, kind: str) -> Any:
        size = struct.calcsize("<" + kind)
        return struct.unpack("<" + kind, self.bytes(size))[0]

    def count(self, least: int) -> int:
        """How many entries follow, of at least so many bytes each."""
        found: int = self.number("Q")
        self._has(found * least)
        return found

    def string(self) -> str:
        raw = self.bytes(self.count(1))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.damaged(f"a string before byte {self.at:,} is not UTF-8") from None

    def value(self, kind: int) -> Any:
        """One value of metadata."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(self.number("I"))
        return self.number(self._format(kind))

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """One line of the table of tensors: name, shape with the rows first, type, offset."""
        name, num_dimensions = self.string(), self.number("I")
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise self.damaged(f"weight {name[:200]!r} has {num_dimensions:,} dimensions")
        shape = tuple(self.number("Q") for _ in range(num_dimensions))[::-1]
        if 0 in shape:
            raise self.damaged(f"weight {name[:200]!r} has shape {list(shape)}")
        return name, shape, self.number("I"), self.number("Q")

    def _array(self, kind: int) -> list[Any]:
        if kind == _STRING:
            return [self.string() for _ in range(self.count(8))]
        if kind == _ARRAY:
            raise self.damaged(f"an array of arrays at byte {self.at:,}")
        item = np.dtype(self._format(kind)).newbyteorder("<")
        raw = self.bytes(self.count(item.itemsize) * item.itemsize)
        values: list[Any] = np.frombuffer(raw, item).tolist()
        return values

    def _format(self, kind: int) -> str:
        if kind < len(_SCALARS):
            return _SCALARS[kind]
        if kind not in _LONG:
            raise self.damaged(f"a field of the unknown type {kind} at byte {self.at:,}")
        return _LONG[kind]

    def _has(self, length: int) -> None:
        if length > self.file.size - self.at:
            raise BadCheckpoint(
                f"{self.file.path}: truncated or damaged GGUF file: {length:,} bytes are wanted at byte {self.at:,} of "
                f"{self.file.size:,}"
            )
