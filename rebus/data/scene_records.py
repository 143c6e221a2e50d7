"""The scenes world as a source of training batches."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from rebus.data.outlines import outline_of
from rebus.data.record import Record
from rebus.data.record_batches import TRIES, Plan
from rebus.data.scenes import LABELS, NOVEL_LABELS
from rebus.data.scenes.reader import FIELDS, scene_at, scene_record

_SEED = 1  # of the scenes of `SceneReader`; evaluation has those of 0


class SceneRecords:
    """Scenes by number, with the given fields of their records; `plan` says what is learned from them.

    One generator goes through a batch: the bundled checkpoints were trained so. `novel`: every other scene of the
    split "train" is one of the split "novel", which has a held-out pair of colour and shape in it. `most_objects`:
    scenes have 1 to so many objects in turn; by default as many as chance gives.
    """

    name = "scenes"
    one_stream = True

    def __init__(
        self,
        size: int,
        plan: Callable[[int, int, str], Plan],
        fields: tuple[str, ...] = FIELDS,
        novel: bool = False,
        most_objects: int | None = None,
    ):
        self.size, self._plan, self.fields, self.novel, self.most_objects = size, plan, fields, novel, most_objects

    def plan(self, index: int, batch_size: int, split: str) -> Plan:
        """What batch number `index` is made of."""
        return self._plan(index, batch_size, split)

    def read(self, seed: int, number: int, split: str, attempt: int) -> Record:
        """Scene `number` of that seed. Raises `UnknownName` for an unknown split."""
        if attempt:
            seed, number = seed + 1, number * TRIES + attempt
        if self.novel and split == "train" and number % 2:
            split = "novel"
        count = None if self.most_objects is None else 1 + number % self.most_objects
        return scene_record(scene_at(seed, number, split, self.size, count), self.fields)


@dataclass(frozen=True)
class SceneReader:
    """So many scenes with boxes and outlines, as a data set on disk would give them (`rebus.data.record.Reader`).

    Of the split "train", every other scene has an object of the held-out pairs of colour and shape: a detector that
    gets no boxes of these still sees them.
    """

    number: int
    split: str = "train"
    size: int = 96

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.number,)

    @property
    def labels(self) -> tuple[str, ...]:
        return (*LABELS, *NOVEL_LABELS)

    def read(self, block: int, row: int) -> Record:
        split = "novel" if self.split == "train" and row % 2 else self.split
        scene = scene_at(_SEED, row, split, self.size)
        record = scene_record(scene, ("things",))
        pairs = zip(record.things, scene.masks, strict=True)
        return replace(record, things=tuple(replace(thing, outline=outline_of(mask)) for thing, mask in pairs))
