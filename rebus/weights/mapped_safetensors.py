"""Weight files as mapped memory: safetensors, read without trusting their header."""

import json
import mmap
import os
import stat
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rebus.core.errors import BadCheckpoint, MissingFile
from rebus.weights.lazy_tensor import LazyTensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_HEADER = 100_000_000  # bytes, the limit of the format itself


class MappedFile:
    """A file in the address space of the process: pages come when touched and go when released.

    The mapping is private, so writing to a tensor never reaches the file. Tensors made from it keep it open. Do not
    let another program rewrite such a file in place while its tensors are in use; replacing it by a rename is safe.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            mode = path.stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # to open a pipe would wait for its writer
                raise BadCheckpoint(f"{path}: a device or a pipe, not a file of weights")
            with path.open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if self.size == 0:
                    raise BadCheckpoint(f"{path}: empty file")
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError:
            raise MissingFile(f"no weights at {path}") from None
        except IsADirectoryError:
            raise MissingFile(f"{path} is a folder, not a file of weights") from None
        except PermissionError:
            raise MissingFile(f"{path} cannot be read: permission denied") from None
        except OSError as error:  # a loop of links, a name that is too long, a device that fails
            raise MissingFile(f"{path} cannot be read: {error.strerror or error}") from None

    def tensor(self, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> LazyTensor:
        """The values at byte `start`, in C order. Loading gives a view of the file where its alignment allows."""
        row = prod(shape[1:]) * dtype.itemsize

        def rows(first: int, last: int) -> Tensor:
            count, at = (last - first) * prod(shape[1:]), start + first * row
            if count == 0:
                return torch.empty((last - first, *shape[1:]), dtype=dtype)
            if at % dtype.itemsize:
                raw = torch.frombuffer(self.map, dtype=torch.uint8, count=count * dtype.itemsize, offset=at)
                return raw.clone().view(dtype).view(last - first, *shape[1:])
            return torch.frombuffer(self.map, dtype=dtype, count=count, offset=at).view(last - first, *shape[1:])

        def release() -> None:
            if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
                first = start - start % mmap.PAGESIZE
                self.map.madvise(mmap.MADV_DONTNEED, first, start + prod(shape) * dtype.itemsize - first)

        if not shape:
            whole = self.tensor(start, (1,), dtype)
            return LazyTensor((), dtype, lambda: whole.load().view(()), (str(self.path), start))
        return LazyTensor(shape, dtype, lambda: rows(0, shape[0]), (str(self.path), start, shape), rows, release)


def open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of one safetensors file, none read yet. Raises `BadCheckpoint` for a file that is not whole."""
    file = MappedFile(path)
    if file.size < 8:
        raise BadCheckpoint(f"{path}: truncated, {file.size} bytes are no safetensors file")
    length = int.from_bytes(file.map[:8], "little")
    if length > min(MAX_HEADER, file.size - 8):
        raise BadCheckpoint(
            f"{path}: bad header length {length:,} in a file of {file.size:,} bytes; truncated, or not safetensors"
        )
    try:
        header = json.loads(file.map[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path}: the header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise BadCheckpoint(f"{path}: the header must be an object; got {type(header).__name__}")
    header.pop("__metadata__", None)
    tensors, spans = {}, []
    for name, entry in header.items():
        dtype, shape, first, last = _entry(path, name, entry)
        if last > file.size - 8 - length:
            raise BadCheckpoint(
                f'{path}: truncated; weight "{name}" ends at byte {8 + length + last:,} of {file.size:,}. '
                "Download or copy the file again."
            )
        spans.append((first, last, name))
        tensors[name] = file.tensor(8 + length + first, shape, dtype)
    end, before = 0, ""
    for first, last, name in sorted(spans):
        if first < end:
            raise BadCheckpoint(f'{path}: weights "{before}" and "{name}" overlap')
        if first > end:
            raise BadCheckpoint(f'{path}: {first - end:,} bytes before weight "{name}" belong to no weight')
        end, before = last, name
    if end != file.size - 8 - length:
        raise BadCheckpoint(f"{path}: {file.size - 8 - length - end:,} bytes at the end belong to no weight")
    return tensors


def _entry(path: Path, name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """One line of the header, checked."""
    try:
        kind, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise BadCheckpoint(f'{path}: weight "{name}" lacks dtype, shape or data_offsets') from None
    if not isinstance(kind, str) or kind not in DTYPES:
        raise BadCheckpoint(f'{path}: weight "{name}" has type {kind!r}; known are {", ".join(DTYPES)}')
    if not all(type(n) is int and n >= 0 for n in (*shape, first, last)):
        raise BadCheckpoint(f'{path}: weight "{name}" has an impossible shape or offset')
    wanted = prod(shape) * DTYPES[kind].itemsize
    if last - first != wanted:
        raise BadCheckpoint(
            f'{path}: weight "{name}" of shape {list(shape)} and type {kind} expects {wanted:,} bytes; '
            f"its offsets hold {last - first:,}"
        )
    return DTYPES[kind], shape, first, last
