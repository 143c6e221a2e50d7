"""The gradients of a whole batch from its parts, one part in memory at a time, to the last digit.

Losses that are means over examples add up. Contrastive ones do not, since every example is compared with all others:
their embeddings are computed first, without gradients; the loss of all of them gives the gradient of each embedding;
then each part goes through the network once more and takes its embeddings' gradients along. Gao et al., "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup", 2021 ("gradient cache").

Over several ranks each has its share of the batch, and the mean of their gradients is that of the whole batch.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rebus.core.errors import UsageError
from rebus.core.outputs import Embeddings
from rebus.nn.batch_norm import live_batch_norms, statistics_held
from rebus.objectives import ranks
from rebus.objectives.losses import Losses

Batch = Mapping[str, Tensor]
TEXTS = ("tokens", "mask", "types", "targets", "labels", "blanks", "fits", "scores", "owners")  # rows of text
SHARED = ("classes", "weight")  # the same for all rows; everything else has rows of images
_ALL = ""  # the kind of examples where there is one
Context = Callable[[], AbstractContextManager[Any]]


class Learner(nn.Module):
    """A network and its objective as one module: what shards or replicates it sees all that a step does.

    A batch may weigh its loss by a number `weight`. `ghost`: BatchNorm may see each micro-batch
    separately, which is not what the whole batch would give.
    """

    def __init__(self, objective: Any, network: Any, ghost: bool = False):
        super().__init__()
        self.objective, self.network, self.ghost = objective, network, ghost

    def forward(self, batch: Batch) -> Losses:
        losses: Losses = self.objective(self.network, batch)
        return losses._replace(total=losses.total * batch["weight"]) if "weight" in batch else losses

    def embed(self, batch: Batch) -> Embeddings:
        """Of a contrastive objective: the part that goes through the network, example by example."""
        embeddings: Embeddings = self.objective.embed(self.network, batch)
        return embeddings

    def inside(self, work: Callable[[Any], Any]) -> Any:
        """`work(network)` while the weights are there, wherever they lie otherwise."""
        return work(self.network)


def split(batch: Batch, parts: int) -> list[dict[str, Tensor]]:
    """A batch in parts of as many rows each, none of which loses an image, a region or a text of its own.

    Where `owners` (T,) says to which row each text belongs, the texts go with their row, and `owners` counts the rows
    of the part. Raises `UsageError` where rows do not divide, or values are of different length and no owners say why.
    """
    shared = {name: batch[name] for name in SHARED if name in batch}
    batch = {name: value for name, value in batch.items() if name not in shared}
    owners = batch.get("owners")
    rows = {name: value for name, value in batch.items() if owners is None or name not in TEXTS}
    number = _alike(rows)
    if owners is not None:
        _alike({name: batch[name] for name in TEXTS if name in batch})
        if len(owners) and not 0 <= int(owners.min()) <= int(owners.max()) < number:
            raise UsageError(f"owners hold {int(owners.min())} to {int(owners.max())}; there are {number} rows")
    if number % parts:
        raise UsageError(f"a batch of {number} {next(iter(rows))} does not divide into {parts} equal parts")
    if parts == 1:
        return [{**batch, **shared}]
    each = number // parts
    pieces = {name: value.chunk(parts) for name, value in rows.items()}
    found = [{name: values[i] for name, values in pieces.items()} for i in range(parts)]
    if owners is not None:
        for i, part in enumerate(found):
            mine = owners // each == i
            part |= {name: batch[name][mine] for name in TEXTS if name in batch}
            part["owners"] = part["owners"] - i * each
    return [{**part, **shared} for part in found]


def _alike(values: Batch) -> int:
    """The common length of all values."""
    sizes = {name: len(value) for name, value in values.items()}
    if len(set(sizes.values())) > 1:
        raise UsageError(
            "the rows of a batch do not match: "
            + ", ".join(f"{size} {name}" for name, size in sizes.items())
            + "; `owners` says to which row of images each text belongs"
        )
    if not sizes:
        raise UsageError("owners need rows that they point to: pixels or regions")
    return next(iter(sizes.values()))


def backward(learner: Learner, parts: Sequence[Batch], forward: Context = nullcontext) -> Losses:
    """Adds the gradients of the loss of all parts together to those of the parameters; gives the detached losses.

    `forward`: the context of the forward pass, such as autocast, which the backward pass must not be in.
    Works for objectives with `embed` and `compare` (contrastive) or with `examples` (means over examples); others take
    one part only. `examples(batch)` is how many a batch has, or how many of each kind by its name where the loss is a
    sum of means over several (`Losses.means`); then `kinds` says of which kind each of `Losses.parts` is.
    Parts of contrastive batches must not draw random numbers (no dropout), since they run twice.
    Raises `UsageError` where the whole batch cannot be had from its parts.
    """
    check_parts(learner, len(parts))
    objective = learner.objective
    if hasattr(objective, "compare"):
        return _cached(learner, parts, forward) if len(parts) > 1 else _whole(learner, parts[0], forward)
    if hasattr(objective, "examples"):
        return _summed(learner, parts, forward)
    losses = _whole(learner, parts[0], forward)
    return Losses(_mean(losses.total), {name: _mean(value) for name, value in losses.parts.items()})


def check_parts(learner: Learner, parts: int) -> None:
    """Raises `UsageError` where that many parts of a batch would not give the gradients of the whole."""
    if parts == 1:
        return
    objective = learner.objective
    if not hasattr(objective, "compare") and not hasattr(objective, "examples"):
        raise UsageError(f"the objective {objective.kind!r} is not a sum over examples: accumulate must be 1")
    norms = {} if learner.ghost else live_batch_norms(learner.network)
    if norms:
        raise UsageError(
            f"accumulate={parts}: BatchNorm ({next(iter(norms))}) normalises by the statistics of the whole batch, "
            "which a part of it does not have. Set batch_norm=frozen (running statistics), batch_norm=ghost (those of "
            "each part: other losses than the whole batch has), or accumulate=1"
        )


@torch.no_grad()
def measure(learner: Learner, part: Batch) -> Losses:
    """The losses of a batch of which each rank holds a share, without gradients."""
    losses = learner(part)
    if hasattr(learner.objective, "compare"):
        return _detached(losses)
    if hasattr(learner.objective, "examples"):
        losses = _weighed(learner.objective, losses, _shares(learner, [part])[0])
    return Losses(_mean(losses.total), {name: _mean(value) for name, value in losses.parts.items()})


def _whole(learner: Learner, part: Batch, forward: Context) -> Losses:
    with forward():
        losses = learner(part)
    losses.total.backward()
    return _detached(losses)


def _cached(learner: Learner, parts: Sequence[Batch], forward: Context) -> Losses:
    with torch.no_grad(), statistics_held(learner.network), forward():
        seen = [learner.embed(part) for part in parts]
    shared = [p for p in (seen[0].scale, seen[0].bias) if p is not None]
    together = [torch.cat([e.image for e in seen]), torch.cat([e.text for e in seen]), *shared]
    leaves = [value.detach().requires_grad_() for value in together]
    groups = torch.cat([part["groups"] for part in parts]) if "groups" in parts[0] else None
    with forward():
        losses = learner.objective.compare(Embeddings(*leaves), _owners(parts, seen), groups)
    # A network with a bias may be trained by a loss that has no use for it.
    d_image, d_text, *d_shared = torch.autograd.grad(losses.total, leaves, allow_unused=True, materialize_grads=True)
    first_image = first_text = 0
    for number, part in enumerate(parts):
        with forward():
            again = learner.embed(part)
        to_image, to_text = first_image + len(again.image), first_text + len(again.text)
        pairs = [(again.image, d_image[first_image:to_image]), (again.text, d_text[first_text:to_text])]
        if number == 0:  # scale and bias are the same for all parts
            pairs += zip([p for p in (again.scale, again.bias) if p is not None], d_shared, strict=True)
        pairs = [(value, grad) for value, grad in pairs if value.requires_grad]
        torch.autograd.backward([value for value, _ in pairs], [grad for _, grad in pairs])
        first_image, first_text = to_image, to_text
    return _detached(losses)


def _owners(parts: Sequence[Batch], seen: Sequence[Embeddings]) -> Tensor | None:
    """The owners of all parts' texts together, by their row among all parts' images."""
    if "owners" not in parts[0]:
        return None
    first = 0
    found = []
    for part, embeddings in zip(parts, seen, strict=True):
        found.append(part["owners"] + first)
        first += len(embeddings.image)
    return torch.cat(found)


def _summed(learner: Learner, parts: Sequence[Batch], forward: Context) -> Losses:
    """The mean of the parts' losses, each weighed by its examples."""
    total, sums = torch.zeros(()), dict[str, Tensor]()
    for part, share in zip(parts, _shares(learner, parts), strict=True):
        with forward():
            losses = _weighed(learner.objective, learner(part), share)
        losses.total.backward()
        total = total.to(losses.total.device) + losses.total.detach()
        for name, value in losses.parts.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    return Losses(_mean(total), {name: _mean(value) for name, value in sums.items()})


def _weighed(objective: Any, losses: Losses, share: Mapping[str, float]) -> Losses:
    """The losses of a part as its share in those of the whole batch."""
    means = {_ALL: losses.total} if losses.means is None else losses.means
    total = sum((share[kind] * mean for kind, mean in means.items()), torch.zeros((), device=losses.total.device))
    kinds = getattr(objective, "kinds", {})
    return Losses(total, {name: value * share[kinds.get(name, _ALL)] for name, value in losses.parts.items()})


def _shares(learner: Learner, parts: Sequence[Batch]) -> list[dict[str, float]]:
    """What each part's mean counts, so that the mean over the ranks is that of all examples, for each kind of them; 1
    for a lone part."""
    found = [learner.objective.examples(part) for part in parts]
    counts: list[Mapping[str, int]] = [one if isinstance(one, Mapping) else {_ALL: one} for one in found]
    number = ranks.world()[1]
    everyone = {kind: float(sum(one[kind] for one in counts)) for kind in counts[0]}
    if number > 1:
        device = next(iter(parts[0].values())).device
        sums = ranks.total(torch.tensor(list(everyone.values()), dtype=torch.float64, device=device))
        everyone = dict(zip(everyone, sums.tolist(), strict=True))
    return [{kind: count * number / max(everyone[kind], 1.0) for kind, count in one.items()} for one in counts]


def _mean(value: Tensor) -> Tensor:
    number = ranks.world()[1]
    return value.detach() if number == 1 else ranks.total(value) / number


def _detached(losses: Losses) -> Losses:
    return Losses(losses.total.detach(), {name: value.detach() for name, value in losses.parts.items()})
