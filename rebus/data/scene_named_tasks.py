"""Scenes as the named tasks of a system (`System.named_tasks`): its own sentences, its own notation of places."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from rebus.codec.named_prompts import named_prompt
from rebus.codec.tokenizers import Tokenizer
from rebus.core.errors import UsageError, unknown
from rebus.data.forms import Example, TextRow
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, RecordBatches
from rebus.data.scene_answers import ANSWERS, Notations
from rebus.data.scene_patches import patch_owners
from rebus.data.scene_records import SceneRecords
from rebus.data.scene_tokenizer import scenes_processor, scenes_tokenizer
from rebus.data.scenes import NOTICES, Scene, vocabulary


@dataclass(frozen=True)
class Share:
    """A task by its name, what of a scene it answers (a form of `rebus.data.scene_answers.ANSWERS`), and its odds."""

    task: str
    answer: str
    odds: float


@dataclass(frozen=True)
class SceneNamedTasks:
    """Images with `per_image` different tasks each, drawn with the odds of `tasks`.

    `tokens` and `targets` have a row for each task, whose image `owners` gives. `names`, `present` and `boxes` say what
    each patch shows. Images of which one asks what is written have a number or a word in them, if there is room. The
    first `encoder_first` batches hold what patches show alone, of `per_image` times as many images.
    """

    kind: Literal["scene named tasks"] = "scene named tasks"
    tasks: tuple[Share, ...] = ()
    size: int = 96
    patch: int = 12
    encoder_first: int = 0
    per_image: int = 2

    def open(self, inputs: ModelInputs) -> RecordBatches:
        """The batches, for a model with these tasks and notations: `pixels` uint8, `tokens`, `mask`, `targets`,
        `owners`, and what the patches show. Raises `UsageError` for a task that the model has not, or that asks or
        answers otherwise than the form that it is given, `UnknownName` for a form that there is not."""
        how = Notations(inputs.locations, inputs.lines, inputs.outlines)
        if len(self.tasks) < self.per_image:
            raise UsageError(f"data.per_image={self.per_image} different tasks an image, of {len(self.tasks)}")
        for share in self.tasks:
            self._check(share, inputs, how)
        processor = scenes_processor(
            inputs.text_for(self.kind), self.size, more=self.words(inputs), spoken=_spoken(inputs)
        )
        return RecordBatches(SceneRecords(self.size, partial(self._plan, inputs, how), fields=()), processor)

    def tokenizer(self, inputs: ModelInputs) -> Tokenizer:
        """The tokenizer of models that learn from this."""
        return scenes_tokenizer(more=self.words(inputs), spoken=_spoken(inputs))

    def words(self, inputs: ModelInputs) -> tuple[str, ...]:
        """What such texts hold besides the vocabulary of scenes: the words of the prompts, digits and notices."""
        asked = " ".join(re.sub(r"\{\w+\}", " ", inputs.named_tasks[share.task].prompt) for share in self.tasks)
        spoken = (*re.findall(r"\w+|[^\w\s]", asked.lower()), *"0123456789", *NOTICES)
        known = set(vocabulary())
        return tuple(word for word in dict.fromkeys(spoken) if word not in known)

    def _check(self, share: Share, inputs: ModelInputs, how: Notations) -> None:
        if share.answer not in ANSWERS:
            raise unknown("form of answers", share.answer, ANSWERS)
        if share.task not in inputs.named_tasks:
            raise UsageError(f"{inputs.system} has no task {share.task}")
        form, prompt = ANSWERS[share.answer], inputs.named_tasks[share.task].prompt
        asked = next((what for what in ("text", "region") if "{" + what + "}" in prompt), None)
        if asked != form.asks:
            raise UsageError(f"{share.task} is asked about {asked or 'images'}, {share.answer!r} about {form.asks}")
        if form.states is not None and getattr(how, form.states) is None:
            raise UsageError(f"{inputs.system} states no {form.states} in text, as {share.answer!r} requires")

    def _plan(self, inputs: ModelInputs, how: Notations, index: int, batch_size: int, split: str) -> Plan:
        stride = batch_size * self.per_image
        if split == "train" and index < self.encoder_first:
            return Plan(range(index * stride, (index + 1) * stride), self._patches)
        return Plan(range(index * stride, index * stride + batch_size), partial(self._examples, inputs, how))

    def _patches(self, record: Record, rng: np.random.Generator) -> Example:
        assert record.image is not None
        return Example((record.image,), (), patch_owners(record.facts["scene"], self.patch))

    def _examples(self, inputs: ModelInputs, how: Notations, record: Record, rng: np.random.Generator) -> Example:
        assert record.image is not None
        s: Scene = record.facts["scene"]
        odds = np.array([share.odds for share in self.tasks])
        chosen = rng.choice(len(odds), size=self.per_image, replace=False, p=odds / odds.sum())
        rows = []
        for share in (self.tasks[i] for i in chosen):
            said, text, region = ANSWERS[share.answer].make(s, rng, how)
            task = inputs.named_tasks[share.task]
            rows.append(TextRow(named_prompt(task, inputs.locations, (s.size, s.size), text, region), said))
        image = record.image
        if s.writing is not None and any(ANSWERS[self.tasks[i].answer].reads for i in chosen):
            image = s.writing.planes.transpose(1, 2, 0)
        return Example((image,), tuple(rows), patch_owners(s, self.patch))


def _spoken(inputs: ModelInputs) -> tuple[str, ...]:
    """The control tokens of its notations."""
    places = () if inputs.locations is None else inputs.locations.control_tokens
    return (*places, *(() if inputs.outlines is None else inputs.outlines.marks))
