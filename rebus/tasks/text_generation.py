"""What the tasks of writers share: images and prompts in, text out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rebus.codec.images import ImageSource
from rebus.codec.text import Prompt
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.generation import cut, score_tokens
from rebus.tasks.batching import in_batches
from rebus.tasks.task_model import TaskModel, batch_size, on_device

Pair = tuple[ImageSource, Prompt]


class Written(NamedTuple):
    """One answer: its text, its ids up to the end token, and the log-probability of each (empty if not asked for)."""

    text: str
    tokens: list[int]
    log_probabilities: list[float]


def write(
    model: TaskModel, pairs: Sequence[Pair], decoding: Mapping[str, Any], *, max_new_tokens: int
) -> list[Written]:
    """Answers to (image, prompt), in order. `max_new_tokens` holds where `decoding` says nothing else."""
    options = {"max_new_tokens": max_new_tokens, **decoding}
    seeds = options.get("seed")
    if not isinstance(seeds, list | tuple):
        return in_batches(
            pairs, lambda batch: write_batch(model, batch, options), size=writing_batch(model), what="images"
        )
    if len(seeds) != len(pairs):
        raise UsageError(f"seed wants one number, or one for each of the {len(pairs)} answers; got {len(seeds)}")

    def with_seeds(batch: Sequence[tuple[Pair, int]]) -> list[Written]:
        return write_batch(model, [pair for pair, _ in batch], {**options, "seed": [seed for _, seed in batch]})

    seeded = list(zip(pairs, seeds, strict=True))
    return in_batches(seeded, with_seeds, size=writing_batch(model), what="images")


def writing_batch(model: TaskModel) -> int:
    """How many answers are tried at once."""
    return batch_size(model, cpu=8, accelerator=32)


def write_batch(
    model: TaskModel, pairs: Sequence[Pair], options: Mapping[str, Any], *, likelihood: bool = False
) -> list[Written]:
    """One batch of answers; with `likelihood`, how probable each of their tokens was."""
    batch = inputs(model, pairs)
    heard: list[Tensor] = []
    listen = likelihood and options.get("strategy") != "beam"
    hook = {"on_token": lambda _, log_probability: heard.append(log_probability)} if listen else {}
    tokens = model.generate(**batch, **options, **hook)
    rows = [_until_end(row, model.endings()["eos_id"]) for row in tokens.tolist()]
    found: list[list[float]] = [[] for _ in rows]
    if listen:
        found = torch.stack(heard, dim=1).tolist()
    elif likelihood:  # beam search tells no probabilities: the answers are read again
        targets = torch.full_like(tokens, IGNORED)
        for index, row in enumerate(rows):
            targets[index, : len(row)] = tokens[index, : len(row)]
        found = score_tokens(model.network, batch, targets).tolist()
    texts = model.processor.decode(rows)
    return [
        Written(clean(text, options), row, logs[: len(row)]) for text, row, logs in zip(texts, rows, found, strict=True)
    ]


def inputs(model: TaskModel, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """What the network takes."""
    images, prompts = zip(*pairs, strict=True)
    return on_device(model, model.processor(images=list(images), texts=list(prompts)))


def clean(text: str, options: Mapping[str, Any]) -> str:
    """The answer without its stop string and the white space around it."""
    return cut(text, options.get("stop")).strip()


def _until_end(row: list[int], eos_id: int | None) -> list[int]:
    return row[: row.index(eos_id) + 1] if eos_id in row else row
