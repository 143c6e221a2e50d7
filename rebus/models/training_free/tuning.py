"""How to set k and p: what descriptions have in common, and which setting finds the right partner most often.

k goes with the number of pairs: at a fixed k more pairs make each neighbourhood smaller, until the descriptions of a
image and of its caption no longer meet and scores are exactly 0. A larger p counts far pairs less, like a smaller k,
without losing common ground.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from rebus.core.errors import UsageError
from rebus.models.training_free.anchors import Nearest
from rebus.models.training_free.pairs import Pairs
from rebus.models.training_free.relative import relative, score

log = logging.getLogger("rebus")
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
        pictures, texts = (Nearest(n.similarity[:, :k], n.at[:, :k].contiguous()) for n in (seen, read))
        common = _overlap(pictures, texts, len(pairs.kept))
        for p in ps:
            scores = score(pairs.relative(pictures, p), pairs.relative(texts, p))
            trials.append(Trial(k, float(p), _first(scores), _first(scores.T), common))
    return sorted(trials, key=lambda t: -(t.image_to_text + t.text_to_image))


def _first(scores: Tensor) -> float:
    """Share of rows whose own column is above all others."""
    right = scores.diagonal()[:, None]
    return float(((scores >= right).sum(1) == 1).float().mean())


def _overlap(seen: Nearest, read: Nearest, width: int) -> Overlap:
    """Counted as scores of ones, so that memory follows k."""
    pictures, texts = (relative(Nearest((n.similarity > 0).double(), n.at), 1.0, width) for n in (seen, read))
    rows, columns = ((n.similarity > 0).sum(1).double().sqrt() for n in (seen, read))
    shared = score(pictures, texts).double() * rows[:, None] * columns
    return Overlap(float(shared.mean()), float((shared < 0.5).double().mean()))
