"""Which of several models is better, when all answered the same images: paired intervals and tests.

McNemar, "Note on the sampling error of the difference between correlated proportions", 1947. Holm, "A simple
sequentially rejective multiple test procedure", 1979. Efron, "Bootstrap methods: another look at the jackknife", 1979.
Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np

ALPHA = 0.05  # of a test; intervals cover 1 - ALPHA
_RESAMPLES, _FLIPS = 5_000, 10_000
_CELLS = 1 << 22  # numbers of a block of resamples held at once


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models on the same images. `difference`: mean score of the second minus that of the first."""

    first: str
    second: str
    difference: float
    low: float  # of the 95% interval of the difference
    high: float
    p: float  # two-sided, of this pair alone
    adjusted: float  # p, corrected for the number of pairs
    test: str
    smallest: float  # the least difference that this many images could have shown for this pair

    @property
    def better(self) -> str | None:
        """The model that is better; None where the images do not show it."""
        if self.adjusted > ALPHA or self.difference == 0:
            return None
        return self.second if self.difference > 0 else self.first

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "better": self.better}


def compare_pairs(scores: Mapping[str, Sequence[float]], seed: int = 0) -> list[Pair]:
    """Every pair of models. `scores`: of each model, one of each image, 0 to 1, in the same order of images.

    Scores that are all 0 or 1 are compared by McNemar's exact test, others by flipping signs of the differences.
    All pairs of one call are one family for Holm's correction.
    """
    columns = {name: np.asarray(values, float) for name, values in scores.items()}
    names = list(combinations(columns, 2))
    found = []
    for first, second in names:
        differences = columns[second] - columns[first]
        binary = bool(np.isin(columns[first], (0, 1)).all() and np.isin(columns[second], (0, 1)).all())
        if binary:
            gains, losses = int((differences > 0).sum()), int((differences < 0).sum())
            p, test = mcnemar(gains, losses), "McNemar, exact"
            smallest = smallest_share(len(differences), gains + losses, ALPHA / len(names))
        else:
            p, test = sign_flips(differences, seed), "sign flips"
            smallest = smallest_mean(differences, ALPHA / len(names))
        low, high = interval(differences, seed)
        found.append((first, second, float(differences.mean()), low, high, p, test, smallest))
    adjusted = holm([row[5] for row in found])
    return [
        Pair(first=a, second=b, difference=d, low=low, high=high, p=p, adjusted=q, test=test, smallest=smallest)
        for (a, b, d, low, high, p, test, smallest), q in zip(found, adjusted, strict=True)
    ]


def mcnemar(gains: int, losses: int) -> float:
    """Two-sided p of McNemar's exact test: images that only the second model, and that only the first, got right.

    Where both models are equally good, each such image is a toss of a coin.
    """
    tosses, rarer = gains + losses, min(gains, losses)
    ways, total = 1, 0
    for k in range(rarer + 1):
        total += ways
        ways = ways * (tosses - k) // (k + 1)
    return min(1.0, 2 * total / (1 << tosses))  # whole numbers until here, of any size


def sign_flips(differences: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of Fisher's randomisation test: where models are alike, a difference may as well have the other
    sign. All signs are tried for up to 13 images, 10,000 at random for more."""
    known = differences[differences != 0]
    if not len(known):
        return 1.0
    reached = abs(known.sum()) * (1 - 1e-12)
    if len(known) <= 13:
        signs = 1.0 - 2.0 * (np.arange(1 << len(known))[:, None] >> np.arange(len(known)) & 1)
        return float((np.abs(signs @ known) >= reached).mean())
    rng, extreme = np.random.default_rng(seed), 1  # the signs as they came are one of the draws
    for count in _blocks(_FLIPS, len(known)):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (count, len(known)))
        extreme += int((np.abs(signs @ known) >= reached).sum())
    return extreme / (_FLIPS + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: chances of any false "better" among all tests stay below ALPHA."""
    adjusted, least = [0.0] * len(ps), 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, (len(ps) - rank) * ps[at]))
        adjusted[at] = least
    return adjusted


def score_interval(scores: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95% interval of one model's mean score. Of right and wrong answers alone it is Wilson's, which knows that a
    model without a mistake may make one yet; else the bootstrap's."""
    images, mean = len(scores), float(scores.mean())
    if not np.isin(scores, (0, 1)).all():
        return interval(scores, seed)
    z = NormalDist().inv_cdf(1 - ALPHA / 2)
    half = z * math.sqrt(mean * (1 - mean) / images + z**2 / (4 * images**2))
    middle, share = mean + z**2 / (2 * images), 1 + z**2 / images
    return max(0.0, (middle - half) / share), min(1.0, (middle + half) / share)


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95% bootstrap interval of a mean over images: of scores, or of differences between two models."""
    low, high = intervals(np.asarray(values, float)[:, None], seed)
    return float(low[0]), float(high[0])


def intervals(values: np.ndarray, seed: int = 0, resamples: int = _RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """(images, columns) → lower and upper ends (columns). Images are drawn with replacement, the same for all columns.

    Resampled means spread by a factor of √((n - 1) / n) too little, which is made good.
    """
    images, columns = values.shape
    mean = values.mean(axis=0)
    if images < 2:
        return np.full(columns, -np.inf), np.full(columns, np.inf)
    rng, blocks = np.random.default_rng(seed), []
    for count in _blocks(resamples, images):
        drawn = rng.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images)  # each image, in a resample
        blocks.append(times @ values / images)
    ends = np.quantile(np.concatenate(blocks), (ALPHA / 2, 1 - ALPHA / 2), axis=0)
    low, high = mean + (ends - mean) * math.sqrt(images / (images - 1))
    return low, high


def smallest_share(images: int, discordant: int, alpha: float) -> float:
    """The least difference in accuracy that McNemar's test shows, where the models disagree on
    `discordant` images; above 1 where no answers could show one."""
    while mcnemar(discordant, 0) > alpha:  # even if all spoke for one model
        discordant += 1
    losses = discordant // 2
    while mcnemar(discordant - losses, losses) > alpha:
        losses -= 1
    return (discordant - 2 * losses) / images


def smallest_mean(differences: np.ndarray, alpha: float) -> float:
    """The least mean difference that shows, where differences spread as these do."""
    if len(differences) < 2:
        return math.inf
    return NormalDist().inv_cdf(1 - alpha / 2) * float(differences.std(ddof=1)) / math.sqrt(len(differences))


def tie_groups(means: Mapping[str, float], pairs: Sequence[Pair]) -> list[list[str]]:
    """Models, best first, in groups within which no difference is shown. A model may be in two groups: it differs
    neither from the one above nor from the one below, which differ from each other."""
    apart = {frozenset((pair.first, pair.second)) for pair in pairs if pair.better is not None}
    order = sorted(means, key=lambda name: -means[name])
    groups: list[list[str]] = []
    for start in range(len(order)):
        group: list[str] = []
        for name in order[start:]:
            if any(frozenset((name, other)) in apart for other in group):
                break
            group.append(name)
        if not groups or group[-1] not in groups[-1]:  # else the group above holds all of it
            groups.append(group)
    return groups


def pareto(costs: Mapping[str, tuple[float, ...]]) -> set[str]:
    """Models that no other beats: none is as good or better in every number and better in one. Less is better."""

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    return {name for name, cost in costs.items() if not any(beats(other, cost) for other in costs.values())}


def _blocks(total: int, width: int) -> list[int]:
    """Sizes of blocks of rows of that width which are drawn together."""
    most = max(1, _CELLS // max(width, 1))
    return [min(most, total - done) for done in range(0, total, most)]
