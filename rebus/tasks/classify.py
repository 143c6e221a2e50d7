"""Which of some labels fits a picture: zero-shot classification.

Two towers compare the picture with sentences about each label (Radford et al., 2021, sec. 3.1); a writer tells how
likely it would have written each label itself.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.codec.images import ImageSource
from rebus.codec.text import IGNORED
from rebus.core.answers import Ranking
from rebus.core.capabilities import EmbedsImages, EmbedsText, WritesText
from rebus.core.errors import BadText, MissingFile, UnsupportedTask, UsageError
from rebus.core.limits import check
from rebus.generation import score_choices
from rebus.tasks.batches import in_batches
from rebus.tasks.embed import embed_images, read
from rebus.tasks.items import many_images
from rebus.tasks.model import TaskModel, batch_size, on_device, words_for
from rebus.tasks.prompts import fill, templates_of

log = logging.getLogger("rebus")


def classify(
    model: TaskModel, images: Any, labels: Sequence[str], templates: str | Sequence[str] | None = None
) -> Ranking | list[Ranking]:
    """All labels with their probabilities, best first, for each picture.

    `templates`: sentences with `{}` where the label goes, or the name of a published set ("imagenet", "cifar10", …);
    None means the system's own, else the label as it is. Labels that occur twice are merged and logged.
    Raises `UsageError` for no labels, `BadText` for an empty one, `LimitExceeded` above MAX_LABELS.
    """
    names = distinct(labels)
    pictures, many = many_images(images)
    network = model.network
    if isinstance(network, EmbedsImages) and isinstance(network, EmbedsText):
        sentences = templates_of(templates or model.system.prompts.classify or "plain")
        scores = _compare(model, pictures, names, sentences) if pictures else torch.empty(0, len(names))
    elif isinstance(network, WritesText):
        scores = _likelihood(model, pictures, names, templates_of(templates or "plain"))
    else:
        raise UnsupportedTask(
            f"{model.system.name} neither compares pictures with words nor writes: it cannot classify"
        )
    answers = [_ranking(names, row) for row in scores]
    return answers if many else answers[0]


def distinct(labels: Sequence[str]) -> list[str]:
    """The labels in order, each once. Raises for what cannot be ranked."""
    if isinstance(labels, str):
        raise UsageError(f"labels wants a list; got the text {labels[:60]!r}. For a single label: [label]")
    labels = list(labels)
    if not labels:
        raise UsageError("labels is empty: give at least one")
    check("MAX_LABELS", len(labels), "labels")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise BadText(f"labels[{index}] must be a word or a phrase; got {label!r}")
    counts = Counter(labels)
    if len(counts) < len(labels):
        twice = [label for label, count in counts.items() if count > 1]
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        log.warning("labels given more than once are merged: %s%s", ", ".join(twice[:5]), more)
    return list(counts)


def _ranking(labels: Sequence[str], scores: Tensor) -> Ranking:
    probabilities, order = scores.double().softmax(dim=-1).sort(descending=True, stable=True)
    return Ranking(tuple(labels[i] for i in order.tolist()), tuple(probabilities.tolist()))


def _compare(model: TaskModel, images: list[ImageSource], labels: list[str], templates: Sequence[str]) -> Tensor:
    """(B, C) logits by two towers: each label is the mean direction of its sentences, made a unit vector again."""
    network = model.network
    pictures = embed_images(model, images)
    average = getattr(network, "averages_templates", True)

    def weigh(batch: Sequence[str]) -> list[Tensor]:
        sentences = [fill(template, label) for label in batch for template in templates]
        vectors = torch.stack(read(model, sentences)).view(len(batch), len(templates), -1)  # C T E
        return list(F.normalize(vectors.mean(dim=1), dim=-1) if average and len(templates) > 1 else vectors)

    size = max(1, batch_size(model, cpu=64, accelerator=512) // len(templates))
    order = sorted(range(len(labels)), key=lambda i: len(labels[i]))  # a batch is as long as its longest text
    found = in_batches([labels[i] for i in order], weigh, size=size, what="labels")
    weights = torch.empty(len(labels), *found[0].shape)
    weights[order] = torch.stack(found)
    # Where sentences are not averaged each stays a candidate, and the best one speaks for its label (ASIF).
    logits = (
        pictures @ weights.T
        if weights.dim() == 2
        else (pictures @ weights.flatten(0, 1).T).unflatten(1, weights.shape[:2]).amax(2)
    )
    log_scale = getattr(network, "log_scale", None)
    return logits if log_scale is None else logits * log_scale.detach().float().exp().cpu()


def _likelihood(model: TaskModel, images: list[ImageSource], labels: list[str], templates: Sequence[str]) -> Tensor:
    """(B, C) log-likelihoods of the labels after the system's prompt; of several sentences, their mean likelihood."""
    prompt = words_for(model, "classify")
    choices = _choices(model, [fill(template, label) for label in labels for template in templates]).to(model.device)
    size = batch_size(model, cpu=4, accelerator=16)

    def weigh(batch: Sequence[ImageSource]) -> list[Tensor]:
        inputs = on_device(model, model.processor(images=list(batch), texts=[prompt] * len(batch)))
        total = score_choices(model.network, inputs, choices, rows_at_once=16 * len(batch)).total
        return list(total.unflatten(1, (len(labels), len(templates))).logsumexp(dim=2).cpu())

    rows = in_batches(images, weigh, size=size, what="pictures")
    return torch.stack(rows) if rows else torch.empty(0, len(labels))


def _choices(model: TaskModel, texts: Sequence[str]) -> Tensor:
    """(C, S) ids of what would be written, the end token last, padded with -100. Control tokens stay plain text."""
    text = model.processor.text
    if text is None:
        raise MissingFile(f"this checkpoint has no {model.processor.text_missing}, without which it cannot read labels")
    end = [] if text.spec.eos_id is None else [text.spec.eos_id]
    rows = [ids + end for ids in text.tokenizer.encode_batch([text.prepare(one) for one in texts])]
    longest = max(map(len, rows))
    return torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows])
