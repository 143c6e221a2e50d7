"""How well every picture goes with every text."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rebus.tasks.embed import embed_images, embed_texts
from rebus.tasks.model import TaskModel


def match(model: TaskModel, images: Any, texts: str | Sequence[str]) -> Tensor:
    """Cosine similarities (pictures, texts) float32, also of a single picture or text. Higher is more alike."""
    return embed_images(model, images) @ embed_texts(model, texts).T
