"""Tables of pairs as files: written atomically, memory-mapped, so that millions of pairs need no RAM of their own.

A folder holds `config.json` (model_type "asif_pairs") and safetensors: of each 100,000 pairs the rows of both sides
and their 8-bit copies with the scale of each row; the names of all pairs with an index of their ids; weights where
pairs have their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadCheckpoint, BadConfig
from rebus.core.strict_json import to_json
from rebus.models.training_free.anchors import Anchors, Screen
from rebus.models.training_free.names import StoredNames, index_of
from rebus.models.training_free.pairs import Pairs, PairsConfig, Stored, check_settings
from rebus.weights.checkpoint_files import open_weights, read_config, save_directory
from rebus.weights.lazy_tensor import LazyTensor

SHARD_ROWS = 100_000
_SIDES = ("image", "text")


@dataclass(frozen=True, kw_only=True)
class StoredConfig:
    """What `config.json` says: sizes, and how scores are made."""

    num_anchors: int
    shard_rows: int
    image_width: int
    text_width: int
    k: int
    p: float | int
    weight: float | int
    dtype: str
    clamp: float = 0.0  # similarities below count as this; nothing else is supported


def save_pairs(directory: str | Path, pairs: Pairs, *, shard_rows: int = SHARD_ROWS, screens: bool = True) -> None:
    """Write the pairs that count, in the number format that they have. Removed ones leave nothing behind.

    `screens`: with 8-bit copies, which take half as much room again as float16 rows and make a search twice as fast.
    Raises `CannotWrite`, leaving what was there.
    """
    count = len(pairs)
    numbers = pairs.kept.nonzero()[:, 0]
    tensors: dict[str, LazyTensor] = {}
    dtypes = []
    for name in _SIDES:
        anchors = pairs.side(name)  # type: ignore[arg-type]
        dtype = _dtype(anchors)
        dtypes.append(str(dtype).removeprefix("torch."))
        read = _reader(anchors, numbers, shard_rows, dtype)
        width = anchors.shards[0].shape[1]
        for shard, first in enumerate(range(0, count, shard_rows)):
            rows = min(shard_rows, count - first)
            tensors |= _shard(f"{name}.{shard:05d}", (rows, width), dtype, shard, *read, screens=screens)
    plain = all(pairs.name(i)[0] == str(row) and not pairs.name(i)[1] for row, i in enumerate(numbers.tolist()))
    if not plain:
        lines = [to_json(pairs.name(i), ensure_ascii=False).encode() for i in numbers.tolist()]
        hashes, order = index_of(pairs.ids)
        tensors["names.hashes"], tensors["names.order"] = LazyTensor.of(hashes), LazyTensor.of(order)
        tensors["names.ends"] = LazyTensor.of(torch.tensor([len(line) for line in lines]).cumsum(0))
        text = b"".join(lines)
        text += b" " * (-len(text) % 64)  # what follows in the file stays aligned
        tensors["names.lines"] = LazyTensor.of(torch.from_numpy(np.frombuffer(text, np.uint8).copy()))
    if pairs.weights is not None:
        tensors["weights"] = LazyTensor.of(pairs.weights.cpu()[numbers])
    cfg = StoredConfig(
        num_anchors=count,
        shard_rows=shard_rows,
        image_width=pairs.image.shape[1],
        text_width=pairs.text.shape[1],
        k=pairs.k,
        p=pairs.p,
        weight=pairs.weight,
        dtype=dtypes[0],
    )
    save_directory(directory, {"model_type": "asif_pairs", **to_dict(cfg)}, tensors)


def open_pairs(directory: str | Path) -> Pairs:
    """The pairs of a folder, mapped: nothing is read before it is asked for. Raises `BadConfig`, `BadCheckpoint`."""
    data = dict(read_config(directory))
    if data.pop("model_type", None) != "asif_pairs":
        raise BadConfig(f"{directory}: not a table of pairs (model_type is not asif_pairs)")
    cfg = from_dict(StoredConfig, data, f"{directory}/config.json")
    if cfg.clamp != 0.0:
        raise BadConfig(f"{directory}/config.json: clamp {cfg.clamp} is not supported; similarities are clamped at 0")
    found = open_weights(directory)
    shards = len(range(0, cfg.num_anchors, cfg.shard_rows))
    image = _side(found, "image", shards, cfg.image_width)
    text = _side(found, "text", shards, cfg.text_width)
    if not len(image) == len(text) == cfg.num_anchors:
        raise BadConfig(f"{directory}: {cfg.num_anchors:,} pairs wanted; {len(image):,} and {len(text):,} rows there")

    def loaded(name: str) -> Tensor | None:
        return found[name].load() if name in found else None

    parts = {part: loaded(f"names.{part}") for part in ("lines", "ends", "hashes", "order")}
    if any(len(part) != cfg.num_anchors for name, part in parts.items() if part is not None and name != "lines"):
        raise BadCheckpoint(f"{directory}: the names are those of another number of pairs than {cfg.num_anchors:,}")
    weights = loaded("weights")
    if weights is not None and (len(weights) != cfg.num_anchors or not bool((weights > 0).all())):
        raise BadCheckpoint(f"{directory}: weights expects {cfg.num_anchors:,} numbers above 0")
    memory = PairsConfig(
        ids=(), image_width=cfg.image_width, text_width=cfg.text_width, k=cfg.k, p=cfg.p, weight=cfg.weight
    )
    check_settings(memory, f"{directory}/config.json")
    pairs = Pairs(memory, Stored(image, text, StoredNames(cfg.num_anchors, **parts), weights))
    # Pairs that are added take the number format of the others, so that writing them changes no score.
    pairs.image, pairs.text = pairs.image.to(_dtype(image)), pairs.text.to(_dtype(text))
    return pairs


def _dtype(anchors: Anchors) -> torch.dtype:
    return anchors.shards[0].dtype if anchors.shards else torch.float32


def _side(found: dict[str, LazyTensor], name: str, shards: int, width: int) -> Anchors:
    rows: list[Tensor] = []
    screens: list[Screen | None] = []
    mapped: list[LazyTensor] = []
    for number in range(shards):
        key = f"{name}.{number:05d}."
        if key + "rows" not in found:
            raise BadCheckpoint(f"the table of pairs lacks {key}rows")
        mapped.append(found[key + "rows"])
        rows.append(mapped[-1].load())
        screened = key + "codes" in found
        if rows[-1].ndim != 2 or rows[-1].shape[1] != width:
            raise BadCheckpoint(f"{key}rows must have the shape (n, {width}); got {tuple(rows[-1].shape)}")
        screens.append(
            Screen(found[key + "codes"].load(), found[key + "scale"].load(), float(found[key + "slack"].load()))
            if screened
            else None
        )

    def release() -> None:
        for shard in mapped:
            shard.release()

    return Anchors(rows, screens, release=release)


Reader = tuple[Callable[[int], Tensor], Callable[[int], Screen]]


def _reader(anchors: Anchors, numbers: Tensor, shard_rows: int, dtype: torch.dtype) -> Reader:
    """The rows of a shard and their 8-bit copy, the last of each kept, since its parts are written one by one."""

    @lru_cache(maxsize=1)
    def rows(shard: int) -> Tensor:
        return anchors.rows(numbers[shard * shard_rows : (shard + 1) * shard_rows]).to(dtype).cpu().contiguous()

    @lru_cache(maxsize=1)
    def screen(shard: int) -> Screen:
        return Screen.of(rows(shard))

    return rows, screen


def _shard(
    key: str,
    shape: tuple[int, int],
    dtype: torch.dtype,
    shard: int,
    rows: Callable[[int], Tensor],
    screen: Callable[[int], Screen],
    *,
    screens: bool,
) -> dict[str, LazyTensor]:
    found = {f"{key}.rows": LazyTensor(shape, dtype, lambda: rows(shard))}
    if screens:
        found[f"{key}.codes"] = LazyTensor(shape, torch.int8, lambda: screen(shard).codes)
        found[f"{key}.scale"] = LazyTensor(shape[:1], torch.float32, lambda: screen(shard).scale)
        found[f"{key}.slack"] = LazyTensor((), torch.float32, lambda: torch.tensor(screen(shard).slack))
    return found
