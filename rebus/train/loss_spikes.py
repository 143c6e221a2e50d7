"""What to do about a step that went wrong: leave it out, count it, and give the run up when it goes on so."""

import math
import statistics
from collections import deque
from typing import Any

from rebus.core.errors import RebusError

MOST_SKIPPED = 20  # steps left out in a row before a run is given up
REMEMBERED = 64  # losses that say what is usual


class LossGuard:
    """Judges each step by its loss and gradient. Its memory is part of the checkpoint, so that a resumed run judges
    alike.

    `spike`: a loss is left out, too, when it lies further above the median of the last 64 than `spike` times their
    usual distance from it; 0: never.
    """

    def __init__(self, spike: float, seed: int, lr: float):
        self.spike, self.seed, self.lr = spike, seed, lr
        self.recent: deque[float] = deque(maxlen=REMEMBERED)
        self.skipped = 0

    def accepts(self, step: int, loss: float, norm: float) -> bool:
        """Whether to take the step. Raises `RebusError` naming the batches after 20 refusals in a row."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite and not self._is_spike(loss):
            self.skipped = 0
            self.recent.append(loss)
            return True
        self.skipped += 1
        if self.skipped >= MOST_SKIPPED:
            what = "no finite loss" if not finite else "a loss far above the usual"
            raise RebusError(
                f"{what} in steps {step - self.skipped + 1} to {step} (batches {step - self.skipped} to {step - 1} "
                f"of seed {self.seed}); the last good checkpoint was saved. Try a lower optim.lr than {self.lr:g}"
            )
        return False

    def _is_spike(self, loss: float) -> bool:
        if not self.spike or len(self.recent) < REMEMBERED // 2:
            return False
        middle = statistics.median(self.recent)
        distribute = statistics.median(abs(value - middle) for value in self.recent)
        return loss > middle + self.spike * max(distribute, 0.01 * abs(middle))

    def state(self) -> dict[str, Any]:
        return {"recent": list(self.recent), "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        self.recent.extend(state["recent"])
        self.skipped = state["skipped"]
