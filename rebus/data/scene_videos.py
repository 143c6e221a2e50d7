"""Short videos of the scenes world, each with what moves where, as a caption or as a question with its answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rebus.data.document_batches import DocumentBatches
from rebus.data.forms import Example, filled
from rebus.data.model_inputs import ModelInputs
from rebus.data.record import Record
from rebus.data.record_batches import Plan, Row
from rebus.data.scene_documents import document_words
from rebus.data.scene_tokenizer import BOS, PAD, scenes_processor
from rebus.data.scenes import video

_SEEDS = 1_000_000_000  # videos between the series of two seeds


@dataclass(frozen=True)
class SceneVideos:
    """Documents of one video of so many `frames` and its caption, or with the odds `asked` a question about it; in the
    tokens of `SceneDocuments` with the same prompts."""

    kind: Literal["scene videos"] = "scene videos"
    size: int = 96
    frames: int = 4
    asked: float = 0.5
    caption: str = "Output:"
    question: str = "Question:{question} Short answer:"

    def open(self, inputs: ModelInputs) -> DocumentBatches:
        """The batches of `DocumentBatches`, with `pixels` uint8 (B, 1, F, 3, H, W)."""
        text = replace(inputs.text_for(self.kind), pad_id=PAD, bos_id=BOS)
        words = document_words(self.caption, self.question)
        return _VideoBatches(_Videos(self), scenes_processor(text, self.size, more=words, added=text.added_tokens))


class _Videos:
    """The source of `SceneVideos`."""

    name, one_stream = "scene videos", False

    def __init__(self, data: SceneVideos):
        self.data = data

    def plan(self, index: int, batch_size: int, split: str) -> Plan:
        """As of `Source`."""
        return Plan(range(index * batch_size, (index + 1) * batch_size), self._make)

    def read(self, seed: int, number: int, split: str, attempt: int) -> Record:
        """Video `number` of that seed. Nothing of it is damaged, so that nothing stands in for it."""
        return Record(key=f"video {split}:{number}", facts={"seed": seed * _SEEDS + number, "split": split})

    def _make(self, record: Record, rng: np.random.Generator) -> Example:
        data = self.data
        found = video(record.facts["seed"], record.facts["split"], data.frames, data.size)
        text = f"{data.caption} {found.caption}"
        if rng.random() < data.asked:
            question, answer = found.questions[rng.integers(len(found.questions))]
            text = f"{filled(data.question, question=question)} {answer}"
        return Example(tuple(found.planes.transpose(0, 2, 3, 1)), document=(None, text))


class _VideoBatches(DocumentBatches):
    """Documents whose images are the frames of the one video that their mark stands for."""

    def _tensors(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        clips = torch.stack([row.images["pixels"] for row in rows])
        return super()._tensors(rows) | {"pixels": clips[:, None]}
