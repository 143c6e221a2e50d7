"""A world of nine cells with a coloured shape in some of them, and questions about colours, for generative models.

`count red` and `at 4`: what is asked for is spread over the image, or stands in one place. Nobody asks for shapes:
on 8 pixels they seem to be learned long after places.
"""

import numpy as np
import torch
from torch import Tensor

from rebus.core.labels import IGNORED

GRID, CELL = 3, 8
SIZE = GRID * CELL
COLOURS = {"red": (228, 40, 44), "green": (44, 176, 68), "blue": (46, 84, 240), "yellow": (244, 226, 60)}
SHAPES = ("circle", "square", "cross", "diamond")  # a cell holds 0, or 1 + 4 · colour + shape
NUMBERS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
EMPTY = 0.2  # share of the cells
_WORDS = ("<pad>", "<eos>", "<bos>", "<image>", "\n", "count", "at", "none", *COLOURS, *NUMBERS)
IDS = {word: number for number, word in enumerate(_WORDS)}
IMAGE = IDS["<image>"]
VOCAB_SIZE = len(IDS)


def batch(seed: int, index: int, number: int) -> dict[str, Tensor]:
    """`pixels` (B, 3, 24, 24) in [−1, 1], `tokens`, `mask`, `targets`; rows 0, 2, … count, 1, 3, … name a colour."""
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    cells = np.where(rng.random((number, GRID, GRID)) < EMPTY, 0, rng.integers(1, 17, size=(number, GRID, GRID)))
    cells[:, 0, 0] = np.where(cells.reshape(number, -1).any(axis=1), cells[:, 0, 0], 1)  # something is always there
    rows = [_count(cells[i], rng) if i % 2 == 0 else _at(cells[i], rng) for i in range(number)]
    prompts = [["<image>"] * GRID**2 + ["<bos>", *asked.split(), "\n"] for asked, _ in rows]
    answers = [[*answer.split(), "<eos>"] for _, answer in rows]
    tokens = _padded(prompts, IDS["<pad>"], GRID**2 + 4)
    return {
        "pixels": _drawn(cells, rng),
        "tokens": tokens,
        "mask": tokens != IDS["<pad>"],
        "targets": _padded(answers, IGNORED, 2),
    }


def _count(cells: np.ndarray, rng: np.random.Generator) -> tuple[str, str]:
    """How many things have a colour: nothing, one thing or more, each often."""
    colours = [(int(c) - 1) // len(SHAPES) for c in cells.flat if c]
    colour = colours[int(rng.integers(len(colours)))] if rng.random() < 0.8 else int(rng.integers(len(COLOURS)))
    return f"count {list(COLOURS)[colour]}", NUMBERS[colours.count(colour)]


def _at(cells: np.ndarray, rng: np.random.Generator) -> tuple[str, str]:
    """The colour in the cell of that number, counted along the rows."""
    place = int(rng.integers(cells.size))
    thing = int(cells.flat[place])
    return f"at {NUMBERS[place]}", list(COLOURS)[(thing - 1) // len(SHAPES)] if thing else "none"


def _padded(rows: list[list[str]], value: int, width: int) -> Tensor:
    return torch.tensor([[IDS[word] for word in row] + [value] * (width - len(row)) for row in rows])


def _drawn(cells: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Each cell with its shape, a pixel off the middle at most, on a noisy dark ground."""
    number, tiles = len(cells), cells.size
    at = np.arange(CELL) - (CELL - 1) / 2
    shift = rng.integers(-1, 2, size=(2, tiles, 1, 1)) * 0.5
    x, y = at[None, None, :] - shift[0], at[None, :, None] - shift[1]
    ways = (
        np.hypot(x, y) <= 3,
        np.maximum(abs(x), abs(y)) <= 2.6,
        (np.minimum(abs(x), abs(y)) <= 0.8) & (np.maximum(abs(x), abs(y)) <= 3.2),
        abs(x) + abs(y) <= 3.2,
    )
    kinds = cells.reshape(-1)
    inside = np.choose((np.maximum(kinds, 1) - 1)[:, None, None] % len(SHAPES), np.broadcast_arrays(*ways))
    inside = inside & (kinds > 0)[:, None, None]
    ink = np.array(list(COLOURS.values()), dtype=np.float32)[(np.maximum(kinds, 1) - 1) // len(SHAPES)] / 255
    tile = 0.2 + inside[:, None] * (ink - 0.2)[:, :, None, None] + 0.05 * rng.standard_normal((tiles, 3, CELL, CELL))
    image = tile.reshape(number, GRID, GRID, 3, CELL, CELL).transpose(0, 3, 1, 4, 2, 5)
    return torch.from_numpy(2 * image.reshape(number, 3, SIZE, SIZE).astype(np.float32) - 1)
