"""Scenes for encoders that read image and text together: two captions with blanks, or questions with listed answers."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from rebus.core.specs import TextSpec
from rebus.data.answer_batches import AnswerBatches
from rebus.data.caption_pairs import CaptionPairBatches
from rebus.data.forms import OWN, Example, TextRow
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan
from rebus.data.scene_records import SceneRecords
from rebus.data.scene_tokenizer import BOS, EOS, PAD, scenes_processor
from rebus.data.scenes import COLOURS, FILLS, SHAPES, SIZES, Scene, answer_kinds
from rebus.data.scenes.language import NUMBERS, ask


@cache
def scene_answers() -> tuple[str, ...]:
    """Every answer to a question about a scene, after `<unk>`."""
    named = (f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
    return ("<unk>", *COLOURS, *SHAPES, *SIZES, *FILLS, *NUMBERS, "yes", "no", *named)


def _spec(text: TextSpec) -> TextSpec:
    return replace(text, pad_id=PAD, bos_id=BOS, eos_id=EOS, vocab_size=None)


@dataclass(frozen=True)
class SceneCaptionPairs:
    """Images with two captions each, the second of another image in half of the rows, and words blanked.

    `full`: how often the second is the full caption; the first is always one of the others. `alone`: how often the
    second stands alone, so that the network learns to judge one text by the image and not by another text; the paper
    has always two.
    """

    kind: Literal["scene caption pairs"] = "scene caption pairs"
    size: int = 96
    full: float = 0.8
    alone: float = 0.5

    def open(self, inputs: ModelInputs) -> CaptionPairBatches:
        """The batches, for a model with these texts."""
        source = SceneRecords(self.size, self._plan, fields=("captions",))
        return CaptionPairBatches(source, scenes_processor(_spec(inputs.text_for(self.kind)), self.size, mask=True))

    def _plan(self, index: int, batch_size: int, split: str) -> Plan:
        return Plan(range(index * batch_size, (index + 1) * batch_size), self._make)

    def _make(self, record: Record, rng: np.random.Generator) -> Example:
        assert record.image is not None
        full, *others = record.captions
        first = others[int(rng.integers(len(others)))]
        second = full if rng.random() < self.full else others[int(rng.integers(len(others)))]
        alone = rng.random() < self.alone
        own = {OWN: np.array(rng.random() < 0.5)}
        return Example((record.image,), (TextRow(None if alone else first, second),), own)


@dataclass(frozen=True)
class SceneQuestions:
    """Images with `per_image` questions each, of all kinds alike often, and the scores of their answers."""

    kind: Literal["scene questions"] = "scene questions"
    size: int = 96
    per_image: int = 4

    def open(self, inputs: ModelInputs) -> AnswerBatches:
        """The batches, for a model with these texts, prompts, and name of the list of answers."""
        text, answers_file = inputs.text_for(self.kind), inputs.answers_for(self.kind)
        listed = {answers_file: ("\n".join(scene_answers()) + "\n").encode()}
        processor = scenes_processor(_spec(text), self.size, mask=True, files=listed)
        source = SceneRecords(self.size, self._plan, fields=())
        return AnswerBatches(source, processor, inputs.prompts, scene_answers())

    def _plan(self, index: int, batch_size: int, split: str) -> Plan:
        return Plan(range(index * batch_size, (index + 1) * batch_size), self._make)

    def _make(self, record: Record, rng: np.random.Generator) -> Example:
        assert record.image is not None
        s: Scene = record.facts["scene"]
        kinds, texts = answer_kinds(), list[TextRow]()
        while len(texts) < self.per_image:
            pair = ask(kinds[int(rng.integers(len(kinds)))], s.objects, rng, s.scale)
            if pair is not None:
                texts.append(TextRow(*pair))
        return Example((record.image,), tuple(texts))
