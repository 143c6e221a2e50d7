"""LAMB: Adam's direction for each matrix, at a length in proportion to the matrix. You et al., "Large Batch
Optimization for Deep Learning: Training BERT in 76 minutes", 2020, algorithm 2.

    r = m̂ / (√v̂ + ε) + λ x        x ← x − lr · (‖x‖ / ‖r‖) · r

As in the authors' code, vectors and scalars, which do not decay either, follow r as it is.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class LAMB(torch.optim.Optimizer):
    """For parameters that are replicated or sharded over ranks; norms are those of the whole tensor."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients; parameters without one stay where they are."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        first, second = group["betas"]
        mean.lerp_(grad, 1 - first)
        square.lerp_(grad.square(), 1 - second)
        number = float(state["step"])
        scale = (square / (1 - second**number)).sqrt_().add_(group["eps"])
        move = (mean / (1 - first**number)).div_(scale)
        if parameter.ndim > 1:
            move.add_(parameter, alpha=group["weight_decay"])
            own, its = parameter.norm(), move.norm()
            move.mul_(torch.where((own > 0) & (its > 0), own / its, torch.ones_like(own)))
        parameter.add_(move, alpha=-group["lr"])
