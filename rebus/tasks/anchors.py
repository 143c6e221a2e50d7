"""Models whose scores are sums over anchors: explain a score, and edit the anchors. Nothing is trained: an anchor that
is added, removed or reweighted takes effect at once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rebus.codec.images import ImageSource
from rebus.core.capabilities import HasAnchors
from rebus.core.errors import BadText, UnsupportedTask, UsageError
from rebus.core.finite import check_finite
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.task_model import TaskModel, batch_size, on_device, one_report

SENTENCE = "a photo of {}"  # what a taught word is put into


class Explanation(NamedTuple):
    """The `score` of an image and a text as a sum: `anchors`, largest `contribution` first.

    Each anchor has `id`, `caption`, `image_similarity`, `text_similarity`, `contribution` and `weight`.
    """

    score: float
    anchors: list[Any]


def explain(model: TaskModel, image: ImageSource, text: str) -> Explanation:
    """All anchors that are similar to both the image and the text. Raises `UnsupportedTask` for a model without
    anchors.
    """
    network = _with_anchors(model)
    batch = on_device(model, model.processor(images=[image], texts=[text]))
    with torch.inference_mode():
        score = network.score(
            network.image_vectors(batch["pixels"]), network.text_vectors(batch["tokens"], batch["mask"])
        )
        anchors = network.explain(**batch, top=None)
    return Explanation(float(score), anchors)


def add_anchors(
    model: TaskModel,
    images: Sequence[ImageSource],
    captions: Sequence[str],
    ids: Sequence[str],
    *,
    batching: BatchOptions = AS_IT_SUITS,
) -> None:
    """One anchor for each image with its caption. Raises `UsageError` for numbers that differ or an id that is taken,
    and what reading images and texts raises, changing nothing."""
    if not len(images) == len(captions) == len(ids) or not len(images):
        raise UsageError(f"an image, a caption and an id each; got {len(images)}, {len(captions)} and {len(ids)}")
    network = _with_anchors(model)
    network.add_anchors(image_vectors(model, images, batching), text_vectors(model, captions, batching), ids, captions)


def remove_anchors(model: TaskModel, ids: Sequence[str]) -> None:
    """Remove anchors: later scores are as if they had never been added. Raises `UnknownName`, changing nothing."""
    _with_anchors(model).remove_anchors(list(ids))


def weigh_anchors(model: TaskModel, ids: Sequence[str], weight: float | int) -> None:
    """Reweight anchors: each counts as `weight` copies. Raises `UnknownName`, `UsageError`, changing nothing."""
    _with_anchors(model).weigh_anchors(list(ids), weight)


def teach(
    model: TaskModel,
    word: str,
    images: Sequence[ImageSource],
    ids: Sequence[str] | None = None,
    *,
    against: Sequence[ImageSource] = (),
    batching: BatchOptions = AS_IT_SUITS,
) -> list[str]:
    """Add a class from some images of it; returns the ids of its anchors, by which it can be removed.

    `ids`: of the images; by default the word with their numbers. A model whose anchors are classes of a classifier
    gets one more class, by the first id; `against`, images of other things from where the model will be used, improve
    it: their mean is subtracted. Raises `BadText` for an empty word, `UsageError` without images.
    """
    if not word.strip():
        raise BadText("the name of the class is empty")
    if not len(images):
        raise UsageError(f'"{word}" is learned from images of it; got none')
    network = _with_anchors(model)
    names = [f"{word}#{number}" for number in range(len(images))] if ids is None else list(ids)
    caption = SENTENCE.format(word)
    text = text_vectors(model, [caption, word], batching).mean(0)
    others = image_vectors(model, against, batching) if len(against) else None
    return list(network.teach(image_vectors(model, images, batching), text, names, caption, others))


def image_vectors(model: TaskModel, images: Sequence[ImageSource], batching: BatchOptions = AS_IT_SUITS) -> Tensor:
    """(n, D) outputs of the image encoder. Raises `NotFinite` for NaN."""

    def see(batch: Sequence[ImageSource]) -> list[Tensor]:
        pixels = on_device(model, model.processor(images=list(batch)))["pixels"]
        with torch.inference_mode():
            return _rows(_with_anchors(model).image_vectors(pixels), "images[{}]")

    size = batch_size(model, cpu=16, accelerator=128)
    return torch.stack(in_batches(list(images), see, size=size, what="images", options=batching))


def text_vectors(model: TaskModel, texts: Sequence[str], batching: BatchOptions = AS_IT_SUITS) -> Tensor:
    """(n, E) outputs of the text encoder. Raises `NotFinite` for NaN."""

    def read(batch: Sequence[str]) -> list[Tensor]:
        inputs = on_device(model, model.processor(texts=list(batch)))
        with torch.inference_mode():
            return _rows(_with_anchors(model).text_vectors(**inputs), "text {}")

    size = batch_size(model, cpu=64, accelerator=512)
    with one_report(model):
        return torch.stack(in_batches(list(texts), read, size=size, what="texts", options=batching))


def _rows(vectors: Tensor, what: str) -> list[Tensor]:
    check_finite(vectors, what, vectors.dtype)
    return list(vectors.float())


def _with_anchors(model: TaskModel) -> Any:
    if not isinstance(model.network, HasAnchors):
        raise UnsupportedTask(f"{model.system.name} has no anchors; models made by `rebus asif build` have")
    return model.network
