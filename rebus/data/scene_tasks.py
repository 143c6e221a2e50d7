"""Scenes as prompts and answers, for generative models: caption, question, detection, segmentation, reading, several
for each image, in the prompts and the spelling of boxes and masks of a system.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from rebus.codec.tokenizers import Tokenizer
from rebus.core.answers import Box
from rebus.core.errors import UsageError
from rebus.core.places import LocationNotation
from rebus.core.specs import Prompts
from rebus.data.forms import Example, Form, Given, TextRow, filled
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, RecordBatches
from rebus.data.scene_masks import mask_codes
from rebus.data.scene_patches import patch_owners
from rebus.data.scene_records import SceneRecords
from rebus.data.scene_tokenizer import new_words, scenes_processor, scenes_tokenizer
from rebus.data.scenes import COLOURS, NOTICES, SHAPES, Scene, SceneObject, answer_kinds, vocabulary
from rebus.data.scenes.language import ask
from rebus.data.scenes.writing import QUESTION

ALL_SHAPES = " ; ".join(SHAPES)


@dataclass(frozen=True)
class SceneTasks:
    """Images with `per_image` different tasks each, drawn with the given odds; `questions`: how many one asks.

    `tokens` and `targets` have a row for each caption, question, …, whose image `owners` gives. `names`, `present` and
    `boxes` say what each patch shows. Images of which one is asked what is written have a number or a word in them, if
    there is room. The first `encoder_first` batches hold these alone, of `per_image` times as many images. From batch
    `turn` on questions have the odds `ask_later`: they are easy to learn for who can already see and caption (0:
    never).
    """

    kind: Literal["scene tasks"] = "scene tasks"
    size: int = 96
    patch: int = 12
    encoder_first: int = 0
    per_image: int = 2
    questions: int = 1
    caption: float = 0.4
    detect: float = 0.3
    ask: float = 0.2
    segment: float = 0.1
    read: float = 0.0
    turn: int = 0
    ask_later: float = 0.5
    codebook: str = "mask_vqvae/scenes"  # what writes masks as tokens: a bundled name or a directory

    def open(self, inputs: ModelInputs) -> RecordBatches:
        """The batches, for a model with these texts and prompts: `pixels` uint8, `tokens`, `mask`, `targets`,
        `owners`, and what the patches show. Raises `UsageError` for another number of patches, or a task that the
        model has no prompt for."""
        text, prompts, locations = inputs.text_for(self.kind), inputs.prompts, inputs.locations
        patches = (self.size // self.patch) ** 2
        if text.num_image_tokens not in (0, patches):
            raise UsageError(
                f"data.size={self.size} in patches of data.patch={self.patch} makes {patches} patches; "
                f"the model has {text.num_image_tokens} an image"
            )
        forms = self._forms()
        for name, form in forms.items():
            if form.prompt is not None and getattr(prompts, form.prompt) is None and getattr(self, name):
                raise UsageError(f"the model has no prompt for {name}: --set data.{name}=0")
            if form.places and locations is None and getattr(self, name):
                raise UsageError(f"the model has no location tokens, as {name} requires: --set data.{name}=0")
        plan = partial(self._plan, prompts, locations)
        tokens, words = self._places(locations), self.words(prompts, locations)
        return RecordBatches(
            SceneRecords(self.size, plan, fields=()),
            scenes_processor(text, self.size, locations=tokens, more=words),
        )

    def words(self, prompts: Prompts, locations: LocationNotation | None = None) -> tuple[str, ...]:
        """What such texts hold besides the vocabulary of scenes: the words of a system's prompts, the digits and
        notices that are read, and coordinates where they are words."""
        asked = [
            getattr(prompts, str(form.prompt)) or "" for name, form in self._forms().items() if getattr(self, name)
        ]
        read = (*"0123456789", *NOTICES, *QUESTION.split()) if self.read else ()
        places = locations.words if locations is not None and self._any_places() else ()
        known = set(vocabulary())
        return tuple(word for word in dict.fromkeys((*places, *new_words(*asked), *read)) if word not in known)

    def tokenizer(self, prompts: Prompts, locations: LocationNotation | None = None) -> Tokenizer:
        """The tokenizer of models that learn from this, for a system's prompts and notation of places."""
        return scenes_tokenizer(self._places(locations), more=self.words(prompts, locations))

    def _any_places(self) -> bool:
        return any(form.places and getattr(self, name) for name, form in self._forms().items())

    def _places(self, locations: LocationNotation | None) -> bool:
        """Whether texts hold location tokens."""
        return self._any_places() and locations is not None and not locations.words

    def _plan(
        self, prompts: Prompts, locations: LocationNotation | None, index: int, batch_size: int, split: str
    ) -> Plan:
        stride = batch_size * self.per_image
        if split == "train" and index < self.encoder_first:
            return Plan(range(index * stride, (index + 1) * stride), self._patches)
        asked = self.ask_later if 0 < self.turn <= index else self.ask
        odds = np.array([self.caption, self.detect, asked, self.segment, self.read][: len(self._forms())])
        forms = tuple(self._forms().values())
        asking = [(form, getattr(prompts, str(form.prompt))) for form in forms]
        make = partial(self._tasks, odds / odds.sum(), asking, locations)
        return Plan(range(index * stride, index * stride + batch_size), make)

    def _forms(self) -> dict[str, Form]:
        """The tasks in the order of their odds."""
        forms = {
            "caption": Form(_caption, prompt="caption"),
            "detect": Form(_detect, prompt="detect", places=True),
            "ask": Form(partial(_ask, self.questions), prompt="ask"),
            "segment": Form(partial(_segment, self.codebook), prompt="segment", places=True),
        }
        return forms | {"read": Form(_read, prompt="ask")} if self.read else forms

    def _patches(self, record: Record, rng: np.random.Generator) -> Example:
        return self._seen(record, (), read=self.read > 0)

    def _seen(self, record: Record, texts: Sequence[TextRow], read: bool) -> Example:
        """The image, with its writing where it is read, the texts, and what each patch shows."""
        assert record.image is not None
        scene, image = _scene(record), record.image
        writing = scene.writing if read else None
        if writing is not None:
            image = writing.planes.transpose(1, 2, 0)
        return Example((image,), tuple(texts), patch_owners(scene, self.patch, writing))

    def _tasks(
        self,
        odds: np.ndarray,
        asking: Sequence[tuple[Form, str | None]],
        locations: LocationNotation | None,
        record: Record,
        rng: np.random.Generator,
    ) -> Example:
        assert record.image is not None
        texts: list[TextRow] = []
        chosen = rng.choice(len(asking), size=self.per_image, replace=False, p=odds)
        for task in chosen:
            form, prompt = asking[task]
            texts += form.make(record, Given(record.image, prompt, rng, locations)).texts
        return self._seen(record, texts, read=any(asking[task][0].make is _read for task in chosen))


def _scene(record: Record) -> Scene:
    found: Scene = record.facts["scene"]
    return found


def _caption(record: Record, given: Given) -> Example:
    return Example(given.images, (TextRow(given.prompt, _scene(record).captions[0]),))


def _ask(number: int, record: Record, given: Given) -> Example:
    s, kinds, texts = _scene(record), answer_kinds(), list[TextRow]()
    while len(texts) < number:
        pair = ask(kinds[int(given.rng.integers(len(kinds)))], s.objects, given.rng, s.scale)
        if pair is not None:
            texts.append(TextRow(filled(given.prompt, question=pair[0]), pair[1]))
    return Example(given.images, tuple(texts))


def _read(record: Record, given: Given) -> Example:
    """What is written; nothing, where there was no room."""
    writing = _scene(record).writing
    answer = "" if writing is None else writing.spelled
    return Example(given.images, (TextRow(filled(given.prompt, question=QUESTION), answer),))


def _detect(record: Record, given: Given) -> Example:
    """All shapes at once, or any object, named; or one to three kinds of object, some of which are not there."""
    s, rng = _scene(record), given.rng
    form = rng.random()
    if form < 0.2:
        return _boxes(given, ALL_SHAPES, [(o, o.shape) for o in s.objects])
    if form < 0.7:
        return _boxes(given, "object", list(zip(s.objects, s.labels, strict=True)))
    labels: list[str] = []
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.7:
            label = s.labels[int(rng.integers(len(s.labels)))]
        else:
            label = f"{COLOURS[rng.integers(len(COLOURS))]} {SHAPES[rng.integers(len(SHAPES))]}"
        if label not in labels:
            labels.append(label)
    found = [(o, label) for o, label in zip(s.objects, s.labels, strict=True) if label in labels]
    return _boxes(given, " ; ".join(labels), found)


def _boxes(given: Given, asked: str, found: Sequence[tuple[SceneObject, str]]) -> Example:
    """Boxes with their labels, left to right."""
    boxes = [Box(one.box, label, 1.0) for one, label in found]
    answer = given.notation.detection_text(boxes, given.size)
    return Example(given.images, (TextRow(filled(given.prompt, labels=asked), answer),))


def _segment(codebook: str, record: Record, given: Given) -> Example:
    s = _scene(record)
    phrase, i = s.phrases[int(given.rng.integers(len(s.phrases)))]
    one = s.objects[i]
    codes = mask_codes(one.mask, one.box, codebook)
    answer = given.notation.segmentation_text(one.box, codes, phrase, given.size)
    return Example(given.images, (TextRow(filled(given.prompt, phrase=phrase), answer),))
