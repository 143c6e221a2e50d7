"""Checkpoint directories, written atomically.

Everything goes to a new directory beside the target, is flushed to the disk and listed with sizes and hashes in a
manifest; then one rename puts it in place. A process that is killed at any moment leaves the old state or the new.
"""

import ctypes
import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rebus.core.atomic_write import DISK_FULL, flush, flushed_file
from rebus.core.errors import BadCheckpoint, CannotWrite
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json
from rebus.weights.lazy_tensor import LazyTensor, Tensors
from rebus.weights.mapped_safetensors import DTYPES

MANIFEST = "rebus_manifest.json"
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_PIECE = 64 * 2**20  # bytes of a tensor that are hashed and written at a time
# What a released directory consists of; anything else in a directory that is replaced stays in it.
_OURS = ("config.json", "merges.txt", "vocab.json", "vocab.txt", "tokenizer.json", "tokenizer.model", "spiece.model")
_OURS_END = (".safetensors", ".index.json", ".bin", "_config.json", "_tokens.json", "_tokens_map.json", MANIFEST)


def save_directory(
    directory: str | Path,
    config: Mapping[str, Any],
    tensors: Tensors,
    files: Mapping[str, bytes] | None = None,
    *,
    shard_bytes: float = 5e9,
    config_name: str = "config.json",
    weights_name: str = "model",
) -> None:
    """Write a directory in Hub layout: the configuration, the weights, and `files` by name.

    Weights larger than `shard_bytes` are spread over several files with an index, as transformers does. Tensors that
    share their memory are written once. A target that exists is replaced as one step, and files in it that belong to
    no checkpoint stay. Raises `CannotWrite`, leaving the old state intact, with the space that is needed.
    """
    target = Path(os.path.realpath(directory))
    _check_target(target)
    weights = _once(tensors)
    shards = _shards(weights, shard_bytes, weights_name)
    extra = {config_name: _json(config), **(files or {})}
    for name in extra:
        if Path(name).name != name or "\\" in name or name in ("", ".", "..", MANIFEST):
            raise CannotWrite(f'"{name}" cannot be the name of a file in a checkpoint')
    need = sum(t.nbytes for t in weights.values()) + sum(len(data) for data in extra.values()) + 200 * len(weights)
    new = target.parent / f".{target.name}.new-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        new.mkdir()
        if shutil.disk_usage(new).free < need:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = {name: _write(new / name, [data]) for name, data in extra.items()}
        for name, shard in shards.items():
            written[name] = _write(new / name, _safetensors({key: weights[key] for key in shard}))
        if len(shards) > 1:
            name = f"{weights_name}.safetensors.index.json"
            written[name] = _write(new / name, [_index(weights, shards)])
        _write(new / MANIFEST, [_json({"format": 1, "files": written})])
        _place(new, target)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise _explained(error, target, need) from None
    except CannotWrite:  # after the rename: `new` may be what was there before
        raise
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def standing(path: Path) -> Path:
    """Where to read what was saved as `path`: itself, or, after a kill between two renames, what stood there before."""
    if not path.exists():
        for other in sorted(path.parent.glob(f".{glob.escape(path.name)}.old-*")) if path.name else ():
            if (other / MANIFEST).is_file() or (other / "config.json").is_file():
                return other
    return path


def verify(directory: str | Path) -> None:
    """Compare every file with the manifest, byte for byte. Raises `BadCheckpoint` naming the first that differs."""
    folder = standing(Path(directory))
    try:
        listed = json.loads(read_small(folder / MANIFEST))["files"]
        for name, entry in listed.items():
            if (folder / name).stat().st_size != entry["bytes"]:  # of a pipe too, which would be waited for
                raise BadCheckpoint(f"{folder / name}: differs from what was saved. Copy it again.")
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != entry["sha256"]:
                raise BadCheckpoint(f"{folder / name}: differs from what was saved. Copy it again.")
    except OSError as error:
        raise BadCheckpoint(f"{error.filename} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, BadCheckpoint) else BadCheckpoint(f"{folder / MANIFEST}: damaged") from None


def _listed(folder: Path) -> frozenset[str]:
    """The names of the manifest; none where there is no readable one."""
    try:
        manifest = folder / MANIFEST
        return frozenset(json.loads(read_small(manifest))["files"] if manifest.is_file() else ())
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def _once(tensors: Tensors) -> dict[str, LazyTensor]:
    """Each tensor under the first of its names: a reader ties the others again, as it was before."""
    found: dict[str, LazyTensor] = {}
    seen = set()
    for name, value in tensors.items():
        tensor = LazyTensor.of(value)
        if tensor.dtype not in _CODES:
            raise CannotWrite(f'weight "{name}" has type {tensor.dtype}, which safetensors cannot hold')
        if tensor.tie is None or tensor.tie not in seen:
            found[name] = tensor
            seen.add(tensor.tie)
    return found


def _shards(weights: Mapping[str, LazyTensor], shard_bytes: float, stem: str) -> dict[str, list[str]]:
    """Names of files → names of weights, in the given order, each file at most `shard_bytes` where a weight allows."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, tensor in weights.items():
        if groups[-1] and size + tensor.nbytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += tensor.nbytes
    if len(groups) == 1:
        return {f"{stem}.safetensors": groups[0]}
    return {f"{stem}-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, 1)}


def _index(weights: Mapping[str, LazyTensor], shards: Mapping[str, list[str]]) -> bytes:
    total = sum(tensor.nbytes for tensor in weights.values())
    table = {name: shard for shard, names in shards.items() for name in names}
    return _json({"metadata": {"total_size": total}, "weight_map": dict(sorted(table.items()))})


def _json(data: Any) -> bytes:
    return (to_json(data, indent=2, ensure_ascii=False) + "\n").encode()


_PAGE, _LARGE = 4096, 2**24  # bytes


def _safetensors(weights: Mapping[str, LazyTensor]) -> Iterator[bytes | memoryview]:
    """A safetensors file piece by piece: widest types first, so that every tensor is aligned."""
    order = sorted(weights, key=lambda name: (-weights[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor = weights[name]
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = to_json(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Large files are mapped and read in place: rows that keep to a page are read up to a fifth faster.
    text += b" " * (-(len(text) + 8) % (_PAGE if end >= _LARGE else 8))
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield from _bytes(weights[name])


def _bytes(tensor: LazyTensor) -> Iterator[memoryview]:
    flat = tensor.load().detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    for start in range(0, flat.numel(), _PIECE):
        yield memoryview(_numpy(flat[start : start + _PIECE]))
    tensor.release()


def _numpy(tensor: Tensor) -> Any:
    return tensor.numpy()


def _write(path: Path, pieces: Any) -> dict[str, Any]:
    """Write and flush one file. Returns its line of the manifest."""
    digest, size = hashlib.sha256(), 0
    with flushed_file(path) as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _place(new: Path, target: Path) -> None:
    """Rename the finished directory into place, exchanging it with what is there."""
    flush(new)
    if not target.exists():
        os.rename(new, target)
        _settle(target, None)
        return
    _carry_over(target, new)
    flush(new)
    old = new
    if not _exchange(new, target):
        # Two renames where the system cannot exchange: `standing` finds the old state if we are killed in between.
        old = target.parent / new.name.replace(".new-", ".old-")
        os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError:
            os.rename(old, target)
            raise
    _settle(target, old)


def _settle(target: Path, old: Path | None) -> None:
    """After the rename: make it last, and remove what stood there before."""
    try:
        flush(target.parent)
        if old is not None:
            _carry_over(old, target)  # what somebody put there meanwhile
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        left = f"; what was there before is in {old}" if old is not None else ""
        raise CannotWrite(f"{target} is saved, but the disk then failed: {error.strerror}{left}.") from None


def _carry_over(old: Path, new: Path) -> None:
    """Everything in `old` that belongs to no checkpoint appears in `new`, as the same file where the disk allows."""
    listed = _listed(old)
    for entry in sorted(old.iterdir()):
        known = entry.is_file() and (entry.name in listed or entry.name in _OURS or entry.name.endswith(_OURS_END))
        if known or (new / entry.name).exists() or (new / entry.name).is_symlink():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=_link)
        else:
            _link(entry, new / entry.name)


def _link(source: str | Path, destination: str | Path) -> None:
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, destination, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step. False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    here, both_change = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), both_change) == 0)


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise CannotWrite(f"{target} is a file; a checkpoint is a directory. Choose another name.")
    here = Path(os.path.realpath(Path.cwd()))
    if target == here or target in here.parents:
        raise CannotWrite(f"{target} holds the working directory and cannot be replaced. Choose a folder inside it.")


def _sweep(target: Path) -> None:
    """Remove what writers that were killed left beside the target."""
    if not target.name:
        return
    if not target.exists() and (old := standing(target)) != target:
        os.rename(old, target)
    for kind in ("new", "old"):
        for path in target.parent.glob(f".{glob.escape(target.name)}.{kind}-{socket.gethostname()}-*-*"):
            process = path.name.rsplit("-", 2)[1]
            if process.isdigit() and not _alive(int(process)):
                shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _explained(error: OSError, target: Path, need: int) -> CannotWrite:
    if error.errno in DISK_FULL:
        free = shutil.disk_usage(target.parent if target.parent.exists() else target.anchor).free
        return CannotWrite(
            f"{target} not saved: it needs {need / 1e6:,.2f} MB and the disk has {free / 1e6:,.2f} MB free "
            f"({error.strerror}). What was there before is untouched."
        )
    return CannotWrite(f"{target} not saved: {error.strerror} ({error.filename}). What was there before is untouched.")
