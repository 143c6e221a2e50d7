"""The repeated blocks of a network: the pieces that are sharded, recomputed and compiled one by one, and whose
matrices several ranks can split between them (Shoeybi et al., "Megatron-LM", 2019, Sec. 3).

A module declares its blocks as `blocks`, a ModuleList or a property that lists them. A block that can be split names,
as `split_parts`, the submodules that are; each of these has `split` and, if it has heads, `keep_heads`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn


class Split(NamedTuple):
    """How ranks split a module's linear layers: `columns` by their outputs, `rows` by their inputs. `shared` ones are
    whole on every rank, but each rank uses what they give for its own heads alone."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    shared: tuple[str, ...] = ()


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks of all encoders, in order."""
    found: dict[int, nn.Module] = {}
    for module in network.modules():
        own = getattr(module, "blocks", None)
        if isinstance(own, nn.ModuleList | list):
            found |= {id(block): block for block in own}
    return list(found.values())


def split_of(block: nn.Module) -> Split:
    """The layers of a block that ranks split, by their names in it; none where it declares nothing."""
    columns, rows, shared = [], [], []
    for part, (outputs, inputs, whole) in ((name, module.split) for name, module in _parts(block)):
        columns += [f"{part}.{name}" for name in outputs]
        rows += [f"{part}.{name}" for name in inputs]
        shared += [f"{part}.{name}" for name in whole]
    return Split(tuple(columns), tuple(rows), tuple(shared))


def keep_heads(block: nn.Module, ranks: int) -> None:
    """Make a block count the heads of one of `ranks` ranks. Raises `UsageError` where they do not divide."""
    for _, module in _parts(block):
        if hasattr(module, "keep_heads"):
            module.keep_heads(ranks)


def _parts(block: nn.Module) -> Iterator[tuple[str, Any]]:
    for name in getattr(block, "split_parts", ()):
        yield name, block.get_submodule(name)
