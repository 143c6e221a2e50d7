"""What a run tells about itself: TensorBoard, Weights & Biases, and the damaged records it met."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rebus.core.errors import MissingExtra, RebusError
from rebus.train.config import Watch

_JUDGED_AFTER = 100  # records; before that a few damaged ones say little


class Watcher:
    """Sends each line of the metrics to where the recipe asks. Raises `MissingExtra` for what is not installed."""

    def __init__(self, watch: Watch, out: Path, start: int):
        self.board: Any = None
        self.wandb: Any = None
        if watch.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise MissingExtra("train", "TensorBoard") from None
            self.board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)
        if watch.wandb is not None:
            try:
                import wandb
            except ImportError:
                raise MissingExtra("wandb", "Weights & Biases") from None
            self.wandb = wandb.init(project=watch.wandb, dir=str(out), id=out.name, resume="allow")

    def write(self, line: Mapping[str, Any]) -> None:
        """One step."""
        numbers = {k: v for k, v in line.items() if isinstance(v, int | float) and k != "step"}
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, line["step"])
        if self.wandb is not None:
            self.wandb.log(numbers, step=line["step"])

    def close(self) -> None:
        for place in (self.board, self.wandb):
            if place is not None:
                place.close() if place is self.board else place.finish()


class Records:
    """Counts damaged records, and stops a run that meets too many."""

    def __init__(self, most: float):
        self.most, self.seen, self.damaged = most, 0, 0

    def count(self, damaged: Sequence[str], seen: int) -> list[str]:
        """The damaged records of a batch, as they came. Raises `RebusError` when their share is too large."""
        self.seen += seen + len(damaged)
        self.damaged += len(damaged)
        if self.seen >= _JUDGED_AFTER and self.damaged > self.most * self.seen:
            raise RebusError(
                f"{self.damaged:,} of {self.seen:,} records were damaged, more than data.most_damaged={self.most:g} "
                f"allows; the last: {damaged[-1] if damaged else 'see metrics.jsonl'}"
            )
        return list(damaged)

    def state(self) -> dict[str, int]:
        return {"seen": self.seen, "damaged": self.damaged}

    def restore(self, state: Mapping[str, int]) -> None:
        self.seen, self.damaged = state["seen"], state["damaged"]
