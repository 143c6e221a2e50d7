"""Linear layers rearranged without changing what they compute: for inference, where fewer and larger products pay."""

import torch
from torch import nn


def join(*layers: nn.Linear) -> nn.Linear:
    """One layer whose outputs are those of several, side by side. All read the same input; all or none have a bias."""
    first = layers[0]
    joined = nn.Linear(first.in_features, sum(layer.out_features for layer in layers), device="meta")
    joined.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    joined.bias = nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None  # type: ignore[assignment]
    return joined


def scaled(layer: nn.Linear, factor: float, *, bias: bool) -> nn.Linear:
    """The layer with its weight, and on demand its bias, multiplied."""
    result = nn.Linear(layer.in_features, layer.out_features, device="meta")
    result.weight = nn.Parameter(layer.weight.detach() * factor, requires_grad=False)
    given = None if layer.bias is None else layer.bias.detach() * (factor if bias else 1.0)
    result.bias = None if given is None else nn.Parameter(given, requires_grad=False)  # type: ignore[assignment]
    return result
