"""Three norms. LayerNorm centres and scales each token; RMSNorm only scales; a frozen BatchNorm is a fixed map."""

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


class FrozenBatchNorm(nn.Module):
    """BatchNorm whose statistics and gains are constants: y = x · s + t with s = w/√(var + ε), t = b − mean · s.

    For fine-tuning convolutional towers at small batches; nothing here is a parameter, so no optimiser touches it.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_channels))
        self.register_buffer("bias", torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))

    @classmethod
    def freeze(cls, norm: nn.BatchNorm2d) -> "FrozenBatchNorm":
        """The same map as `norm` in eval mode."""
        frozen = cls(norm.num_features, norm.eps)
        frozen.load_state_dict({k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"})
        return frozen

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C Y X"]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]
