"""LoRA: fine-tune a linear layer by a low-rank product added to its frozen weight.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, Sec. 4.1.

    y = x Wᵀ + (alpha / rank) · x Aᵀ Bᵀ        A (rank, D) starts at random, B (F, rank) at zero, so y as it was
"""

import math
from collections.abc import Collection

from jaxtyping import Float
from torch import Tensor, nn

from rebus.core.errors import UsageError, unknown_part
from rebus.nn.linear import Linear, linear


class LoRALinear(Linear):
    """A linear layer with its low-rank change. Its own weight and bias keep their names and stay as they are."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float):
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                parameter.requires_grad_(False)
        self.times = alpha / rank
        self.lora_a = nn.Parameter(self.weight.new_empty(rank, layer.in_features))
        self.lora_b = nn.Parameter(self.weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        return super().forward(x) + self.times * linear(linear(x, self.lora_a), self.lora_b)

    def merged(self) -> Linear:
        """The same map as one plain layer."""
        layer = Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        change = self.times * self.lora_b.detach().float() @ self.lora_a.detach().float()
        layer.weight = nn.Parameter((self.weight.detach().float() + change).to(self.weight.dtype))
        layer.bias = self.bias
        return layer.requires_grad_(True)


def add_lora(network: nn.Module, parts: Collection[str], rank: int, alpha: float) -> None:
    """Freeze the network, and give a low-rank change to every linear layer of the named parts, in place.

    Raises `UnknownName` for a part that does not exist, `UsageError` where a part has no linear layer, or for
    a rank below 1.
    """
    if rank < 1:
        raise UsageError(f"the rank of a low-rank change must be at least 1; got {rank}")
    names = dict(network.named_modules())
    network.requires_grad_(False)
    for part in parts:
        if part not in names:
            raise unknown_part(part, names)
        layers = [n for n, m in names.items() if type(m) in (Linear, nn.Linear) and f"{n}.".startswith(f"{part}.")]
        if not layers:
            raise UsageError(f"{part} has no linear layer that LoRA could change")
        for name in layers:
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, LoRALinear(network.get_submodule(name), rank, alpha))  # type: ignore[arg-type]


def merge_lora(network: nn.Module) -> None:
    """Put all low-rank changes into the weights, in place: the network is then of its usual shape."""
    for name, module in list(network.named_modules()):
        if isinstance(module, LoRALinear):
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, module.merged())
