"""Pull the right picture and text together, push all other pairs of the batch apart.

Softmax: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, Sec. 2.3 and
fig. 3. Sigmoid: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023, Sec. 3.2 and algorithm 1.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.outputs import Embeddings
from rebus.objectives.losses import Losses


def softmax_contrastive(embeddings: Embeddings) -> Tensor:
    """½ · (mean cross entropy of each picture over all texts + of each text over all pictures); row i fits row i."""
    logits = embeddings.logits
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def sigmoid_contrastive(embeddings: Embeddings) -> Tensor:
    """−(1/n) Σᵢⱼ log σ(zᵢⱼ · logitᵢⱼ), z = 1 for the right pair and −1 for all others; divided by n, not by n²."""
    logits = embeddings.logits
    signs = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)


def _measured(loss: Tensor, embeddings: Embeddings) -> Losses:
    with torch.no_grad():
        best = embeddings.logits.argmax(dim=1)
        right = (best == torch.arange(len(best), device=best.device)).float().mean()
    return Losses(loss, {"accuracy": right, "scale": embeddings.scale.detach()})


@dataclass(frozen=True)
class SoftmaxLoss:
    """`softmax_contrastive` of the network's output; the log scale stays within [0, ln `most_scale`] (spec §3)."""

    kind: Literal["softmax"] = "softmax"
    most_scale: float = 100.0

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        log_scale = getattr(network, "log_scale", None)
        if log_scale is not None:
            with torch.no_grad():
                log_scale.clamp_(0, math.log(self.most_scale))
        embeddings = network(**batch)
        return _measured(softmax_contrastive(embeddings), embeddings)


@dataclass(frozen=True)
class SigmoidLoss:
    """`sigmoid_contrastive` of the network's output.

    `bias`: where the network's bias starts, −ln(batch size) for small batches; −10, the paper's, suits 32k (spec §3).
    """

    kind: Literal["sigmoid"] = "sigmoid"
    bias: float | None = None

    def begin(self, network: nn.Module, batch: Mapping[str, Tensor]) -> None:
        """Set the bias before the first step."""
        if self.bias is not None:
            with torch.no_grad():
                network.get_parameter("bias").fill_(self.bias)

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        embeddings = network(**batch)
        return _measured(sigmoid_contrastive(embeddings), embeddings)
