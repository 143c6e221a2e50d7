"""Scenes with the attributes of their objects as class labels and no text, for image encoders."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rebus.core.labels import IGNORED
from rebus.core.specs import TextSpec
from rebus.data.forms import Example
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, RecordBatches
from rebus.data.scene_records import SceneRecords
from rebus.data.scene_tokenizer import PAD, scenes_processor
from rebus.data.scenes import COLOURS, FILLS, SHAPES, SIZES
from rebus.data.scenes.world import MOST_OBJECTS

_KINDS = (SHAPES, COLOURS, SIZES, FILLS)


@dataclass(frozen=True)
class SceneLabels:
    """Images, and the shape, colour, size and fill of each object from left to right."""

    kind: Literal["scene labels"] = "scene labels"
    size: int = 96

    def open(self, inputs: ModelInputs) -> RecordBatches:
        """The batches: `pixels` uint8, `labels` (B, 5, 4) int64, -100 where there is no object."""
        source = SceneRecords(self.size, self._plan, fields=())
        return RecordBatches(source, scenes_processor(TextSpec(context=1, pad_id=PAD), self.size))

    def _plan(self, index: int, batch_size: int, split: str) -> Plan:
        return Plan(range(index * batch_size, (index + 1) * batch_size), _make)


def _make(record: Record, rng: np.random.Generator) -> Example:
    assert record.image is not None
    labels = np.full((MOST_OBJECTS, len(_KINDS)), IGNORED, dtype=np.int64)
    for rank, one in enumerate(record.facts["scene"].objects):
        values = (one.shape, one.colour, one.size, one.fill)
        labels[rank] = [kind.index(value) for kind, value in zip(_KINDS, values, strict=True)]
    return Example((record.image,), (), {"labels": labels})
