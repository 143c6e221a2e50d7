"""How well every image goes with every text."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rebus.tasks.embed import Comparison
from rebus.tasks.task_model import TaskModel


def match(model: TaskModel, images: Any, texts: str | Sequence[str]) -> Tensor:
    """Cosine similarities (images, texts) float32, also of a single image or text. Higher is more alike."""
    compare = Comparison(model)
    return compare.scores(compare.images(images), compare.texts(texts))
