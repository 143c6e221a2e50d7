"""The files of a checkpoint directory: what is there, what it says, which tensors it holds."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rebus.core.errors import BadCheckpoint, BadConfig, MissingFile
from rebus.core.small_files import read_small
from rebus.weights.gguf import open_gguf
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.mapped_safetensors import open_safetensors
from rebus.weights.npz import open_npz
from rebus.weights.save import MANIFEST, save_directory, standing
from rebus.weights.tf_bundle import open_bundle

__all__ = ["open_weights", "read_config", "read_json", "save_directory", "weight_file"]

WRAPPERS = ("state_dict", "model", "model_state_dict")  # names under which trainers put the weights into their pickles
MAX_JSON = 20_000_000  # bytes of one JSON file
# Safetensors before pickles, the whole before its shards, transformers' names before open_clip's.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
    "checkpoint.pt",
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises `MissingFile` or `BadConfig` that names the file and the place."""
    try:
        data = json.loads(read_small(path, MAX_JSON).decode("utf-8"))
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.iterdir())[:8] if path.parent.is_dir() else []
        holds = f"; the folder holds {', '.join(there)}" if there else ""
        raise MissingFile(f"no {path.name} in {path.parent}{holds}.") from None
    except json.JSONDecodeError as error:
        raise BadConfig(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, an integer of thousands of digits, too deep
        raise BadConfig(f"{path}: not a JSON file ({error})") from None
    except OSError as error:
        raise MissingFile(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(data, dict):
        raise BadConfig(f"{path}: expected an object; got {type(data).__name__}")
    return data


def read_config(directory: str | Path, name: str = "config.json") -> dict[str, Any]:
    """The configuration of a checkpoint directory, as it stands in the file."""
    return read_json(standing(Path(directory)) / name)


def weight_file(directory: Path, *, prefer: str = "") -> Path:
    """The file that holds the weights of a directory, or the index of its shards.

    `prefer`: the beginning of a name that goes first, such as `open_clip`, where a directory holds two layouts.
    Raises `MissingFile` naming what is there.
    """
    for name in sorted(NAMES, key=lambda n: not (prefer and n.startswith(prefer))):
        if (directory / name).is_file():
            return directory / name
    others = [p for ending in ("*.safetensors", "*.npz", "*.index") for p in sorted(directory.glob(ending))]
    if len(others) == 1:
        return others[0]
    there = ", ".join(sorted(p.name for p in directory.iterdir())[:8]) if directory.is_dir() else ""
    if others:
        raise MissingFile(f"{directory} holds {len(others)} files of weights; name one: {there}")
    raise MissingFile(
        f"no model.safetensors in {directory}" + (f"; it holds {there}." if there else ", which is empty.")
    )


def open_weights(
    source: str | Path, *, prefer: str = "", wrappers: Collection[str] = WRAPPERS
) -> dict[str, LazyTensor]:
    """The tensors of a directory or file by their released names, none read yet.

    Reads safetensors (memory-mapped, sharded with an index or not), big_vision's `.npz`, TensorFlow's `.index`,
    and `.bin`, `.pt`, `.pth`, `.ckpt` with `weights_only=True`, in which the weights may lie under one of `wrappers`.
    Raises `BadCheckpoint` or `MissingFile`.
    """
    path = standing(Path(source))
    if path.is_dir():
        path = weight_file(path, prefer=prefer)
        _sizes_hold(path.parent)
    if path.name.endswith(".index.json"):
        return _open_shards(path, wrappers)
    return _open_file(path, wrappers)


def _open_file(path: Path, wrappers: Collection[str]) -> dict[str, LazyTensor]:
    if path.suffix in READERS:
        return READERS[path.suffix](path, wrappers)
    *most, last = READERS
    raise BadCheckpoint(f"{path}: weights are {', '.join(most)} or {last} files")


def _open_shards(index: Path, wrappers: Collection[str]) -> dict[str, LazyTensor]:
    """The shards that an index names. All must lie in its own folder, and hold what it says."""
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise BadCheckpoint(f'{index}: "weight_map" must map names of weights to names of files')
    folder = index.parent
    for shard in sorted(set(table.values())):
        if Path(shard).name != shard or "\\" in shard or shard in ("", ".", ".."):
            raise BadCheckpoint(f'{index}: shard "{shard}" lies outside the folder')
        if not (folder / shard).is_file():
            raise MissingFile(f"{index.name} names {shard}, which is not in {folder}. Download it again.")
    shards = {shard: _open_file(folder / shard, wrappers) for shard in sorted(set(table.values()))}
    found: dict[str, LazyTensor] = {}
    for shard, tensors in shards.items():
        for name, tensor in tensors.items():
            if table.get(name) != shard:
                raise BadCheckpoint(f'{index}: weight "{name}" is in {shard}, where the index does not expect it')
            found[name] = tensor
    lacking = sorted(set(table) - set(found))
    if lacking:
        raise BadCheckpoint(f'{index}: weight "{lacking[0]}" is not in {table[lacking[0]]} ({len(lacking)} missing)')
    return found


def _open_pickle(path: Path, wrappers: Collection[str]) -> dict[str, LazyTensor]:
    """A file of `torch.save`, through PyTorch's restricted reader alone: what holds code is refused, never run."""
    if not path.is_file():
        raise MissingFile(f"no weights at {path}")
    zipped = zipfile.is_zipfile(path)
    if zipped and _is_torchscript(path):
        raise BadCheckpoint(
            f"{path}: a TorchScript program, which would have to be run. Use the same weights as safetensors: "
            "openai/clip-vit-base-patch32 and its sisters, or timm/resnet50_clip.openai for the ResNets."
        )
    try:
        with warnings.catch_warnings():  # about the pickle's protocol: what matters is whether it is read or refused
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            warnings.filterwarnings("ignore", message="Validating sparse")  # they are refused below
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        reason = _first_line(error).split(". ")[0]
        raise BadCheckpoint(
            f"{path}: refused, nothing was run: it holds more than weights ({reason}). Convert it to safetensors "
            "where you trust it."
        ) from None
    except Exception as error:  # a damaged directory or pickle may raise anything, after which nothing was run
        raise BadCheckpoint(f"{path}: not a readable file of weights ({_first_line(error)})") from None
    for wrapper in wrappers:
        if isinstance(data, Mapping) and isinstance(data.get(wrapper), Mapping):
            data = data[wrapper]
    if not isinstance(data, Mapping):
        raise BadCheckpoint(f"{path}: expected names and tensors; got {type(data).__name__}")
    for name, value in data.items():
        if not isinstance(value, Tensor):
            raise BadCheckpoint(f"{path}: {_shown(name)} is no tensor")
        if value.layout != torch.strided or value.is_quantized:
            kind = "a quantised" if value.is_quantized else "a sparse"
            raise BadCheckpoint(f"{path}: {_shown(name)} is {kind} tensor; weights are dense. Save it with .to_dense()")
    around = "module." if data and all(str(name).startswith("module.") for name in data) else ""  # DDP's
    return {str(name).removeprefix(around): LazyTensor.of(value) for name, value in data.items()}


Reader = Callable[[Path, Collection[str]], dict[str, LazyTensor]]
READERS: Mapping[str, Reader] = {  # by the ending of the name; given the path and the wrappers of pickles
    ".safetensors": lambda path, _: open_safetensors(path),
    ".npz": lambda path, _: open_npz(path),
    ".gguf": lambda path, _: open_gguf(path).tensors,
    ".index": lambda path, _: open_bundle(path),
    **dict.fromkeys((".bin", ".pt", ".pth", ".ckpt", ".th"), _open_pickle),
}


def _shown(name: object) -> str:
    """A name from a file, in one line of any terminal."""
    return f'"{repr(str(name)[:200])[1:-1]}"'


def _first_line(error: Exception) -> str:
    return repr((str(error).splitlines() or [""])[0][:200])[1:-1] or type(error).__name__


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())
    except Exception as error:  # a damaged directory: zipfile raises what its parts raise
        raise BadCheckpoint(f"{path}: not a readable file of weights ({_first_line(error)})") from None


def _sizes_hold(directory: Path) -> None:
    """Weights that a manifest lists must have the size it says: half a copy is found before it is read."""
    if not (directory / MANIFEST).is_file():
        return
    listed = read_json(directory / MANIFEST).get("files")
    for name, entry in listed.items() if isinstance(listed, dict) else ():
        path = directory / name
        if not name.endswith(".safetensors") or Path(name).name != name or not isinstance(entry, dict):
            continue
        if not path.is_file():
            raise MissingFile(f"{MANIFEST} lists {name}, which is not in {directory}.")
        if path.stat().st_size != entry.get("bytes"):
            raise BadCheckpoint(
                f"{path}: {path.stat().st_size:,} bytes where {MANIFEST} says {_shown(entry.get('bytes'))}. "
                "Copy it again."
            )
