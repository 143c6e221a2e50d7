"""big_vision's `.npz` files: arrays of JAX, read lazily and turned into the layout of PyTorch.

`open_npz` gives the arrays as they stand; `big_vision` renames and turns them, so that a `KeyMap` can finish the work:

- a leading `params/` is gone, and with it everything beside it (optimiser state);
- layers stood stacked in one array or apart; here each has its number: `…/encoderblock_{i}/…`, `llm/layers_{i}/…`;
- `kernel`, `scale` and `embedding` are called `weight`; a Dense kernel (in, out) is turned to (out, in), a convolution
  from (height, width, in, out) to (out, in, height, width);
- attention kernels (width, heads, head width) are flattened: `query`, `key`, `value` and `out` have (out, in) weights;
- `pos_embedding` is (positions, width); `probe` stays (1, 1, width); `t` and `b` stay (1,);
- Gemma: `attn/q_einsum/w` → `attn/query/weight`, `attn/kv_einsum/w` → `attn/key/weight` and `attn/value/weight`,
  `attn/attn_vec_einsum/w` → `attn/out/weight`, `mlp/gating_einsum` → `mlp/gate/weight` and `mlp/up/weight`,
  `mlp/linear` → `mlp/down/weight`, `…_norm/scale` → `…_norm/weight`; `embedder/input_embedding` keeps its name.
"""

import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
import torch
from torch import Tensor

from rebus.core.errors import BadCheckpoint
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.mapped_safetensors import MappedFile

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


def open_npz(path: Path) -> dict[str, LazyTensor]:
    """The arrays of an `.npz` file by name, none read yet; bfloat16, which NumPy stores as raw pairs of bytes, too.

    Raises `BadCheckpoint` for a damaged file and for arrays of Python objects, which are pickles and are not read.
    """
    file = MappedFile(path)

    @lru_cache(maxsize=1)  # the layers of one array are asked for one after another
    def unpack(name: str) -> np.ndarray:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return np.ascontiguousarray(arrays[name])
        except Exception as error:  # damaged behind its header
            raise BadCheckpoint(f"{path}: array {name!r} cannot be read ({str(error)[:200]!r})") from None

    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            return {m.filename.removesuffix(".npy"): _array(file, archive, m, unpack) for m in members}
    except BadCheckpoint:
        raise
    except Exception as error:  # encrypted, of an unknown method or version, misnamed: zipfile raises what it meets
        raise BadCheckpoint(f"{path}: not a whole .npz file ({str(error)[:200]!r})") from None


def _array(
    file: MappedFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo, unpack: Callable[[str], np.ndarray]
) -> LazyTensor:
    """One array: mapped where the archive stores it plainly, as `np.savez` does, else unpacked when asked for."""
    name = repr(member.filename[:200].removesuffix(".npy"))[1:-1]
    where = f'{file.path}: array "{name}"'
    with archive.open(member) as stream:
        shape, in_rows, kind = _header(stream, where)
        length = stream.tell()
    dtype = torch.bfloat16 if kind.kind == "V" and kind.itemsize == 2 else DTYPES.get(kind.name)
    if dtype is None:
        what = "Python objects, which are never unpickled" if kind.hasobject else f"type {kind}"
        raise BadCheckpoint(f"{where} holds {what}")
    if member.compress_type == zipfile.ZIP_STORED and in_rows and kind.isnative:
        names, extra = struct.unpack("<HH", file.map[member.header_offset + 26 : member.header_offset + 30])
        start = member.header_offset + 30 + names + extra + length
        lazy = file.tensor(start, shape, dtype)
        if start + lazy.nbytes > file.size:
            raise BadCheckpoint(f"{where} is cut off by the end of the file")
        return _copied(lazy)

    def load() -> Tensor:
        values = unpack(member.filename.removesuffix(".npy"))
        if dtype == torch.bfloat16:
            return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16).view(shape)
        return torch.from_numpy(values.astype(kind.newbyteorder("="), copy=False)).view(shape)

    return LazyTensor(shape, dtype, load)


def _copied(mapped: LazyTensor) -> LazyTensor:
    """Values of their own: NumPy rewrites an archive in place, which would change what was loaded from it before."""

    def load() -> Tensor:
        values = mapped.load().clone()
        mapped.release()
        return values

    def rows(first: int, last: int) -> Tensor:
        values = mapped.rows(first, last).clone() if mapped.rows else mapped.load()[first:last].clone()
        mapped.release()
        return values

    return LazyTensor(mapped.shape, mapped.dtype, load, mapped.tie, rows if mapped.rows else None)


def _header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in C order, and type; the stream is left where the values begin."""
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, kind = read(stream)
    except (ValueError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise BadCheckpoint(f"{where} has a damaged header ({str(error)[:200]!r})") from None
    if not all(type(n) is int and n >= 0 for n in shape) or prod(shape) * kind.itemsize >= 2**62:
        raise BadCheckpoint(f"{where} has an impossible shape")
    return shape, not in_columns or len(shape) < 2, kind


_LAYER = re.compile(r"(^|/)(encoderblock|llm/layers)/")
_ATTENTION = re.compile(r"MultiHeadDotProductAttention_0/(query|key|value|out)/(kernel|bias)$")


def big_vision(arrays: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The arrays of a big_vision checkpoint under the names, and in the layout, that this module's head describes.

    Raises `BadCheckpoint` naming an array whose shape does not fit its name.
    """
    inside = {n.removeprefix("params/"): t for n, t in arrays.items() if n.startswith("params/")}
    found: dict[str, LazyTensor] = {}
    for name, tensor in (inside or arrays).items():
        for single, layer in _layers(name, tensor):
            found.update(_turned(single, layer))
    return found


def _layers(name: str, tensor: LazyTensor) -> Iterator[tuple[str, LazyTensor]]:
    """One entry per layer for arrays that hold all layers on axis 0."""
    stack = _LAYER.search(name)
    if stack is None:
        yield name, tensor
        return
    if not tensor.shape:
        raise BadCheckpoint(f'array "{name}" expects the layers on its first axis; got a single number')
    for i in range(tensor.shape[0]):
        yield f"{name[: stack.end() - 1]}_{i}/{name[stack.end() :]}", tensor.at(i)


def _turned(name: str, tensor: LazyTensor) -> dict[str, LazyTensor]:
    """One array in PyTorch's layout, or the several that Gemma keeps in one."""
    head, _, leaf = name.rpartition("/")
    if name.startswith("llm/") and (leaf == "w" or head.endswith("/mlp")):
        return _gemma(name, tensor)
    if attention := _ATTENTION.search(name):
        return {f"{head}/{leaf.replace('kernel', 'weight')}": _attention(name, tensor, attention[1], leaf)}
    if leaf == "kernel":
        if len(tensor.shape) == 4:
            return {f"{head}/weight": tensor.moved(3, 2, 0, 1)}
        return {f"{head}/weight": _ranked(name, tensor, 2).turned()}
    if leaf == "pos_embedding":
        return {name: tensor.reshaped(prod(tensor.shape[:-1]), *tensor.shape[-1:])}
    if leaf in ("scale", "embedding"):
        return {f"{head}/weight": tensor}
    return {name: tensor}


def _attention(name: str, tensor: LazyTensor, which: str, leaf: str) -> LazyTensor:
    if which == "out":
        if leaf == "bias":
            return tensor
        heads, head_width, width = _ranked(name, tensor, 3).shape
        return tensor.reshaped(heads * head_width, width).turned()
    if leaf == "bias":
        heads, head_width = _ranked(name, tensor, 2).shape
        return tensor.reshaped(heads * head_width)
    width, heads, head_width = _ranked(name, tensor, 3).shape
    return tensor.reshaped(width, heads * head_width).turned()


def _gemma(name: str, tensor: LazyTensor) -> dict[str, LazyTensor]:
    """The einsum weights of one layer of Gemma, (heads, width, head width) and the like, as (out, in) matrices."""
    layer, block, which = name.removesuffix("/w").rsplit("/", 2)

    def heads_first(one: LazyTensor) -> LazyTensor:
        heads, width, head_width = _ranked(name, one, 3).shape
        return one.moved(0, 2, 1).reshaped(heads * head_width, width)

    if which == "q_einsum":
        return {f"{layer}/{block}/query/weight": heads_first(tensor)}
    if which in ("kv_einsum", "qkv_einsum"):
        words = ("key", "value") if which == "kv_einsum" else ("query", "key", "value")
        if _ranked(name, tensor, 4).shape[0] != len(words):
            raise BadCheckpoint(f'array "{name}" must have {len(words)} on its first axis; got {list(tensor.shape)}')
        return {f"{layer}/{block}/{word}/weight": heads_first(tensor.at(i)) for i, word in enumerate(words)}
    if which == "attn_vec_einsum":
        heads, head_width, width = _ranked(name, tensor, 3).shape
        return {f"{layer}/{block}/out/weight": tensor.reshaped(heads * head_width, width).turned()}
    if which == "gating_einsum":
        if _ranked(name, tensor, 3).shape[0] != 2:
            raise BadCheckpoint(f'array "{name}" expects gate and up on its first axis; got {list(tensor.shape)}')
        return {f"{layer}/{block}/{word}/weight": tensor.at(i).turned() for i, word in enumerate(("gate", "up"))}
    if which == "linear":
        return {f"{layer}/{block}/down/weight": _ranked(name, tensor, 2).turned()}
    return {name: tensor}


def _ranked(name: str, tensor: LazyTensor, rank: int) -> LazyTensor:
    if len(tensor.shape) != rank:
        raise BadCheckpoint(f'array "{name}" must have {rank} dimensions; got {list(tensor.shape)}')
    return tensor
