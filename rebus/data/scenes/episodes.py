"""Few-shot episodes: made-up names for kinds of objects, new in each episode: only the examples show which name
is whose (after Alayrac et al., "Flamingo", 2022; the words are in the manner of word-learning experiments).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rebus.core.errors import UsageError
from rebus.data.scenes.scene import Scene, labels_of, scene
from rebus.data.scenes.world import generator

NAMES = tuple("blicket bosa dax fep gazzer kiki lorp modi nef pim rada sarn toma tufa wug zup".split())
MOST_CLASSES = 7  # as many as there are held-out labels
_STREAM = 3  # of the random numbers of a seed
_EACH = 1000  # scenes between those of two episodes
_ALIKE = 0.5  # how often another class has the shape or the colour of the first, where the split has such


class Shown(NamedTuple):
    """A scene of one object, and the made-up name of its kind."""

    scene: Scene
    name: str


@dataclass(frozen=True)
class Episode:
    """`meanings`: name → label, of all classes. The first examples show each class once, in random order; the others,
    and the query, show any."""

    meanings: dict[str, str]
    shots: tuple[Shown, ...]
    query: Shown

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of all classes, in the order of the alphabet."""
        return tuple(sorted(self.meanings))


def episode(seed: int, split: str = "train", classes: int = 4, shots: int = 8, size: int = 96) -> Episode:
    """The episode of that seed and split, always the same. Its labels are those of single objects in the split: all
    held out in "novel", none of these elsewhere. More shots of the same seed begin with those of fewer.

    Raises `UnknownName` for an unknown split, `UsageError` for numbers that do not go.
    """
    if not 2 <= classes <= MOST_CLASSES or not 0 <= shots < _EACH:
        raise UsageError(
            f"an episode has 2 to {MOST_CLASSES} classes and up to {_EACH - 1} shots; got {classes}, {shots}"
        )
    rng = generator(seed, split, _STREAM)
    labels = _labels(rng, labels_of(split), classes)
    names = [NAMES[i] for i in rng.permutation(len(NAMES))[:classes]]
    asked = int(rng.integers(classes))
    order = [*rng.permutation(classes), *rng.integers(classes, size=max(shots - classes, 0))][:shots]
    seeds = range(seed * _EACH, (seed + 1) * _EACH)

    def shown(which: int, place: int) -> Shown:
        return Shown(scene(seeds[place], split, size, label=labels[which]), names[which])

    examples = tuple(shown(int(which), i) for i, which in enumerate(order, start=1))
    return Episode(dict(zip(names, labels, strict=True)), examples, shown(asked, 0))


def _labels(rng: np.random.Generator, among: tuple[str, ...], number: int) -> list[str]:
    """Different labels; half of those after the first share a word with it, where there are such."""
    found = [among[int(rng.integers(len(among)))]]
    while len(found) < number:
        left = [label for label in among if label not in found]
        alike = [label for label in left if set(label.split()) & set(found[0].split())]
        pool = alike if alike and rng.random() < _ALIKE else left
        found.append(pool[int(rng.integers(len(pool)))])
    return found
