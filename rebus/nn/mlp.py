"""The position-wise half of a transformer block, and its activations."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.nn.blocks import Split
from rebus.nn.linear import Linear, join_layers, scaled


def quick_gelu(x: Tensor) -> Tensor:
    """x · σ(1.702 x): the approximation that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)², of Primer and Flamingo."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "squared_relu": squared_relu,
    "silu": F.silu,
}


class MLP(nn.Module):
    """down(act(up(x)))."""

    split = Split(columns=("up",), rows=("down",))

    def __init__(self, width: int, mlp_width: int, act: str = "gelu", bias: bool = True):
        super().__init__()
        self.up = Linear(width, mlp_width, bias)
        self.down = Linear(mlp_width, width, bias)
        self.act = ACTIVATIONS[act]

    def fuse(self) -> None:
        """For inference: x · σ(c x) = silu(c x) / c, where the two layers take the factors, is one pass, not three."""
        if self.act is quick_gelu:
            self.up, self.down = scaled(self.up, 1.702, bias=True), scaled(self.down, 1 / 1.702, bias=False)
            self.act = F.silu

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.down(self.act(self.up(x)))


class GatedMLP(nn.Module):
    """down(act(gate(x)) · up(x)). Shazeer 2020; Gemma with tanh-GELU, Llama with SiLU; no biases."""

    split = Split(columns=("gate", "up"), rows=("down",))

    def __init__(self, width: int, mlp_width: int, act: str = "gelu_tanh"):
        super().__init__()
        self.gate = Linear(width, mlp_width, bias=False)
        self.up = Linear(width, mlp_width, bias=False)
        self.down = Linear(mlp_width, width, bias=False)
        self.gate_up: nn.Module | None = None  # takes the place of gate and up once they are joined
        self.act = ACTIVATIONS[act]

    def join_products(self) -> None:
        """For inference: gate and up as one product."""
        join_layers(self, "gate_up", ("gate", "up"))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        gate, up = (self.gate(x), self.up(x)) if self.gate_up is None else self.gate_up(x).chunk(2, dim=-1)
        return self.down(self.act(gate) * up)
