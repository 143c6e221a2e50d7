"""The linear layer, on processors that are slow at bfloat16 too; and layers joined or scaled for inference."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.machine import rows_for_float32
from rebus.nn.only_shapes import only_shapes


def linear(
    x: Float[Tensor, "*B D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, "F"] | None = None
) -> Float[Tensor, "*B F"]:
    """x weightᵀ + bias. Where bfloat16 is slow, many rows of it go through the float32 units.

    The arithmetic is the same: what comes in is bfloat16, sums are in float32, what goes out is bfloat16.
    """
    slow = x.dtype == torch.bfloat16 and x.device.type == "cpu" and not only_shapes(x)
    if slow and x.numel() >= rows_for_float32() * weight.shape[1]:
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` through `linear`."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        return linear(x, self.weight, self.bias)


def join(*layers: nn.Linear) -> Linear:
    """One layer whose outputs are those of several, side by side. All read the same input; all or none have a bias."""
    first = layers[0]
    joined = Linear(first.in_features, sum(layer.out_features for layer in layers), device="meta")
    joined.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    bias = nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
    joined.register_parameter("bias", bias)
    return joined


def scaled(layer: nn.Linear, factor: float, *, bias: bool) -> Linear:
    """The layer with its weight, and on demand its bias, multiplied."""
    result = Linear(layer.in_features, layer.out_features, device="meta")
    result.weight = nn.Parameter(layer.weight.detach() * factor, requires_grad=False)
    given = None if layer.bias is None else layer.bias.detach() * (factor if bias else 1.0)
    result.bias = None if given is None else nn.Parameter(given, requires_grad=False)
    return result


def xavier(network: nn.Module) -> None:
    """Glorot's uniform initial values for every linear layer of the network, zeros for their biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
