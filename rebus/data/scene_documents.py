"""Scenes as interleaved documents of text and images: few-shot episodes, pages, captions, questions. For language
models the same as text only.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import Tokenizer
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.data.document_batches import DocumentBatches, Unlearned
from rebus.data.forms import Example, TextRow, filled
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, RecordBatches, Row
from rebus.data.scene_tokenizer import BOS, EOS, PAD, scenes_processor, scenes_tokenizer
from rebus.data.scenes import MOTIONS, NAMES, PLAIN, Scene, answer_kinds, episode, page, scene, vocabulary
from rebus.data.scenes.language import ask
from rebus.data.scenes.video import WHERE

WHAT = "what is this?"  # the question of episodes that ask
_SEEDS = 1_000_000_000  # documents between the series of two seeds
_LONG = 0.3  # of the episodes that are told, how many tell size and fill too
_SHORT = 0.3  # and how many of the others tell colour or shape alone
_PAIR = slice(2, None)  # colour and shape, of all attributes
_ALL = 0.5  # of the episodes with examples in words, how many have all of them so
_ROTE = 24  # words of a text that repeats itself


class Chunk(NamedTuple):
    """A scene, or None, with the `prompt` and the `text` after it. `told`: what is read in place of scene and prompt
    where nothing is seen, if anything is."""

    scene: Scene | None
    prompt: str
    text: str
    told: str = ""


@dataclass(frozen=True)
class SceneDocuments:
    """Documents, drawn with the given odds: episodes of `images` scenes and 2 to `classes` made-up names; pages;
    captions, and questions, of a single scene. Prompts are read and not learned.

    `asked`: the odds that an episode asks what this is, in place of the caption's prompt.
    `worded`: the odds that an episode gives some of its examples as descriptions, before the images of the others; half
    the time all of them. A frozen language model already binds names to words; from these documents the new blocks
    learn which states an image must produce to be bound to a name.
    `told`: text only, for language models. In episodes a description replaces each image; other documents omit images;
    and with the odds `rote` a text is some words again and again, from which copying is learned soonest.
    `caption`, `question`: what stands between an image and its text; both as the prompts of the system that is to read
    such documents.
    """

    kind: Literal["scene documents"] = "scene documents"
    size: int = 96
    episodes: float = 0.6
    pages: float = 0.1
    captions: float = 0.2
    questions: float = 0.1
    rote: float = 0.0
    images: int = 8
    classes: int = 4
    asked: float = 0.25
    worded: float = 0.0
    told: bool = False
    caption: str = "Output:"
    question: str = "Question:{question} Short answer:"

    def open(self, inputs: ModelInputs) -> RecordBatches:
        """The batches of `DocumentBatches`; with `told` the same `tokens`, `mask` and `labels` for a language model.
        Raises `UsageError` for odds that are none."""
        odds = self._odds()
        if odds.min() < 0 or not odds.any() or (self.rote and not self.told):
            raise UsageError("data: odds are 0 or more, and one of them is above 0; rote needs told=true")
        if self.worded and self.told:
            raise UsageError("data.worded mixes descriptions with images, and told=true has none: set one of the two")
        text = replace(inputs.text_for(self.kind), pad_id=PAD, bos_id=BOS)
        if self.told:
            spec = replace(text, eos_id=EOS, vocab_size=None)
            return _ToldBatches(_Documents(self), Processor(None, TextPipeline(self.tokenizer(), spec)))
        processor = scenes_processor(text, self.size, more=self.words(), added=text.added_tokens)
        return DocumentBatches(_Documents(self), processor)

    def words(self) -> tuple[str, ...]:
        """What such texts, and those of videos, hold besides the vocabulary of scenes."""
        return document_words(self.caption, self.question)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of language models that learn from this."""
        return scenes_tokenizer(more=self.words(), added=())

    def document(self, seed: int, split: str, rng: np.random.Generator) -> list[Chunk]:
        """One document of a random kind."""
        makes: list[Callable[[int, str, np.random.Generator], list[Chunk]]]
        makes = [self._episode, self._page, self._caption, self._question, self._rote]
        return makes[rng.choice(len(makes), p=self._odds() / self._odds().sum())](seed, split, rng)

    def _odds(self) -> np.ndarray:
        return np.array([self.episodes, self.pages, self.captions, self.questions, self.rote])

    def _episode(self, seed: int, split: str, rng: np.random.Generator) -> list[Chunk]:
        found = episode(seed, split, int(rng.integers(2, self.classes + 1)), self.images - 1, self.size)
        asked = filled(self.question, question=WHAT) if rng.random() < self.asked else self.caption
        words = _PAIR if self.worded else _which(list(found.meanings.values()), rng)
        chunks = [
            Chunk(one, asked, name, " ".join(one.objects[0].attributes[words]))
            for one, name in (*found.shots, found.query)
        ]
        if not self.worded or rng.random() >= self.worded:
            return chunks
        first = len(found.shots) if rng.random() < _ALL else int(rng.integers(1, len(chunks)))
        return [*(Chunk(None, "", f"{c.told} {c.text}") for c in chunks[:first]), *chunks[first:]]

    def _page(self, seed: int, split: str, rng: np.random.Generator) -> list[Chunk]:
        parts = page(seed, split, self.size)
        pairs = zip((None, *parts), parts, strict=False)
        return [
            Chunk(one if isinstance(one, Scene) else None, "", text) for one, text in pairs if isinstance(text, str)
        ]

    def _caption(self, seed: int, split: str, rng: np.random.Generator) -> list[Chunk]:
        one = scene(seed, split, self.size)
        return [Chunk(one, self.caption, one.captions[0])]

    def _question(self, seed: int, split: str, rng: np.random.Generator) -> list[Chunk]:
        one, pair = scene(seed, split, self.size), None
        while pair is None:
            pair = ask(answer_kinds()[rng.integers(len(answer_kinds()))], one.objects, rng, one.scale)
        return [Chunk(one, filled(self.question, question=pair[0]), pair[1])]

    def _rote(self, seed: int, split: str, rng: np.random.Generator) -> list[Chunk]:
        words = [word for word in (*vocabulary(), *NAMES) if word.isalpha()]
        some = " ".join(words[i] for i in rng.integers(len(words), size=int(rng.integers(4, 13))))
        return [Chunk(None, "", " ".join([some] * max(1, _ROTE // len(some.split()) - 1)), some)]


def document_words(caption: str, question: str) -> tuple[str, ...]:
    """What documents and videos say besides the vocabulary of scenes, asked for by these prompts."""
    asked = question.replace("{question}", "")
    said = " ".join((*NAMES, *PLAIN, WHAT, *MOTIONS, WHERE, "moves", caption, asked)).lower()
    found = dict.fromkeys(re.findall(r"\w+|[^\w\s]", said.replace("{}", "")))
    return tuple(word for word in found if word not in set(vocabulary()))


def _which(labels: list[str], rng: np.random.Generator) -> slice:
    """Of size, fill, colour and shape, what is told: all, the last two, or one of these that tells labels apart."""
    if rng.random() < _LONG:
        return slice(None)
    colours, shapes = ({label.split()[i] for label in labels} for i in range(2))
    alone = [slice(2 + i, 3 + i) for i, words in enumerate((colours, shapes)) if len(words) == len(labels)]
    return alone[rng.integers(len(alone))] if alone and rng.random() < _SHORT else _PAIR


class _Documents:
    """The source of `SceneDocuments`: each document is drawn from random numbers of its own."""

    name, one_stream = "scene documents", False

    def __init__(self, data: SceneDocuments):
        self.data = data

    def plan(self, index: int, batch_size: int, split: str) -> Plan:
        """As of `Source`."""
        return Plan(range(index * batch_size, (index + 1) * batch_size), self._make)

    def read(self, seed: int, number: int, split: str, attempt: int) -> Record:
        """Document `number` of that seed. Nothing of it is damaged, so that nothing stands in for it."""
        return Record(key=f"document {split}:{number}", facts={"seed": seed * _SEEDS + number, "split": split})

    def _make(self, record: Record, rng: np.random.Generator) -> Example:
        chunks = self.data.document(record.facts["seed"], record.facts["split"], rng)
        if self.data.told:
            return Example(texts=tuple(TextRow(c.told, c.text if c.told else f"{c.prompt} {c.text}") for c in chunks))
        parts: list[str | None] = []
        for chunk in chunks:
            parts += [] if chunk.scene is None else [None]
            parts += [Unlearned(chunk.prompt), chunk.text] if chunk.prompt else [chunk.text]
        return Example(tuple(c.scene.pixels for c in chunks if c.scene is not None), document=tuple(parts))


class _ToldBatches(RecordBatches):
    """`tokens`, `mask` and `labels` (B, L): the token after each of `tokens`, −100 where it tells what an image shows,
    which nobody could foresee."""

    def _tensors(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        spec, encode = self.text.spec, self.text.tokenizer.encode
        longest, found = 0, list[tuple[list[int], list[int]]]()
        for row in rows:
            tokens, labels = [spec.bos_id], list[int]()
            for told, text in row.example.texts:
                unforeseen, said = encode(told or ""), encode(text)
                tokens += unforeseen + said
                labels += [IGNORED] * len(unforeseen) + said
            found.append((tokens, [*labels, spec.eos_id]))
            longest = max(longest, len(tokens))
        given = torch.tensor([row + [spec.pad_id] * (longest - len(row)) for row, _ in found])
        learned = torch.tensor([row + [IGNORED] * (longest - len(row)) for _, row in found])
        mask = torch.arange(longest) < torch.tensor([len(row) for row, _ in found])[:, None]
        return {"tokens": given, "mask": mask, "labels": learned}
