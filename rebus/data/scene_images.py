"""The images of scenes alone, for what turns images into codes and back."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.data.forms import Example
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, RecordBatches
from rebus.data.scene_records import SceneRecords


@dataclass(frozen=True)
class SceneImages:
    """Scenes of `size` pixels a side, resized as the model expects its images."""

    kind: Literal["scene images"] = "scene images"
    size: int = 96

    def open(self, inputs: ModelInputs) -> RecordBatches:
        """The batches: `pixels`. Raises `UsageError` for a model that reads no images."""
        processor = Processor(ImagePipeline(inputs.image_for(self.kind), threads=1), None)
        return RecordBatches(SceneRecords(self.size, self._plan, fields=()), processor, reads=False)

    def _plan(self, index: int, batch_size: int, split: str) -> Plan:
        return Plan(range(index * batch_size, (index + 1) * batch_size), self._make)

    def _make(self, record: Record, rng: np.random.Generator) -> Example:
        assert record.image is not None
        return Example((record.image,))
