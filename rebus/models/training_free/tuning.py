"""How to set k and p: what descriptions have in common, and which setting finds the right partner most often.

k goes with the number of pairs: at a fixed k more pairs make each neighbourhood smaller, until the descriptions of a
image and of its caption no longer meet and scores are exactly 0. A larger p counts far pairs less, like a smaller k,
without losing common ground.
"""

import logging
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from rebus.core.errors import UsageError
from rebus.models.training_free.anchors import Nearest
from rebus.models.training_free.pairs import Pairs
from rebus.models.training_free.relative import relative, score

log = logging.getLogger("rebus")
_SCALES = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0, 150.0)
ENOUGH = 10  # shared pairs, on average; below, scores rest on too little


class Overlap(NamedTuple):
    """Of all images with all texts: pairs that both descriptions keep, on average, and the share of zero scores."""

    mean_shared: float
    zero_scores: float


class Trial(NamedTuple):
    """One setting: how often the right text comes first for an image, and the right image for a text."""

    k: int
    p: float
    image_to_text: float
    text_to_image: float
    overlap: Overlap


def overlap(pairs: Pairs, image: Float[Tensor, "B D"], text: Float[Tensor, "T E"]) -> Overlap:
    """Report on vectors of the two encoders; logs a warning when the common ground is thin."""
    seen, read = pairs.nearest_images(image), pairs.nearest_texts(text)
    found = _overlap(seen, read, len(pairs.kept))
    if found.mean_shared < ENOUGH:
        log.warning(
            "images and texts share %.1f pairs on average and %.0f%% of the scores are 0; a larger k than %d helps",
            found.mean_shared,
            100 * found.zero_scores,
            pairs.k,
        )
    return found


def tune(
    pairs: Pairs,
    image: Float[Tensor, "B D"],
    text: Float[Tensor, "T E"],
    *,
    ks: Sequence[int] = (50, 100, 200, 400, 800),
    ps: Sequence[float | int] = (1, 2, 4, 6, 8),
) -> list[Trial]:
    """Every setting, best first, on images and texts that belong together row by row and are no pairs of the table.

    One search serves all settings. Raises `UsageError` where rows do not match.
    """
    if len(image) != len(text) or not len(image):
        raise UsageError(f"tuning needs images and texts row by row; got {len(image)} and {len(text)}")
    ks = sorted({min(k, len(pairs)) for k in ks})
    seen, read = pairs.nearest_images(image, ks[-1]), pairs.nearest_texts(text, ks[-1])
    trials = []
    for k in ks:
        images, texts = (Nearest(n.similarity[:, :k], n.at[:, :k].contiguous()) for n in (seen, read))
        common = _overlap(images, texts, len(pairs.kept))
        for p in ps:
            scores = score(pairs.relative(images, p), pairs.relative(texts, p))
            trials.append(Trial(k, float(p), _first(scores), _first(scores.T), common))
    return sorted(trials, key=lambda t: -(t.image_to_text + t.text_to_image))


class Choice(NamedTuple):
    """What cross-validation found: the trials, best first, and the scale that makes the best one's probabilities most
    likely."""

    trials: list[Trial]
    scale: float


def cross_validate(
    image: Float[Tensor, "N D"],
    text: Float[Tensor, "N E"],
    groups: Int[Tensor, "N"],
    *,
    folds: int = 3,
    queries: int = 100,
    ks: Sequence[int] = (25, 50, 100, 200, 400, 800, 1600),
    ps: Sequence[float | int] = (1, 2, 4, 6, 8, 12),
    tick: Callable[[], None] = lambda: None,
) -> Choice:
    """k and p for pairs, chosen on the pairs alone: those of some images are held out in turn, and `queries` of them
    look for each other among the rest.

    `groups`: the image of each pair, so that no image with several captions is on both sides; random, but always the
    same one. `tick` is called after each fold. Raises `UsageError` for fewer images than twice the folds.
    """
    images = groups.unique()
    if len(images) < 2 * folds:
        raise UsageError(f"{folds} folds need {2 * folds} images at least; got {len(images)}. State k and p instead")
    fold_of = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)) % folds
    rank = torch.searchsorted(images, groups)
    first = torch.full((len(images),), len(groups)).scatter_reduce(0, rank, torch.arange(len(groups)), "amin")
    found: dict[tuple[int, float], list[Trial]] = {}
    held: list[tuple[Pairs, Tensor, Tensor]] = []
    for fold in range(folds):
        rest = fold_of[rank] != fold
        asked = first[fold_of == fold][:queries]
        pairs = Pairs.of(image[rest], text[rest])
        held.append((pairs, image[asked], text[asked]))
        smallest = int((fold_of != fold).sum())  # the same settings in each fold, however many captions there are
        for trial in tune(*held[-1], ks=[k for k in ks if k <= smallest] or [smallest], ps=ps):
            found.setdefault((trial.k, trial.p), []).append(trial)
        tick()
    means = [_mean(trials) for trials in found.values() if len(trials) == folds]
    best = sorted(means, key=lambda t: -(t.image_to_text + t.text_to_image))
    return Choice(best, _likeliest_scale([p.with_settings(k=best[0].k, p=best[0].p)(i, t) for p, i, t in held]))


def _mean(trials: Sequence[Trial]) -> Trial:
    """Of the same setting in several folds."""

    def of(values: Iterable[float]) -> float:
        return statistics.fmean(values)

    shared = Overlap(of(t.overlap.mean_shared for t in trials), of(t.overlap.zero_scores for t in trials))
    return Trial(
        trials[0].k, trials[0].p, of(t.image_to_text for t in trials), of(t.text_to_image for t in trials), shared
    )


def _likeliest_scale(scores: Sequence[Tensor]) -> float:
    """Among those that are tried, the one by which the right texts have the highest likelihood."""

    def loss(scale: float) -> float:
        return sum(float(F.cross_entropy(scale * s, torch.arange(len(s), device=s.device))) for s in scores)

    return min(_SCALES, key=loss)


def _first(scores: Tensor) -> float:
    """Share of rows whose own column is above all others."""
    right = scores.diagonal()[:, None]
    return float(((scores >= right).sum(1) == 1).float().mean())


def _overlap(seen: Nearest, read: Nearest, width: int) -> Overlap:
    """Counted as scores of ones, so that memory follows k."""
    images, texts = (relative(Nearest((n.similarity > 0).double(), n.at), 1.0, width) for n in (seen, read))
    rows, columns = ((n.similarity > 0).sum(1).double().sqrt() for n in (seen, read))
    shared = score(images, texts).double() * rows[:, None] * columns
    return Overlap(float(shared.mean()), float((shared < 0.5).double().mean()))
