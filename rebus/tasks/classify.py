"""Zero-shot classification.

A dual encoder compares the image with prompts for each label (Radford et al., 2021, sec. 3.1); a generative model
gives the likelihood of each label as its answer.
"""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.codec.images import ImageSource
from rebus.core.answers import Ranking
from rebus.core.capabilities import EmbedsImages, EmbedsText, WritesText
from rebus.core.errors import BadText, MissingFile, UnsupportedTask, UsageError
from rebus.core.labels import IGNORED
from rebus.core.limits import check
from rebus.generation import score_choices
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.embed import Comparison, has_sigmoid, scaled
from rebus.tasks.few_shot import Shots, shots_of
from rebus.tasks.inputs import many_images
from rebus.tasks.prompts import SETS, fill, templates_of
from rebus.tasks.task_model import TaskModel, batch_size, one_report, prompt_for
from rebus.tasks.text_generation import inputs

log = logging.getLogger("rebus")


def classify(
    model: TaskModel,
    images: Any,
    labels: Sequence[str],
    templates: str | Sequence[str] | None = None,
    multi: bool = False,
    *,
    examples: Any = None,
    orders: int = 1,
    batching: BatchOptions = AS_IT_SUITS,
) -> Ranking | list[Ranking]:
    """All labels with their probabilities, best first, for each image.

    `templates`: prompts with `{}` for the label, or the name of a published set ("imagenet", "cifar10", …); None: the
    system's own if it has any, otherwise the label itself. Labels that tokenize identically (CLIP: "Dog", "dog ") are
    merged and logged.
    Probabilities sum to 1 over the labels, but those of a dual encoder with a sigmoid (SigLIP) are each label's own
    when there is a single label, or with `multi`, which other models refuse.
    `examples`: few-shot examples (image, label) for a generative model, or the `Shots` made of them. A label is then
    scored by the mean log-probability of its tokens, averaged over `orders` random orders of the examples.
    Raises `UsageError` for no labels, `BadText` for an empty one, `LimitExceeded` above MAX_LABELS.
    """
    return Classifier(model, labels, templates, multi, examples=examples, orders=orders).rank(images, batching)


class Classifier:
    """`classify` for a fixed set of labels: they are encoded once, for any number of calls on images."""

    def __init__(
        self,
        model: TaskModel,
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
        multi: bool = False,
        *,
        examples: Any = None,
        orders: int = 1,
    ):
        if isinstance(orders, bool) or not isinstance(orders, int) or orders < 1:
            raise UsageError(f"orders: expected a whole number above 0; got {orders!r}")
        self.model = model
        shots = shots_of(model, "classify", examples)
        self.shots = None if shots is None else shots.orders(orders)
        text = model.processor.text
        self.labels = distinct(labels, str.strip if text is None else lambda label: text.prepare(label.strip()))
        network = model.network
        self.compares = isinstance(network, EmbedsImages) and isinstance(network, EmbedsText)
        judges = self.compares and has_sigmoid(model)
        if multi and not judges:
            raise UsageError(f"multi: {model.system.name} compares labels with one another; a sigmoid model is wanted")
        self.apart = judges and (multi or len(self.labels) == 1)
        if self.compares:
            sentences = templates_of(templates or model.system.prompts.classify or "plain")
            average = getattr(network, "averages_templates", True) and len(sentences) > 1
            self.weights = label_vectors(model, self.labels, sentences, average)
        elif isinstance(network, WritesText):
            sentences = templates_of(templates or "plain")
            texts = [fill(text, label) for label in self.labels for text in sentences]
            self.choices = answer_tokens(model, texts, ends=self.shots is None)
        else:
            raise UnsupportedTask(
                f"{model.system.name} neither embeds images and text nor generates text: it cannot classify"
            )

    def __call__(self, images: Any, **options: Any) -> Any:
        """A `Ranking` for one image, a list of them for many. Options: `batch_size`, `progress`, `on_error`."""
        return self.rank(images, BatchOptions(**options))

    def rank(self, images: Any, batching: BatchOptions = AS_IT_SUITS) -> Any:
        """The same, with the options as one object."""
        sources, many = many_images(images)
        if not sources:
            return []
        if self.compares:
            scores = _compare(self.model, sources, self.weights, batching)
        else:
            scores = _likelihood(self.model, sources, self.choices, len(self.labels), self.shots, batching)
        answers = [None if row is None else _ranking(self.labels, row, self.apart) for row in scores]
        return answers if many else answers[0]

    def probabilities(self, vectors: Tensor) -> Tensor:
        """(images, labels) float32 from the vectors (images, E) of a dual encoder, which need not see images."""
        logits = _logits(self.model, vectors, self.weights)
        return logits.sigmoid() if self.apart else logits.softmax(dim=-1)


def distinct(labels: Sequence[str], read: Callable[[str], str] = str.strip) -> list[str]:
    """The labels in order, each once. Raises for what cannot be ranked.

    Labels are equal that a model reads as the same text (`read`): the first spelling stays, the others are logged.
    """
    if isinstance(labels, str):
        raise UsageError(f"labels expects a list; got the text {labels[:60]!r}. For a single label: [label]")
    labels = list(labels)
    if not labels:
        raise UsageError("labels is empty: give at least one")
    check("MAX_LABELS", len(labels), "labels")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise BadText(f"labels[{index}] must be a text that is not empty; got {label!r}")
    spellings: dict[str, list[str]] = {}
    for label in labels:
        spellings.setdefault(read(label), []).append(label)
    several = [list(dict.fromkeys(found)) for found in spellings.values() if len(found) > 1]
    twice = [found[0] if len(found) == 1 else " = ".join(map(repr, found)) for found in several]
    if twice:
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        log.warning("labels given more than once are merged: %s%s", ", ".join(twice[:5]), more)
    return [found[0] for found in spellings.values()]


def _ranking(labels: Sequence[str], scores: Tensor, apart: bool) -> Ranking:
    scores = scores.double()
    probabilities, order = (scores.sigmoid() if apart else scores.softmax(dim=-1)).sort(descending=True, stable=True)
    return Ranking(tuple(labels[i] for i in order.tolist()), tuple(probabilities.tolist()))


def label_vectors(model: TaskModel, labels: Sequence[str], templates: Sequence[str], average: bool) -> Tensor:
    """(C, E): each label the mean direction of its sentences, of unit length again; or (C, T, E): they stay apart."""
    compare = Comparison(model)

    def weigh(batch: Sequence[str]) -> list[Tensor]:
        vectors = compare.batch_of_texts([fill(template, label) for label in batch for template in templates])
        vectors = vectors.unflatten(0, (len(batch), len(templates)))
        return list(F.normalize(vectors.mean(dim=1), dim=-1) if average else vectors)

    size = max(1, batch_size(model, cpu=64, accelerator=512) // len(templates))
    order = sorted(range(len(labels)), key=lambda i: len(labels[i]))  # a batch is as long as its longest text
    published = tuple(templates) in SETS.values()
    with one_report(model, re.sub(r"{.*?}", " ", " ".join(templates)) if published else ""):
        found = in_batches([labels[i] for i in order], weigh, size=size, what="labels")
    weights = torch.empty(len(labels), *found[0].shape)
    weights[order] = torch.stack(found)
    return weights


def _compare(
    model: TaskModel, images: list[ImageSource], weights: Tensor, batching: BatchOptions
) -> list[Tensor | None]:
    """(C,) logits of a dual encoder for each image. Of sentences that stay apart, the best speaks for its label."""
    vectors = Comparison(model).images(images, batching)
    skipped = vectors.isnan().any(dim=1).tolist() if batching.on_error == "skip" else [False] * len(images)
    logits = _logits(model, vectors, weights)
    return [None if skip else row for skip, row in zip(skipped, logits, strict=True)]


def _logits(model: TaskModel, vectors: Tensor, weights: Tensor) -> Tensor:
    """(images, C), scale and bias included."""
    logits = Comparison(model).scores(vectors, weights.flatten(0, -2))
    if weights.dim() == 3:
        logits = logits.unflatten(1, weights.shape[:2]).amax(dim=2)
    return scaled(model, logits)


def _likelihood(
    model: TaskModel,
    images: list[ImageSource],
    choices: Tensor,
    num_labels: int,
    shots: list[Shots] | None,
    batching: BatchOptions,
) -> list[Tensor | None]:
    """(C,) log-likelihoods of the labels after the system's prompt; of several sentences, their mean likelihood. After
    examples, of the mean token, averaged over the orders of these."""
    prompt, choices = prompt_for(model, "classify"), choices.to(model.device)

    every: Sequence[Shots | None] = shots or [None]

    def score(batch: Sequence[ImageSource], one: Shots | None) -> Tensor:
        pairs = [(image, prompt) for image in batch]
        taken = inputs(model, pairs) if one is None else one.inputs(pairs)
        total, length = score_choices(model.network, taken, choices, rows_at_once=16 * len(batch))
        return total if one is None else total / length

    def weigh(batch: Sequence[ImageSource]) -> list[Tensor]:
        total = torch.stack([score(batch, one) for one in every]).mean(dim=0)
        return list(total.unflatten(1, (num_labels, -1)).logsumexp(dim=2).cpu())

    size = batch_size(model, cpu=4, accelerator=16)
    return in_batches(images, weigh, size=size, what="images", options=batching)


def answer_tokens(model: TaskModel, texts: Sequence[str], ends: bool = True) -> Tensor:
    """(C, S) ids of the answers, the end token last unless not `ends`, padded with -100. Control tokens stay plain
    text."""
    text = model.processor.text
    if text is None:
        raise MissingFile(f"this checkpoint has no {model.processor.text_missing}, without which it cannot read labels")
    end = [text.spec.eos_id] if ends and text.spec.eos_id is not None else []
    rows = [ids + end for ids in text.tokenizer.encode_batch([text.prepare(one) for one in texts])]
    longest = max(map(len, rows))
    if longest > text.spec.context:  # never cut: labels that begin alike would become the same answer
        label = texts[next(i for i, row in enumerate(rows) if len(row) == longest)]
        raise BadText(f"the label {label[:40]!r}… has {longest:,} tokens, the context holds {text.spec.context:,}")
    return torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows])
