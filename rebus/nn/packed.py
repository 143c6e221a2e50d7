"""bfloat16 weights laid out as the processor's matrix products read them; results stay the same to the last bit."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rebus.core.errors import UsageError
from rebus.core.machine import multiplies_bfloat16, rows_for_float32
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.linear import Linear, join_products, linear


class PackedLinear(nn.Module):
    """`nn.Linear` from weights that oneDNN has packed. Frozen; its state dict is that of the layer it replaces."""

    def __init__(self, weight: Float[Tensor, "F D"], bias: Float[Tensor, "F"] | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = nn.Parameter(_packed(weight.detach()), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Float[Tensor, "F D"]:
        """The weights as they were; a copy where they are packed."""
        packed = self.packed.detach()
        return packed.to_dense() if packed.is_mkldnn else packed

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        if torch.is_grad_enabled() and self.packed.requires_grad:
            raise UsageError("packed weights cannot be trained: load the model without pack=True")
        if not self._fits(x):
            return linear(x, self.weight, self.bias)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y

    def _fits(self, x: Tensor) -> bool:
        """Whether this is a product for oneDNN: its operator has no gradient, and takes its own type alone."""
        return (
            self.packed.is_mkldnn
            and x.dtype == self.packed.dtype
            and 0 < x.numel() < rows_for_float32() * self.in_features
            and not (torch.is_grad_enabled() and x.requires_grad)
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        """What `to` calls: in another type or on another device the weights lie as they always did."""
        moved = fn(self.weight)
        del self.packed
        super()._apply(fn, recurse)
        self.packed = nn.Parameter(_packed(moved), requires_grad=False)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class PackedTokenEmbedding(TokenEmbedding):
    """`TokenEmbedding` with packed weights for the scores beside the rows for look-up: it is held twice."""

    def __init__(self, table: TokenEmbedding):
        rows, width = table.weight.shape
        super().__init__(rows, width, padding_idx=table.padding_idx, _weight=table.weight.detach())
        self.weight.requires_grad_(False)
        self.heads = [PackedLinear(self.weight)]  # in a list, so that its weights count once

    def scores(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        scores: Tensor = self.heads[0](hidden)
        return scores

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedTokenEmbedding":
        super()._apply(fn, recurse)
        self.heads = [PackedLinear(self.weight)]
        return self


def pack_linears(network: nn.Module) -> nn.Module:
    """Pack the linear layers and tied embeddings that are bfloat16 on a CPU, in place, one at a time, where the
    processor multiplies bfloat16 (`multiplies_bfloat16`); elsewhere nothing changes. For inference alone.

    A row is then multiplied about 1.6 times as fast, hundreds of rows 1.1 times (benchmarks/README.md). Layers that
    read the same input are joined first. Memory stays, but for tied embeddings, whose rows are looked up too.
    """
    if not multiplies_bfloat16():
        return network
    join_products(network)
    done: dict[nn.Module, nn.Module] = {}
    for module in list(network.modules()):
        for name, child in list(module._modules.items()):
            if child is not None and _can_be_packed(child):
                if child not in done:
                    done[child] = _pack(child)
                setattr(module, name, done[child])
    return network.eval().requires_grad_(False)


def _can_be_packed(layer: nn.Module) -> bool:
    if type(layer) not in (nn.Linear, Linear, TokenEmbedding):
        return False
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu"


def _pack(layer: nn.Module) -> nn.Module:
    if isinstance(layer, TokenEmbedding):
        return PackedTokenEmbedding(layer)
    assert isinstance(layer, nn.Linear)
    return PackedLinear(layer.weight, layer.bias)


def _packed(weight: Tensor) -> Tensor:
    """As oneDNN wants it, for any number of rows; as it is, where that is not for it."""
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or not multiplies_bfloat16():
        return weight
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed
