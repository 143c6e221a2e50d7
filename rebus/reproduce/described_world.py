"""Scenes of two to four coloured shapes and sentences about two of them: as images, and as region
features for models that read those. Shapes, colours and drawing are those of `regions_world`."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rebus.reproduce import regions_world as regions
from rebus.reproduce import shapes_world as shapes

PAD, START, END, MASK = 0, 1, 2, 3  # START opens a text, END ends it or stands between two
RELATIONS = ("left of", "right of", "above", "below")
NUM_CLASSES = len(regions.NAMES)
NUM_COLOURS = len(shapes.COLOUR_NAMES)
_WORDS = sorted({*" ".join(regions.NAMES).split(), *" ".join(RELATIONS).split(), *"a the is".split()})
IDS = {word: number for number, word in enumerate(_WORDS, start=4)}
WORDS = tuple(IDS.values())
VOCAB_SIZE = len(IDS) + 4
ABSENT = regions.ABSENT
FEATURES = 32  # numbers of a region
_NOISE = 0.3  # of its features
SIZE = 32
_CELL = SIZE // 2


@dataclass(frozen=True)
class Scenes:
    """Things (N, K) in any order, no two of a scene alike: `classes`, the row in `regions_world.NAMES`, −1 for none;
    their centres `x`, `y` and `radius` in pixels."""

    classes: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def present(self) -> Tensor:
        """bool (N, 64): which classes are there."""
        found = np.zeros((len(self), NUM_CLASSES + 1), dtype=bool)
        np.put_along_axis(found, self.classes, True, axis=1)  # −1 is the last column
        return torch.from_numpy(found[:, :NUM_CLASSES])

    def pixels(self, seed: int) -> Tensor:
        """float32 (N, 3, 32, 32) in [−1, 1]."""
        rng = np.random.Generator(np.random.PCG64([seed, 1]))
        return regions.drawn(self.classes, self.x, self.y, self.radius, rng, size=SIZE)

    def regions(self, seed: int) -> tuple[Tensor, Tensor]:
        """float32 (N, K, 32), what a detector would say of each thing, with noise; bool (N, K), which are there."""
        kinds = np.maximum(self.classes, 0)
        told = np.concatenate(
            [
                np.eye(len(shapes.SHAPES))[kinds // NUM_COLOURS],
                np.eye(NUM_COLOURS)[kinds % NUM_COLOURS],
                np.stack([4 * self.x / SIZE - 2, 4 * self.y / SIZE - 2], axis=-1),
            ],
            axis=-1,
        )
        rng = np.random.Generator(np.random.PCG64([seed, 2]))
        features = told @ _projection(told.shape[-1]) + _NOISE * rng.standard_normal((*kinds.shape, FEATURES))
        return torch.from_numpy(features).float(), torch.from_numpy(self.classes != ABSENT)


@lru_cache(maxsize=1)
def _projection(width: int) -> np.ndarray:
    """The detector, the same for all seeds."""
    return np.random.Generator(np.random.PCG64(0)).standard_normal((width, FEATURES))


def scenes(seed: int, number: int, fewest: int = 2, most: int = 2) -> Scenes:
    """That many scenes of `fewest` to `most` things, each in a quarter of the image."""
    rng = np.random.Generator(np.random.PCG64([seed, number]))
    classes = rng.permuted(np.tile(np.arange(NUM_CLASSES), (number, 1)), axis=1)[:, :most]
    counts = rng.integers(fewest, most + 1, size=number)
    classes[np.arange(most) >= counts[:, None]] = ABSENT
    radius = rng.uniform(3.5, 6.5, size=classes.shape)
    cells = rng.permuted(np.tile(np.arange(4), (number, 1)), axis=1)[:, :most]
    x, y = (_CELL * at + rng.uniform(radius, _CELL - radius) for at in (cells % 2, cells // 2))
    return Scenes(classes, x, y, radius)


def caption(s: Scenes, row: int, rng: np.random.Generator) -> str:
    """ "a red circle left of a blue square", of two of its things."""
    one, other = _two(s, row, rng)
    first, second = (regions.NAMES[s.classes[row, i]] for i in (one, other))
    return f"a {first} {_relation(s, row, one, other)} a {second}"


def statement(s: Scenes, row: int, rng: np.random.Generator) -> tuple[str, bool]:
    """ "the red circle is left of the blue square", and whether it is true, as every other one is. What is false has
    its things exchanged, or another colour or shape in place of one, such that nothing of the scene is named."""
    one, other = _two(s, row, rng)
    classes, relation = [int(s.classes[row, i]) for i in (one, other)], _relation(s, row, one, other)
    is_true, how = bool(rng.random() < 0.5), rng.integers(3)
    if not is_true and how == 0:
        classes.reverse()
    elif not is_true:
        which = int(rng.integers(2))
        shape, colour = divmod(classes[which], NUM_COLOURS)
        others = {NUM_COLOURS * shape + c for c in range(NUM_COLOURS)} if how == 1 else {
            NUM_COLOURS * kind + colour for kind in range(len(shapes.SHAPES))
        }  # fmt: skip
        classes[which] = int(rng.choice(sorted(others - {int(c) for c in s.classes[row]})))
    first, second = (regions.NAMES[c] for c in classes)
    return f"the {first} is {relation} the {second}", is_true


def _two(s: Scenes, row: int, rng: np.random.Generator) -> tuple[int, int]:
    there = np.flatnonzero(s.classes[row] != ABSENT)
    one, other = rng.permutation(there)[:2]
    return int(one), int(other)


def _relation(s: Scenes, row: int, one: int, other: int) -> str:
    """Along the axis on which the two are further apart."""
    across, down = s.x[row, one] - s.x[row, other], s.y[row, one] - s.y[row, other]
    if abs(across) >= abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def ids(text: str) -> list[int]:
    """Its words."""
    return [IDS[word] for word in text.split()]


def padded(rows: list[list[int]], value: int = PAD) -> Tensor:
    """int64 (B, L), `value` after the end of each."""
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
