"""The captions of scenes without their images, for language models."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.core.specs import TextSpec
from rebus.data.forms import Example, TextRow
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, RecordBatches
from rebus.data.scene_records import SceneRecords
from rebus.data.scene_tokenizer import EOS, PAD, scenes_tokenizer

_DRAWN = 96  # pixels a side: which objects fit into a scene depends on its size


@dataclass(frozen=True)
class SceneTexts:
    """One full caption of each scene."""

    kind: Literal["scene texts"] = "scene texts"

    def open(self, inputs: ModelInputs) -> RecordBatches:
        """The batches, for a model of that context: `tokens`, which are an end token alone, `mask`, `targets`."""
        spec = TextSpec(context=inputs.context, pad_id=PAD, eos_id=EOS, generates=True)
        processor = Processor(None, TextPipeline(scenes_tokenizer(), spec))
        return RecordBatches(SceneRecords(_DRAWN, self._plan, fields=("captions",)), processor)

    def _plan(self, index: int, batch_size: int, split: str) -> Plan:
        return Plan(range(index * batch_size, (index + 1) * batch_size), self._make)

    def _make(self, record: Record, rng: np.random.Generator) -> Example:
        return Example((), (TextRow("", record.captions[0]),))
