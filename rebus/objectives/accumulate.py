"""The gradients of a whole batch from its parts, one part in memory at a time, to the last digit.

Losses that are means over examples add up. Contrastive ones do not, since every example is compared with all others:
their embeddings are computed first, without gradients; the loss of all of them gives the gradient of each embedding;
then each part goes through the network once more and takes its embeddings' gradients along. Gao et al., "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup", 2021 ("gradient cache").
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rebus.core.errors import UsageError
from rebus.core.outputs import Embeddings
from rebus.objectives.losses import Losses

Batch = Mapping[str, Tensor]
Context = Callable[[], AbstractContextManager[Any]]


def split(batch: Batch, parts: int) -> list[dict[str, Tensor]]:
    """A batch in equal parts along the first dimension. Raises `UsageError` where it does not divide."""
    for name, value in batch.items():
        if len(value) % parts:
            raise UsageError(f"a batch of {len(value)} {name} does not divide into {parts} equal parts")
    pieces = {name: value.chunk(parts) for name, value in batch.items()}
    return [{name: values[i] for name, values in pieces.items()} for i in range(parts)]


def backward(
    objective: Any, network: Callable[..., Any], parts: Sequence[Batch], forward: Context = nullcontext
) -> Losses:
    """Adds the gradients of the loss of all parts together to those of the parameters; gives the detached losses.

    `forward`: what the way forward happens in, such as autocast, which the way back must not be in.
    Works for objectives with `embed` and `compare` (contrastive) or with `examples` (means over examples); others take
    one part only. Parts of contrastive batches must not draw random numbers (no dropout), since they run twice.
    """
    if len(parts) == 1:
        with forward():
            losses = objective(network, parts[0])
        losses.total.backward()
        return _detached(losses)
    if hasattr(objective, "compare"):
        return _cached(objective, network, parts, forward)
    if hasattr(objective, "examples"):
        return _summed(objective, network, parts, forward)
    raise UsageError(f"the objective {objective.kind!r} is not a sum over examples: accumulate must be 1")


def _cached(objective: Any, network: Callable[..., Any], parts: Sequence[Batch], forward: Context) -> Losses:
    with torch.no_grad(), forward():
        seen = [objective.embed(network, part) for part in parts]
    shared = [p for p in (seen[0].scale, seen[0].bias) if p is not None]
    together = [torch.cat([e.image for e in seen]), torch.cat([e.text for e in seen]), *shared]
    leaves = [value.detach().requires_grad_() for value in together]
    with forward():
        losses = objective.compare(Embeddings(*leaves))
    # A network with a bias may be trained by a loss that has no use for it.
    d_image, d_text, *d_shared = torch.autograd.grad(losses.total, leaves, allow_unused=True, materialize_grads=True)
    first_image = first_text = 0
    for number, part in enumerate(parts):
        with forward():
            again = objective.embed(network, part)
        to_image, to_text = first_image + len(again.image), first_text + len(again.text)
        pairs = [(again.image, d_image[first_image:to_image]), (again.text, d_text[first_text:to_text])]
        if number == 0:  # scale and bias are the same for all parts
            pairs += zip([p for p in (again.scale, again.bias) if p is not None], d_shared, strict=True)
        pairs = [(value, grad) for value, grad in pairs if value.requires_grad]
        torch.autograd.backward([value for value, _ in pairs], [grad for _, grad in pairs])
        first_image, first_text = to_image, to_text
    return _detached(losses)


def _summed(objective: Any, network: Callable[..., Any], parts: Sequence[Batch], forward: Context) -> Losses:
    """The mean of the parts' losses, each weighed by its examples."""
    counts = [float(objective.examples(part)) for part in parts]
    shares = [count / max(sum(counts), 1.0) for count in counts]
    total, sums = torch.zeros(()), dict[str, Tensor]()
    for part, share in zip(parts, shares, strict=True):
        with forward():
            losses = objective(network, part)
        (losses.total * share).backward()
        total = total.to(losses.total.device) + losses.total.detach() * share
        for name, value in losses.parts.items():
            sums[name] = sums.get(name, 0.0) + value.detach() * share
    return Losses(total, sums)


def _detached(losses: Losses) -> Losses:
    return Losses(losses.total.detach(), {name: value.detach() for name, value in losses.parts.items()})
