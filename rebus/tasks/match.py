"""Similarity of every image with every text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from rebus.core.capabilities import MatchesPairs
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions
from rebus.tasks.embed import Comparison, has_sigmoid, scaled
from rebus.tasks.pair_matching import PairMatcher
from rebus.tasks.task_model import TaskModel


class Scores(NamedTuple):
    """Scores of all pairs in three forms, each (images, texts) float32; rows of NaN for images that are skipped.
    `cosines`: cosine similarities. `logits`: cosines times the model's scale, plus its bias where it has one, called
    `logits_per_image` by the reference libraries. `probabilities`: of a model trained with a sigmoid (SigLIP) each
    pair's own, whatever else is asked; of one trained with a softmax (CLIP) they sum to 1 over the texts. A network
    that reads image and text together (`MatchesPairs`) has no cosines: there `cosines` are its probabilities, and
    `logits` their log-odds.
    """

    cosines: Tensor
    logits: Tensor
    probabilities: Tensor


class Matcher:
    """`match` for a fixed set of texts: they are encoded once, for any number of calls on images."""

    def __init__(self, model: TaskModel, texts: str | Sequence[str]):
        self._model = model
        self._pairs = PairMatcher(model, texts) if isinstance(model.network, MatchesPairs) else None
        if self._pairs is None:
            self._compare = Comparison(model)
            self._texts = self._compare.texts(texts)

    def cosines(self, images: Any, batching: BatchOptions = AS_IT_SUITS) -> Tensor:
        """(images, texts) float32, also of a single image or text."""
        if self._pairs is not None:
            return self._pairs.log_odds(images, batching).sigmoid()
        return self._compare.scores(self._compare.images(images, batching), self._texts)

    def scores(self, images: Any, batching: BatchOptions = AS_IT_SUITS) -> Scores:
        """All three scores."""
        if self._pairs is not None:
            log_odds = self._pairs.log_odds(images, batching)
            return Scores(log_odds.sigmoid(), log_odds, log_odds.sigmoid())
        cosines = self.cosines(images, batching)
        logits = scaled(self._model, cosines)
        return Scores(cosines, logits, logits.sigmoid() if has_sigmoid(self._model) else logits.softmax(dim=1))


def match(model: TaskModel, images: Any, texts: str | Sequence[str], *, batching: BatchOptions = AS_IT_SUITS) -> Tensor:
    """`Scores.cosines`."""
    return Matcher(model, texts).cosines(images, batching)


def logits(
    model: TaskModel, images: Any, texts: str | Sequence[str], *, batching: BatchOptions = AS_IT_SUITS
) -> Tensor:
    """`Scores.logits`."""
    return Matcher(model, texts).scores(images, batching).logits


def probabilities(
    model: TaskModel, images: Any, texts: str | Sequence[str], *, batching: BatchOptions = AS_IT_SUITS
) -> Tensor:
    """`Scores.probabilities`."""
    return Matcher(model, texts).scores(images, batching).probabilities
