"""Two norms. LayerNorm centres and scales each token; RMSNorm only scales."""

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
