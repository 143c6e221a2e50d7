"""How well every image goes with every text."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rebus.tasks.batching import AS_IT_SUITS, BatchOptions
from rebus.tasks.embed import Comparison
from rebus.tasks.task_model import TaskModel


def match(model: TaskModel, images: Any, texts: str | Sequence[str], *, batching: BatchOptions = AS_IT_SUITS) -> Tensor:
    """Cosine similarities (images, texts) float32, also of a single image or text. Higher is more alike.

    Rows of NaN for images that are skipped.
    """
    return Matcher(model, texts)(images, batching)


class Matcher:
    """`match` in two parts: the texts are embedded once, then any number of calls score images against them."""

    def __init__(self, model: TaskModel, texts: str | Sequence[str]):
        self._compare = Comparison(model)
        self._texts = self._compare.texts(texts)

    def __call__(self, images: Any, batching: BatchOptions = AS_IT_SUITS) -> Tensor:
        return self._compare.scores(self._compare.images(images, batching), self._texts)
