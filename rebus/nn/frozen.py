"""Which parameters learn, and how those are held that do not."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from rebus.core.errors import unknown_part

_READ_IN_BFLOAT16 = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # whose weights autocast rounds before it multiplies


def set_trained(network: nn.Module, parts: Collection[str], trained: bool) -> None:
    """Gradients, or none, for the modules and parameters of these names, and all below them.

    Raises `UnknownName` for a part that does not exist.
    """
    names = [name for name, _ in network.named_modules() if name] + [name for name, _ in network.named_parameters()]
    for part in parts:
        if part not in names:
            raise unknown_part(part, names)
        for name, parameter in network.named_parameters():
            if name == part or name.startswith(part + "."):
                parameter.requires_grad_(trained)


def round_frozen(network: nn.Module) -> None:
    """Hold frozen matrices in bfloat16, in place, for training under bfloat16 autocast.

    Autocast rounds them at each step before it multiplies, so that no product changes, and half of the memory is left,
    or more: a layer whose input needs a gradient would keep the rounded copy beside the weight. Norms, embeddings and
    biases stay float32, since they are added to what is float32. So does all of a module that says `keeps_float32`,
    since it computes without autocast.
    """
    kept = {
        id(part) for module in network.modules() if getattr(module, "keeps_float32", False) for part in module.modules()
    }
    others = {
        id(parameter)
        for module in network.modules()
        if not isinstance(module, _READ_IN_BFLOAT16)
        for parameter in module.parameters(recurse=False)
    }
    for module in network.modules():
        fits = isinstance(module, _READ_IN_BFLOAT16) and id(module.weight) not in others
        if fits and id(module) not in kept and not module.weight.requires_grad:
            module.weight.data = module.weight.data.bfloat16()


def unrounded(weights: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `round_frozen`: weights in bfloat16 become those of `before` that they were rounded from; others, which were
    not, become float32 as they are.
    """
    found = dict(weights)
    for name, weight in weights.items():
        if weight.dtype == torch.bfloat16:
            found[name] = before[name] if before[name].bfloat16().equal(weight) else weight.float()
    return found
