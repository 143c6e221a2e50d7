"""Linear layers, patch projections and tied embeddings from quantised weights, and what puts them into a network."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rebus.core.errors import UsageError
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.int4 import int4_product
from rebus.nn.int8 import Product, int8_product, quantize_rows
from rebus.nn.patches import PatchProjection, cut

Kind = Literal["int8", "int4"]
KINDS: tuple[Kind, ...] = ("int8", "int4")
_IMAGES = ("image.",)  # image encoders read hundreds of rows at once, where products by 4-bit weights are slow
_many = partial(int8_product, many=True)
Quantize = Callable[[Tensor], Product]
_KINDS: dict[Kind, Quantize] = {"int8": int8_product, "int4": int4_product}


class QuantizedLinear(nn.Module):
    """`nn.Linear` from quantised weights. Frozen: it holds no parameters, and stays where it was made."""

    def __init__(self, quantize: Quantize, weight: Float[Tensor, "F D"], bias: Float[Tensor, "F"] | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.product = quantize(weight.detach())
        self.bias = None if bias is None else bias.detach().float()

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        y, scales = self.product(x.reshape(-1, self.in_features))
        if scales is None:
            y = y if self.bias is None else y + self.bias
        else:
            y = y * scales if self.bias is None else torch.addcmul(self.bias, y, scales)
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        """What `to` calls: a change of type leaves the integers alone, a change of device cannot be followed."""
        here = self.product.scales.device
        if (there := fn(torch.empty(0, device=here)).device) != here:
            raise UsageError(f"quantised layers stay on {here}, where they were made; load with device={str(there)!r}")
        return self

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class QuantizedPatchProjection(nn.Module):
    """`PatchProjection` from quantised weights."""

    def __init__(self, quantize: Quantize, patch: PatchProjection):
        super().__init__()
        self.size = patch.kernel_size[0]
        self.linear = QuantizedLinear(quantize, patch.weight.flatten(1), patch.bias)

    def forward(self, pixels: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B P D"]:
        return self.linear(cut(pixels, self.size))


class QuantizedTokenEmbedding(nn.Module):
    """`TokenEmbedding` in 8 bits, one scale a word, which serves both directions."""

    def __init__(self, table: TokenEmbedding):
        super().__init__()
        self.dtype = table.weight.dtype
        self.codes, self.scales = quantize_rows(table.weight.detach())
        self.head = QuantizedLinear(int8_product, table.weight)

    def forward(self, tokens: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        return (self.codes[tokens] * self.scales[tokens]).to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedTokenEmbedding":
        self.head._apply(fn)
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.codes.device)).dtype
        return self

    def scores(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return self.head(hidden)


def quantize_linears(network: nn.Module, kind: Kind = "int8", skip: Collection[str] = ()) -> nn.Module:
    """Replace linear layers, patch projections and tied embeddings, in place; not those named in `skip`.

    With "int4" image encoders, patch projections and tied embeddings have 8 bits. Layers that read the same input are
    joined first (`join_products`), so that it is quantised once. The network can then neither be trained nor saved.
    Raises `UsageError` on a device without such products.
    """
    devices = {p.device.type for p in network.parameters()}
    if devices - {"cpu", "cuda"}:
        raise UsageError(f'quantize="{kind}" works on cpu and cuda; these weights are on {", ".join(sorted(devices))}')
    with torch.no_grad():
        _quantize(network, "", _KINDS[kind], frozenset(skip))
    return network.eval().requires_grad_(False)


def is_quantized(network: nn.Module) -> bool:
    """Whether `quantize_linears` has been here."""
    return any(isinstance(module, QuantizedLinear | QuantizedTokenEmbedding) for module in network.modules())


def _quantize(module: nn.Module, path: str, quantize: Quantize, skip: frozenset[str]) -> None:
    for name in ("join_products", "fuse"):
        prepare = getattr(module, name, None)
        if callable(prepare):
            prepare()
    if path.endswith(_IMAGES):
        quantize = _many
    for name, child in list(module.named_children()):
        place = f"{path}{name}"
        if place in skip:
            continue
        if isinstance(child, nn.Linear):
            setattr(module, name, QuantizedLinear(quantize, child.weight, child.bias))
        elif isinstance(child, PatchProjection):
            setattr(module, name, QuantizedPatchProjection(_many, child))
        elif isinstance(child, TokenEmbedding):
            setattr(module, name, QuantizedTokenEmbedding(child))
        else:
            _quantize(child, place + ".", quantize, skip)
