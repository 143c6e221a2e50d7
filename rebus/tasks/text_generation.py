"""What the tasks of generative models share: images and prompts in, text out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from rebus.codec.images import ImageSource
from rebus.codec.processor import Processor
from rebus.codec.regions import ImageRegions
from rebus.codec.text import Prompt
from rebus.core.capabilities import SeesOnce
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.generation import cut, score_tokens
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.task_model import Placed, TaskModel, batch_size, on_device

ImagePair = tuple[ImageSource, Prompt]
Pair = ImagePair | tuple[list[ImageSource], Prompt]  # of an interleaved prompt, the images in the order of their marks
Item = TypeVar("Item")
Result = TypeVar("Result")


class Shown(Protocol):
    """Examples of a task (`rebus.tasks.few_shot.Shots`)."""

    def inputs(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """What the network takes for (image, prompt) after the examples."""
        ...


class Generated(NamedTuple):
    """One answer: its text, its ids up to the end token, and the log-probability of each (empty if not asked for)."""

    text: str
    tokens: list[int]
    log_probabilities: list[float]


def generate_texts(
    model: TaskModel,
    pairs: Sequence[Pair],
    options: Mapping[str, Any],
    batching: BatchOptions = AS_IT_SUITS,
    shots: Shown | None = None,
) -> list[str]:
    """Answers to (image, prompt), in order; after examples, where there are `shots`."""

    def work(batch: Sequence[Pair], options: Mapping[str, Any]) -> list[str]:
        return [answer.text for answer in generate_batch(model, batch, options, shots=shots)]

    return in_seeded_batches(pairs, options, generation_batch(model), work, batching=batching)


def in_seeded_batches(
    items: Sequence[Item],
    options: Mapping[str, Any],
    size: int,
    work: Callable[[Sequence[Item], Mapping[str, Any]], Sequence[Result]],
    what: str = "images",
    batching: BatchOptions = AS_IT_SUITS,
) -> list[Result]:
    """The results of `work(items, options)` in batches; a list of seeds among the options is divided like the items."""
    seeds = options.get("seed")
    if not isinstance(seeds, list | tuple):
        return in_batches(items, lambda batch: work(batch, options), size=size, what=what, options=batching)
    if len(seeds) != len(items):
        raise UsageError(f"seed expects one number, or one for each of the {len(items)} answers; got {len(seeds)}")

    def with_seeds(batch: Sequence[tuple[Item, int]]) -> Sequence[Result]:
        return work([item for item, _ in batch], {**options, "seed": [seed for _, seed in batch]})

    return in_batches(list(zip(items, seeds, strict=True)), with_seeds, size=size, what=what, options=batching)


def generation_batch(model: TaskModel) -> int:
    """How many answers are tried at once."""
    return batch_size(model, cpu=8, accelerator=32)


def generate_batch(
    model: TaskModel,
    pairs: Sequence[Pair],
    options: Mapping[str, Any],
    *,
    likelihood: bool = False,
    shots: Shown | None = None,
) -> list[Generated]:
    """One batch of answers; with `likelihood`, how probable each of their tokens was.

    Of a network that can be given what it saw (`SeesOnce`) an image is encoded once, however often it is among the
    pairs, and there may be any number of them: they are answered some at a time.
    """
    if shots is not None:
        return _answers(model, shots.inputs(pairs), options, likelihood)
    size = generation_batch(model)
    if not _sees_once(model, pairs):
        parts = (inputs(model, pairs[i : i + size]) for i in range(0, len(pairs), size))
        return [answer for part in parts for answer in _answers(model, part, options, likelihood)]
    batch = _seen_once(model, pairs)
    seen = batch.pop("seen")
    parts = ({name: rows[i : i + size] for name, rows in batch.items()} for i in range(0, len(pairs), size))
    return [answer for part in parts for answer in _answers(model, {**part, "seen": seen}, options, likelihood)]


def _sees_once(model: TaskModel, pairs: Sequence[Pair]) -> bool:
    """Whether each pair has one image, which the network encodes apart from the prompt."""
    network, images = model.network, [image for image, _ in pairs]
    alone = not any(isinstance(image, list | ImageRegions) for image in images)
    return alone and isinstance(network, SeesOnce) and network.sees_once and model.processor.image is not None


def _seen_once(model: TaskModel, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """What the network takes: prompts, `seen` of each image, and `owners`."""
    places: dict[int, int] = {}  # an image by its identity → its row
    owners = [places.setdefault(id(image), len(places)) for image, _ in pairs]
    images = [pairs[owners.index(row)][0] for row in range(len(places))]
    batch = model.processor(images=images, texts=[prompt for _, prompt in pairs], owners=owners)  # type: ignore[arg-type]
    batch = on_device(model, batch)
    with torch.inference_mode():
        batch["seen"] = model.network.see(batch.pop("pixels"))
    return batch


def _answers(
    model: TaskModel, batch: Mapping[str, Any], options: Mapping[str, Any], likelihood: bool
) -> list[Generated]:
    heard: list[Tensor] = []
    listen = likelihood and options.get("strategy") != "beam"
    hook = {"on_token": lambda _, log_probability: heard.append(log_probability)} if listen else {}
    tokens = model.generate(**batch, **options, **hook)
    rows = [until_end(row, model.endings()["eos_id"]) for row in tokens.tolist()]
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
        Generated(clean(text, options), row, logs[: len(row)])
        for text, row, logs in zip(texts, rows, found, strict=True)
    ]


class Reader(Placed, Protocol):
    """What `inputs` needs of a model."""

    processor: Processor


def inputs(model: Reader, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """What the network takes."""
    images, prompts = zip(*pairs, strict=True)
    none = all(isinstance(image, list) and not image for image in images)
    return on_device(model, model.processor(images=None if none else list(images), texts=list(prompts)))


def clean(text: str, options: Mapping[str, Any]) -> str:
    """The answer without its stop string, what comes after its last sentence, and the white space around it."""
    return cut(text, options.get("stop"), options.get("max_sentences")).strip()


def until_end(row: list[int], eos_id: int | None) -> list[int]:
    """The ids up to the end token, which stays; all where there is none."""
    return row[: row.index(eos_id) + 1] if eos_id in row else row
