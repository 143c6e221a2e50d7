"""Linear classifiers on frozen features: how much an image encoder has learned, by what can be read off it.

Softmax regression where an image has one label. Where it has several, one linear SVM a label, its cost chosen by cross
validation, as on VOC07 (Goyal et al., "Scaling and Benchmarking Self-Supervised Visual Representation Learning", 2019,
Sec. 6.1). Every problem here is convex: what is found does not depend on a seed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

COSTS = (0.01, 0.1, 1.0, 10.0)  # of an SVM's errors against the length of its weights
FOLDS = 3
_POSITIVE = 2.0  # weight of an image that has the label
_STEPS = 2000  # most, as in the published protocol


class Linear(NamedTuple):
    """`weight` (D, K) and `bias` (K,): features (N, D) → scores (N, K)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        return features @ self.weight + self.bias


def softmax_regression(
    features: Float[Tensor, "N D"], labels: Int[Tensor, "N"], num_labels: int, strength: float
) -> Linear:
    """The least of strength · Σ cross entropy + ½ ‖W‖²."""

    def loss(found: Linear) -> Tensor:
        penalty = found.weight.square().sum() / (2 * strength * len(labels))  # both per image, for the search's sake
        return F.cross_entropy(found(features), labels) + penalty

    return _least(loss, features, num_labels, steps=200)


def svms(
    features: Float[Tensor, "N D"],
    wanted: Bool[Tensor, "N K"],
    costs: Float[Tensor, "K"] | float = 1.0,
    used: Bool[Tensor, "N K"] | None = None,
) -> Linear:
    """For each label the least of ½ (‖w‖² + b²) + cost · Σ weight · max(0, 1 − y · (w · x + b))², where images that
    have the label weigh twice: LIBLINEAR's L2-regularised squared hinge. `used`: the images that a label learns from.
    """
    signs = wanted.to(features.dtype) * 2 - 1
    weights = torch.where(wanted, _POSITIVE, 1.0).to(features.dtype)
    weights = weights if used is None else weights * used

    def loss(found: Linear) -> Tensor:
        errors = (weights * (1 - signs * found(features)).clamp(min=0).square()).sum(dim=0)
        length = found.weight.square().sum(dim=0) + found.bias.square()
        return (length / (2 * costs) + errors).sum() / len(features)

    return _least(loss, features, wanted.shape[1], steps=_STEPS)


def best_costs(
    features: Float[Tensor, "N D"], wanted: Bool[Tensor, "N K"], costs: Sequence[float] = COSTS, folds: int = FOLDS
) -> Float[Tensor, "K"]:
    """For each label the cost whose SVMs rank the images best that they did not learn from, by the mean average
    precision over folds; of equal ones the smallest. Positive images are distributed over the folds in turn, and
    so are those that have not."""
    fold = torch.where(wanted, wanted.long().cumsum(dim=0), (~wanted).long().cumsum(dim=0)) % folds
    found = torch.zeros(len(costs), wanted.shape[1])
    for row, cost in enumerate(costs):
        for part in range(folds):
            scores = svms(features, wanted, cost, used=fold != part)(features)
            for label in range(wanted.shape[1]):
                apart = fold[:, label] == part
                found[row, label] += average_precision(scores[apart, label], wanted[apart, label])
    return torch.tensor(costs)[found.argmax(dim=0)]


def average_precision(scores: Float[Tensor, "N"], wanted: Bool[Tensor, "N"]) -> float:
    """Σ over thresholds (recall gained there) · precision, the area under the curve with no interpolation; images of
    equal scores are found together. 0 where nothing is wanted."""
    if not wanted.any():
        return 0.0
    order = scores.argsort(descending=True, stable=True)
    ranked, hits = scores[order], wanted[order].double().cumsum(dim=0)
    last = torch.cat([ranked[1:] != ranked[:-1], torch.tensor([True])])  # of those with its score
    hits, number = hits[last], torch.arange(1, len(ranked) + 1, dtype=torch.float64)[last]
    gained = hits.diff(prepend=hits.new_zeros(1))
    return float((gained * hits / number).sum() / hits[-1])


def _least(loss: Callable[[Linear], Tensor], features: Tensor, num_labels: int, steps: int) -> Linear:
    """Where a convex loss is least, nearly, begun at zero."""
    weight = features.new_zeros(features.shape[1], num_labels).requires_grad_()
    bias = features.new_zeros(num_labels).requires_grad_()
    search = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-5, tolerance_change=1e-9
    )

    def closure() -> Tensor:
        search.zero_grad()
        found = loss(Linear(weight, bias))
        found.backward()
        return found

    with torch.enable_grad():
        search.step(closure)
    return Linear(weight.detach(), bias.detach())
