"""Image and text embeddings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.codec.images import ImageSource
from rebus.codec.text import Prompt
from rebus.core.errors import RebusError, UsageError
from rebus.core.finite import check_finite
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.inputs import many_images, many_texts
from rebus.tasks.task_model import TaskModel, batch_size, on_device, one_report

See = Callable[..., Tensor]


def embed_images(model: TaskModel, images: Any, *, batching: BatchOptions = AS_IT_SUITS) -> Tensor:
    """Unit vectors (n, d) float32 on the CPU, also of a single image; rows of NaN for images that are skipped.

    Raises what `open_image` raises, also with `on_error="skip"` where not one image can be read.
    """
    return all_images(model, images, model.network.embed_image, batching=batching)


def embed_texts(model: TaskModel, texts: str | Sequence[str], *, batching: BatchOptions = AS_IT_SUITS) -> Tensor:
    """Unit vectors (n, d) float32 on the CPU, also of a single text; rows of NaN for texts that are skipped."""
    return _all_texts(model, texts, model.network.embed_text, batching=batching)


def embed_pixels(model: TaskModel, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """A unit vector (d,) float32 on the CPU for each image of a batch that `ImagePipeline` made. Raises `NotFinite`."""
    inputs = on_device(model, batch)
    with torch.inference_mode():
        return _rows(model.network.embed_image(**inputs), True, "images[{}]")


class Comparison:
    """How a network compares images with texts: `image` and `text` vectors first, then `scores` of all pairs.

    Mostly by the product of two unit vectors. A network whose space is too wide for that says `is_dense = False` and
    compares what its encoders give (`image_vectors`, `text_vectors`) itself, by `score`.
    """

    def __init__(self, model: TaskModel):
        network = model.network
        self.model, self.dense = model, getattr(network, "is_dense", True)
        self._read = network.embed_text if self.dense else network.text_vectors

    def images(self, images: Any, batching: BatchOptions = AS_IT_SUITS) -> Tensor:
        """(n, d) float32 on the CPU; rows of NaN for images that are skipped."""
        network = self.model.network
        see = network.embed_image if self.dense else network.image_vectors
        return all_images(self.model, images, see, unit=self.dense, batching=batching)

    def texts(self, texts: str | Sequence[str]) -> Tensor:
        """(n, d) float32 on the CPU."""
        return _all_texts(self.model, texts, self._read, unit=self.dense)

    def batch_of_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, d) of texts that are one batch."""
        return torch.stack(_texts(self.model, texts, self._read, self.dense))

    def scores(self, images: Tensor, texts: Tensor) -> Tensor:
        """(images, texts) float32, without the network's scale."""
        if self.dense:
            return images @ texts.T
        with torch.inference_mode():
            network, device = self.model.network, self.model.device
            return network.score(images.to(device), texts.to(device)).float().cpu()


def has_sigmoid(model: TaskModel) -> bool:
    """Whether the network learned to judge each pair for itself: then its scores are log-odds."""
    return model.system.objective == "sigmoid" or getattr(model.network, "bias", None) is not None


def scaled(model: TaskModel, cosines: Tensor) -> Tensor:
    """Cosines as the network scores them: times its scale, plus its bias."""
    with torch.inference_mode():
        scale, bias = (getattr(model.network, name, None) for name in ("scale", "bias"))
    found = cosines if scale is None else cosines * scale.float().cpu()
    return found if bias is None else found + bias.detach().float().cpu()


def all_images(
    model: TaskModel, images: Any, see: See, unit: bool = True, batching: BatchOptions = AS_IT_SUITS
) -> Tensor:
    sources, _ = many_images(images)
    if not sources:
        raise UsageError("no images were given: there is nothing to embed")

    def work(batch: Sequence[ImageSource]) -> list[Tensor]:
        inputs = on_device(model, model.processor(images=list(batch)))
        with torch.inference_mode():
            return _rows(see(**inputs), unit, "images[{}]")

    size = batch_size(model, cpu=32, accelerator=128)
    return _stacked(in_batches(sources, work, size=size, what="images", options=batching), "images")


def _all_texts(
    model: TaskModel,
    texts: str | Sequence[str],
    read: See,
    unit: bool = True,
    batching: BatchOptions = AS_IT_SUITS,
) -> Tensor:
    listed, _ = many_texts(texts)
    if not listed:
        raise UsageError("no texts were given: there is nothing to embed")
    order = sorted(range(len(listed)), key=lambda i: len(listed[i]))  # a batch is as long as its longest text
    size = batch_size(model, cpu=64, accelerator=512)
    with one_report(model):
        rows = in_batches(
            [listed[i] for i in order],
            lambda batch: _texts(model, batch, read, unit),
            size=size,
            what="texts",
            numbers=order,
            options=batching,
        )
    found = _stacked(rows, "texts")
    vectors = torch.empty_like(found)
    vectors[order] = found
    return vectors


def _stacked(rows: Sequence[Tensor | None], what: str) -> Tensor:
    """One row an item; NaN for those that were skipped, so that no number is taken for an answer."""
    found = next((row for row in rows if row is not None), None)
    if found is None:
        raise RebusError(f"not one of {len(rows)} {what} could be read, so that there is nothing to embed")
    nothing = torch.full_like(found, torch.nan)
    return torch.stack([nothing if row is None else row for row in rows])


def _texts(model: TaskModel, texts: Sequence[Prompt], read: See, unit: bool) -> list[Tensor]:
    inputs = on_device(model, model.processor(texts=list(texts)))
    with torch.inference_mode():
        return _rows(read(**inputs), unit, "text {}")


def _rows(vectors: Tensor, unit: bool, what: str) -> list[Tensor]:
    """float32 on the CPU; unit vectors are of unit length again after half precision."""
    check_finite(vectors, what, vectors.dtype)
    vectors = vectors.float()
    return list((F.normalize(vectors, dim=-1) if unit else vectors).cpu())
