"""Ids of a run's batches → words, for people to read: images from files and scenes alike."""

from torch import Tensor

from rebus.data.scene_batches import EOS, PAD, scenes_tokenizer
from rebus.train.config import TrainConfig
from rebus.train.setup import processor_of, reads_files


class Words:
    """How the texts of a run are read: `decode`, and the ids by which they end and are padded."""

    def __init__(self, config: TrainConfig):
        self.text = processor_of(config).text if reads_files(config) else None
        self.eos_id: int | None = EOS
        self.pad_id = PAD
        if self.text is not None:
            self.eos_id, self.pad_id = self.text.spec.eos_id, self.text.spec.pad_id
        else:
            self._scenes = scenes_tokenizer(locations=config.system == "paligemma")

    def decode(self, rows: Tensor) -> list[str]:
        """One text a row, up to its end."""
        if self.text is not None:
            return self.text.decode(rows)
        return [self._scenes.decode([t for t in _upto(row.tolist(), self.eos_id) if t >= 0]) for row in rows]


def _upto(row: list[int], end: int | None) -> list[int]:
    return row[: row.index(end)] if end in row else row
