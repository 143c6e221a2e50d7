"""Scenes with one caption each, for dual encoders."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rebus.core.specs import TextSpec
from rebus.data.forms import Example, TextRow
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, RecordBatches
from rebus.data.scene_records import SceneRecords
from rebus.data.scene_tokenizer import BOS, EOS, PAD, scenes_processor


@dataclass(frozen=True)
class SceneCaptions:
    """Images with one caption each, for dual encoders.

    `full`: how often it is the full caption; else one of the shorter ones, which are true of other images, too, and
    so make a batch noisier. `named`: how often a scene of one object gets its label instead, with or without article,
    which is what classification asks for. `begin`: whether texts begin with `<bos>`. Texts are cut and padded to
    `context`.
    """

    kind: Literal["scene captions"] = "scene captions"
    size: int = 96
    context: int = 32
    begin: bool = False
    full: float = 0.8
    named: float = 0.0
    pad: int = PAD

    def open(self, inputs: ModelInputs) -> RecordBatches:
        """The batches: `pixels` uint8, `tokens`, `mask`."""
        spec = TextSpec(
            context=self.context,
            pad_id=self.pad,
            eos_id=EOS,
            bos_id=BOS if self.begin else None,
            pad_to_context=True,
        )
        source = SceneRecords(self.size, self._plan, fields=("captions",))
        return RecordBatches(source, scenes_processor(spec, self.size))

    def _plan(self, index: int, batch_size: int, split: str) -> Plan:
        return Plan(range(index * batch_size, (index + 1) * batch_size), self._make)

    def _make(self, record: Record, rng: np.random.Generator) -> Example:
        assert record.image is not None
        return Example((record.image,), (TextRow(None, self._text(record, rng)),))

    def _text(self, record: Record, rng: np.random.Generator) -> str:
        label, captions = record.label, record.captions
        if self.named and label is not None and rng.random() < self.named:
            return f"{'an' if label[0] in 'aeiou' else 'a'} {label}" if rng.random() < 0.5 else label
        return captions[0] if rng.random() < self.full else captions[int(rng.integers(len(captions)))]
