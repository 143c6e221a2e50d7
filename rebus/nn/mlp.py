"""The position-wise half of a transformer block, and its activations."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def quick_gelu(x: Tensor) -> Tensor:
    """x · σ(1.702 x): the approximation that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class MLP(nn.Module):
    """down(act(up(x)))."""

    def __init__(self, width: int, mlp_width: int, act: str = "gelu", bias: bool = True):
        super().__init__()
        self.up = nn.Linear(width, mlp_width, bias)
        self.down = nn.Linear(mlp_width, width, bias)
        self.act = ACTIVATIONS[act]

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.down(self.act(self.up(x)))


class GatedMLP(nn.Module):
    """down(act(gate(x)) · up(x)). Shazeer 2020; Gemma with tanh-GELU, Llama with SiLU; no biases."""

    def __init__(self, width: int, mlp_width: int, act: str = "gelu_tanh"):
        super().__init__()
        self.gate = nn.Linear(width, mlp_width, bias=False)
        self.up = nn.Linear(width, mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)
        self.act = ACTIVATIONS[act]

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.down(self.act(self.gate(x)) * self.up(x))
