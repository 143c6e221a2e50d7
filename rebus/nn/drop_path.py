"""Stochastic depth: in training a residual branch is left out for some rows of a batch.

Huang et al., "Deep Networks with Stochastic Depth", 2016.
"""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Each row is set to zero with probability `rate`, the others are scaled to keep the mean. x (B, …) → (B, …)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(len(x), *[1] * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * kept / max(1 - self.rate, 1e-12)
