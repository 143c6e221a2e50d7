"""Pictures and texts as unit vectors of one space."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.codec.images import ImageSource
from rebus.codec.text import Prompt
from rebus.core.errors import UsageError
from rebus.tasks.batches import in_batches
from rebus.tasks.items import many_images, many_texts
from rebus.tasks.model import TaskModel, batch_size, on_device


def embed_images(model: TaskModel, images: Any) -> Tensor:
    """Unit vectors (n, d) float32 on the CPU, also of a single picture. Raises what `open_image` raises."""
    pictures, _ = many_images(images)
    if not pictures:
        raise UsageError("no pictures were given: there is nothing to embed")
    size = batch_size(model, cpu=32, accelerator=128)
    return torch.stack(in_batches(pictures, lambda batch: _see(model, batch), size=size, what="pictures"))


def embed_texts(model: TaskModel, texts: str | Sequence[str]) -> Tensor:
    """Unit vectors (n, d) float32 on the CPU, also of a single text."""
    words, _ = many_texts(texts)
    if not words:
        raise UsageError("no texts were given: there is nothing to embed")
    return text_vectors(model, words)


def text_vectors(model: TaskModel, texts: Sequence[Prompt]) -> Tensor:
    """(n, d). Texts of like length are read together, since a batch is as long as its longest."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    size = batch_size(model, cpu=64, accelerator=512)
    rows = in_batches(
        [texts[i] for i in order], lambda batch: read(model, batch), size=size, what="texts", numbers=order
    )
    vectors = torch.empty(len(texts), rows[0].shape[0])
    vectors[order] = torch.stack(rows)
    return vectors


def read(model: TaskModel, texts: Sequence[Prompt]) -> list[Tensor]:
    """The vectors of one batch of texts."""
    batch = on_device(model, model.processor(texts=list(texts)))
    with torch.inference_mode():
        return list(_unit(model.network.embed_text(**batch)))


def _see(model: TaskModel, images: Sequence[ImageSource]) -> list[Tensor]:
    batch = on_device(model, model.processor(images=list(images)))
    with torch.inference_mode():
        return list(_unit(model.network.embed_image(**batch)))


def _unit(vectors: Tensor) -> Tensor:
    """float32 on the CPU; of unit length again after half precision."""
    return F.normalize(vectors.float(), dim=-1).cpu()
