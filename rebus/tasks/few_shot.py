"""Few-shot prompting: in-context learning without training (Brown et al., 2020; Alayrac et al., 2022).

    image₁ prompt answer₁ end  image₂ prompt answer₂ end  …  image prompt ▶ answer

The common prefix of all prompts is encoded once, for any number of questions. Or each image gets its own examples, the
most similar ones (RICES, Yang et al., "An Empirical Study of GPT-3 for Few-Shot Knowledge-Based VQA", 2022).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rebus.codec.images import ImageSource
from rebus.codec.processor import Processor
from rebus.codec.text import Control, ImageMark, Pieces, TextPipeline, filled_prompt
from rebus.core.errors import BadText, UnsupportedTask, UsageError
from rebus.tasks.embed import embed_images
from rebus.tasks.location_scores import open_shown
from rebus.tasks.task_model import TaskModel, prompt_for
from rebus.tasks.text_generation import Pair, inputs

Example = Sequence[Any]  # (image, answer), or (image, question, answer); an image may be None


class _Shown(NamedTuple):
    """One example: its images or clips, none or one, and its part of the prompt."""

    images: Sequence[Any]
    prompt: tuple[str | Control | ImageMark, ...]


class Shots:
    """Examples for one task of one model, for any number of calls: `model.ask(image, question, examples=shots)`.

    With `encoder`, a model that embeds images, each image gets the `number` most similar examples, the nearest last;
    otherwise all examples in order, which are encoded at the first call and cached.
    """

    def __init__(
        self,
        model: TaskModel,
        task: str,
        examples: Sequence[Example],
        *,
        prompt: str | None = None,
        encoder: TaskModel | None = None,
        number: int | None = None,
    ):
        after = model.system.prompts.after_example
        if task not in after:
            able = f"; it learns from examples: {', '.join(after)}" if after else ""
            raise UnsupportedTask(f"{model.system.name} does not learn {task} from examples in the prompt{able}")
        if (encoder is None) != (number is None) or (number is not None and number < 1):
            raise UsageError("the nearest examples need both: encoder, a model that embeds images, and number, above 0")
        self.model, self.task, self.encoder, self.number = model, task, encoder, number
        self.prompt = prompt_for(model, task) if prompt is None else prompt
        self._end = _controlled(after[task], model.system.prompts.controls)
        parts = [self._part(i, example) for i, example in enumerate(_listed(examples))]
        opened = iter(open_shown(model, [image for image, _ in parts if image is not None]))
        images = [[] if image is None else [next(opened)] for image, _ in parts]
        self.shown = [_Shown(own, prompt) for own, (_, prompt) in zip(images, parts, strict=True)]
        self._vectors = None if encoder is None else self._embedded(encoder)
        self._read: Any = None

    def inputs(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """What the network takes for (image, prompt) after the examples."""
        marked = [_marked(pair) for pair in pairs]
        if self._vectors is not None:
            return inputs(self.model, self._with_nearest(marked))
        if not self.shown:
            return inputs(self.model, marked)
        return {**inputs(_Continuing(self.model), marked), "after": self._after()}

    def orders(self, number: int) -> "list[Shots]":
        """The same examples in `number` random orders, or in all that there are where these are fewer."""
        if self._vectors is not None or number == 1:
            return [self]
        number = min(number, math.factorial(min(len(self.shown), 12)))
        rng, found = random.Random(0), {tuple(range(len(self.shown))): self}
        while len(found) < number:
            order = tuple(rng.sample(range(len(self.shown)), len(self.shown)))
            found.setdefault(order, self._reordered(order))
        return list(found.values())

    def _reordered(self, order: Sequence[int]) -> "Shots":
        other = object.__new__(Shots)
        other.__dict__.update(self.__dict__, shown=[self.shown[i] for i in order], _read=None)
        return other

    @torch.no_grad()
    def _after(self) -> Any:
        """The network's cache of the examples, where the network is."""
        place = (self.model.device, self.model.dtype)
        if self._read is None or self._read[0] != place:
            prompt = Pieces(*(piece for shown in self.shown for piece in shown.prompt))
            batch = inputs(self.model, [([image for shown in self.shown for image in shown.images], prompt)])
            self._read = (place, self.model.network.start(room=0, **batch).cache)
        return self._read[1]

    def _part(self, index: int, example: Example) -> tuple[ImageSource | None, tuple[str | Control | ImageMark, ...]]:
        """The image of an example, and what stands for it in the prompt."""
        wanted = ("image", "question", "answer") if "{question}" in self.prompt else ("image", "answer")
        if not isinstance(example, tuple | list) or len(example) != len(wanted):
            raise UsageError(f"example {index}: expected ({', '.join(wanted)})")
        image, *texts = example
        for name, text in zip(wanted[1:], texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise BadText(f"example {index}: {name} must be a text that is not empty; got {text!r}")
        asked = _filled(self.model, self.prompt, texts[0]) if len(texts) > 1 else self.prompt
        mark = () if image is None else (ImageMark(),)
        return image, (*mark, asked + texts[-1].strip(), *self._end)

    def _embedded(self, encoder: TaskModel) -> Tensor:
        for index, shown in enumerate(self.shown):
            if not shown.images:
                raise UsageError(f"example {index} has no image to compare with")
        return embed_images(encoder, [shown.images[0] for shown in self.shown])

    def _with_nearest(self, pairs: Sequence[Pair]) -> list[Pair]:
        assert self._vectors is not None
        assert self.encoder is not None
        assert self.number is not None
        queries = [images if isinstance(images, list) else [images] for images, _ in pairs]
        seen = [one for images in queries for one in open_shown(self.model, images)]
        similar = embed_images(self.encoder, seen) @ self._vectors.T
        found: list[Pair] = []
        for image, (_, prompt), row in zip(seen, pairs, similar, strict=True):
            near = row.topk(min(self.number, len(self.shown))).indices.flip(0).tolist()
            assert isinstance(prompt, Pieces)
            pieces = [piece for i in near for piece in self.shown[i].prompt]
            found.append(([*(self.shown[i].images[0] for i in near), image], Pieces(*pieces, *prompt)))
        return found


class _Continuing:
    """A model whose texts go on from others: no start token is put before them."""

    def __init__(self, model: TaskModel):
        processor = model.processor
        assert processor.text is not None
        text = TextPipeline(processor.text.tokenizer, replace(processor.text.spec, bos_id=None))
        self.device, self.dtype = model.device, model.dtype
        self.processor = Processor(
            processor.image, text, image_missing=processor.image_missing, sees_clips=processor.sees_clips
        )


def shots_of(model: TaskModel, task: str, examples: Any, prompt: str | None = None) -> Shots | None:
    """`Shots` as they are, or made of a list of examples; None for None. Raises `UsageError` for those of another task
    or model."""
    if examples is None:
        return None
    if not isinstance(examples, Shots):
        return Shots(model, task, examples, prompt=prompt)
    if examples.model is not model or examples.task != task:
        raise UsageError(f"examples: these were made for {examples.task} of {examples.model.system.name}")
    return examples


def _filled(model: TaskModel, prompt: str, question: str) -> str:
    """The prompt with a question in it, plain text."""
    prompts = replace(model.system.prompts, controls=(), ask=prompt)
    asked = filled_prompt(prompts, "ask", question=question.strip())
    assert isinstance(asked, str)
    return asked


def _controlled(text: str, controls: Sequence[str]) -> tuple[str | Control, ...]:
    """A text of the system's own, in which its control tokens are control tokens."""
    parts: list[str | Control] = [text]
    for name in controls:
        split: list[str | Control] = []
        for part in parts:
            if isinstance(part, Control):
                split.append(part)
                continue
            for i, piece in enumerate(part.split(name)):
                split += [*([Control(name)] if i else []), piece]
        parts = split
    return tuple(part for part in parts if part != "")


def _marked(pair: Pair) -> Pair:
    """The image of a pair at a mark in front of its prompt, where the prompt has none."""
    images, prompt = pair
    many: list[Any] = list(images) if isinstance(images, list) else [images]
    pieces = prompt if isinstance(prompt, Pieces) else Pieces(prompt)
    return many, pieces if pieces.marks else Pieces(*(ImageMark() for _ in many), *pieces)


def _listed(examples: Any) -> list[Example]:
    if isinstance(examples, str | bytes) or not hasattr(examples, "__iter__"):
        raise UsageError(f"examples expects a list of them; got {type(examples).__name__}")
    return list(examples)
