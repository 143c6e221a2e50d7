"""How well every image goes with every text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from rebus.tasks.embed import Comparison, has_sigmoid, scaled
from rebus.tasks.task_model import TaskModel


def match(model: TaskModel, images: Any, texts: str | Sequence[str]) -> Tensor:
    """Cosine similarities (images, texts) float32, also of a single image or text. Higher is more alike."""
    compare = Comparison(model)
    return compare.scores(compare.images(images), compare.texts(texts))


def logits(model: TaskModel, images: Any, texts: str | Sequence[str]) -> Tensor:
    """The model's own scores (images, texts) float32: cosines times its scale, plus its bias where it has one.

    They are what the reference libraries call `logits_per_image`.
    """
    return scores(model, images, texts).logits


def probabilities(model: TaskModel, images: Any, texts: str | Sequence[str]) -> Tensor:
    """(images, texts) float32. Of a model trained with a sigmoid (SigLIP) each pair's own, whatever else is asked;
    of one trained with a softmax (CLIP) they sum to 1 over the texts."""
    return scores(model, images, texts).probabilities


class Scores(NamedTuple):
    """The same pairs three times, each (images, texts) float32."""

    cosines: Tensor
    logits: Tensor
    probabilities: Tensor


def scores(model: TaskModel, images: Any, texts: str | Sequence[str]) -> Scores:
    """`match`, `logits` and `probabilities` of images and texts that are read once."""
    cosines = match(model, images, texts)
    found = scaled(model, cosines)
    return Scores(cosines, found, found.sigmoid() if has_sigmoid(model) else found.softmax(dim=1))
