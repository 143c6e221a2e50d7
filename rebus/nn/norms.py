"""Norms. LayerNorm centres and scales each token, HeadNorm each head of it; RMSNorm only scales."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LayerNorm = nn.LayerNorm  # (x − mean) / √(var + ε) · w + b, over the last dimension


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε) · (1 + w), in float32. Zhang & Sennrich 2019.

    Gemma stores the gain as its distance from one and multiplies before casting back, so that `weight` is zero at
    the start and weight decay pulls towards the identity.
    """

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        y = nn.functional.rms_norm(x.float(), x.shape[-1:], eps=self.eps)
        return torch.addcmul(y, y, self.weight.float()).to(x.dtype)


class HeadNorm(nn.Module):
    """LayerNorm over the width of each head, with gains and offsets of its own for each. Chameleon, 2024, Sec. 2.3.2.

    Put on queries and keys it bounds the scores of attention, whatever the sizes of the weights before it.
    """

    def __init__(self, num_heads: int, head_width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_heads, head_width))
        self.bias = nn.Parameter(torch.zeros(num_heads, head_width))

    def forward(self, x: Float[Tensor, "B H S K"]) -> Float[Tensor, "B H S K"]:
        y = nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps)
        return torch.addcmul(self.bias[:, None], y, self.weight[:, None])
