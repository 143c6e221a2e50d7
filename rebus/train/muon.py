"""Muon: blocks' matrices follow their momentum, made orthogonal. Jordan et al., "Muon", 2024.

PyTorch's own works in bfloat16 alone, one matrix after the other; on a processor without bfloat16 that takes longer
than the rest of the step. Here matrices of one shape go together, in float32 where there is no GPU.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rebus.train.sharded_tensors import share_of, whole

_QUINTIC = (3.4445, -4.7750, 2.0315)  # steep at zero: five rounds bring all singular values to between 0.7 and 1.2
_ROUNDS = 5


def orthogonal(x: Float[Tensor, "N R C"]) -> Float[Tensor, "N R C"]:
    """Each matrix with its singular values moved close to one, by Newton–Schulz rounds: x ← a x + (b A + c A²) x with
    A = x xᵀ."""
    a, b, c = _QUINTIC
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions. Nesterov momentum, decoupled weight decay, and steps of Adam's usual size:
    0.2 · √(longer side), Liu et al., "Muon is Scalable for LLM Training", 2025, Sec. 2.2."""

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients; parameters without one stay where they are."""
        assert closure is None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                moved = torch.stack([whole(self._momentum(p, group["momentum"])) for p in parameters])
                update = orthogonal(moved.bfloat16() if moved.is_cuda else moved.float())
                for parameter, direction in zip(parameters, update, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    move = share_of(direction.to(parameter.dtype), parameter)
                    parameter.add_(move, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        grad, state = parameter.grad, self.state[parameter]
        assert grad is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(grad, 1 - momentum)
        return grad.lerp(buffer, momentum)
