"""The repeated blocks of a network: the pieces that are sharded, recomputed and compiled one by one, and whose
matrices several ranks can split between them (Shoeybi et al., "Megatron-LM", 2019, Sec. 3).
"""

from typing import Any, NamedTuple

from torch import nn

from rebus.core.errors import UsageError


class Split(NamedTuple):
    """How ranks split a module's linear layers: `columns` by their outputs, `rows` by their inputs. `shared` ones are
    whole on every rank, but each rank uses what they give for its own heads alone."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    shared: tuple[str, ...] = ()


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks of all towers, in order."""
    lists = [m for n, m in network.named_modules() if n.rpartition(".")[2] == "blocks" and isinstance(m, nn.ModuleList)]
    return [block for blocks in lists for block in blocks]


def split_of(block: nn.Module) -> Split:
    """The layers of a decoder's block that ranks split, by their names in it; none where it is no decoder's."""
    attn: Any = getattr(block, "attn", None)
    if attn is None or not hasattr(getattr(block, "mlp", None), "gate"):
        return Split((), ())
    shares_keys = attn.num_kv_heads == 1  # one head for all queries is kept whole on every rank
    keys = ("attn.k", "attn.v")
    columns = ("attn.q", *(() if shares_keys else keys), "mlp.gate", "mlp.up")
    return Split(columns, ("attn.out", "mlp.down"), keys if shares_keys else ())


def keep_heads(block: nn.Module, ranks: int) -> None:
    """Make a block count the heads of one of `ranks` ranks. Raises `UsageError` where they do not divide."""
    attn: Any = block.attn
    if attn.num_heads % ranks or (attn.num_kv_heads > 1 and attn.num_kv_heads % ranks):
        heads = f"{attn.num_heads} heads ({attn.num_kv_heads} for keys)"
        raise UsageError(f"{heads} do not divide by devices.tensor_parallel={ranks}")
    attn.num_heads //= ranks
    attn.num_kv_heads = max(1, attn.num_kv_heads // ranks)
