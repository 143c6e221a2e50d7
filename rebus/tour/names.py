"""Few-shot episodes: classification with new names, which the model knows from examples in its prompt alone."""

import time
from dataclasses import dataclass
from typing import Any

from rebus.data.scenes import Episode, episode
from rebus.tour.scenes import FIRST_SEED

NUM_EPISODES, SHOTS = 12, 8


@dataclass(frozen=True)
class Named:
    """Episodes with held-out kinds of objects, and the name that the model predicted for each query."""

    model: str
    rows: tuple[tuple[Episode, str], ...]
    seconds: float

    @property
    def right(self) -> int:
        """The number of correctly named queries."""
        return sum(said == one.query.name for one, said in self.rows)


def name_scenes(model: Any) -> Named:
    """Classify each query among the names of its episode, after eight examples."""
    began, rows = time.perf_counter(), []
    for seed in range(FIRST_SEED, FIRST_SEED + NUM_EPISODES):
        one = episode(seed, "novel", shots=SHOTS)
        examples = [(shown.scene.image, shown.name) for shown in one.shots]
        rows.append((one, model.classify(one.query.scene.image, one.names, examples=examples).top))
    return Named(model.card.name, tuple(rows), time.perf_counter() - began)
