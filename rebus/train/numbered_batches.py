"""Batches by number, made by worker processes ahead of the step that needs them."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from rebus.core.errors import RebusError
from rebus.data.record_batches import Batches

_FAULT = "fault"  # in place of a batch: the kind of an error and its message


@dataclass(frozen=True)
class NumberedBatches(Dataset[dict[str, Any]]):
    """Of each batch of a split, the share of one rank: its number and how many there are."""

    data: Batches
    seed: int
    batch_size: int
    split: str
    share: tuple[int, int]

    def __getitem__(self, number: int) -> dict[str, Any]:
        try:
            return self.data.batch(self.seed, number, self.batch_size, self.split, self.share)
        except RebusError as error:  # PyTorch would bring it from a worker as a traceback in a message
            return {_FAULT: (type(error), str(error))}

    def of(self, numbers: range, workers: int, pinned: bool) -> Iterator[dict[str, Any]]:
        """The batches of these numbers, in order. Raises the `RebusError` that making one of them raised."""
        batches: DataLoader[dict[str, Any]] = DataLoader(
            self,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_leave_interrupts_to_the_run if workers else None,
            pin_memory=pinned,
        )
        for batch in batches:
            if _FAULT in batch:
                kind, message = batch[_FAULT]
                raise kind.__new__(kind, message)
            yield batch


def _leave_interrupts_to_the_run(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, SIGTERM every process of a service or job; the run ends its workers
    once its checkpoint is written. A second SIGTERM ends a worker that does not see that the run is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))
