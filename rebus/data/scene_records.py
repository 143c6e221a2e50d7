"""The scenes world as a source of training batches."""

from collections.abc import Callable

from rebus.data.record import Record
from rebus.data.record_batches import TRIES, Plan
from rebus.data.scenes.reader import FIELDS, scene_at, scene_record


class SceneRecords:
    """Scenes by number, with the given fields of their records; `plan` says what is learned from them.

    One generator goes through a batch: the bundled checkpoints were trained so.
    """

    name = "scenes"
    one_stream = True

    def __init__(self, size: int, plan: Callable[[int, int, str], Plan], fields: tuple[str, ...] = FIELDS):
        self.size, self._plan, self.fields = size, plan, fields

    def plan(self, index: int, batch_size: int, split: str) -> Plan:
        """What batch number `index` is made of."""
        return self._plan(index, batch_size, split)

    def read(self, seed: int, number: int, split: str, attempt: int) -> Record:
        """Scene `number` of that seed. Raises `UnknownName` for an unknown split."""
        if attempt:
            seed, number = seed + 1, number * TRIES + attempt
        return scene_record(scene_at(seed, number, split, self.size), self.fields)
