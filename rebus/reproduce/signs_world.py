"""Two coloured shapes, one of them large, and a sign with a digit, each in a cell of 3 × 3: what their captions and
class labels say, and what can be asked about them. Shapes, colours and drawing are those of `regions_world`."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rebus.core.labels import IGNORED
from rebus.data.scenes.writing import dots
from rebus.reproduce import regions_world as regions
from rebus.reproduce import shapes_world as shapes

GRID, CELL = 3, 12
SIZE = GRID * CELL  # pixels
RADII = ((4.4, 5.2), (2.8, 3.6))  # of the large thing, of the small one
BIN = 2  # pixels that a coordinate of an answer is exact to
_SHAPES, _COLOURS = (0, 1, 4, 5), (0, 3, 5, 7)  # of shapes_world
KINDS = tuple(shape * len(shapes.COLOUR_NAMES) + colour for shape in _SHAPES for colour in _COLOURS)
NUM_KINDS = len(KINDS)
DIGITS = "0123456789"
_DOWN, _ACROSS = ("top", "middle", "bottom"), ("left", "centre", "right")
PAD, START, END = 0, 1, 2
_NAMES = sorted({word for kind in KINDS for word in regions.NAMES[kind].split()})
_WORDS = (*_NAMES, *_DOWN, *_ACROSS, "written", "find", "read", "name", *DIGITS)
IDS = {word: number for number, word in enumerate(_WORDS, start=3)}
PLACES = len(IDS) + 3  # the first of the tokens for coordinates
VOCAB_SIZE = PLACES + SIZE // BIN + 1
CAPTION = 10  # tokens of the longest


@dataclass(frozen=True)
class Signs:
    """`kinds` (N, 2), places in `KINDS`, the large thing first; `boxes` (N, 2, 4) xyxy in pixels; `cells` (N, 3) of
    both and of the sign; `digits` (N,); `pixels` float32 (N, 3, 36, 36) in [−1, 1]."""

    kinds: np.ndarray
    boxes: np.ndarray
    cells: np.ndarray
    digits: np.ndarray
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.kinds)


def signs(seed: int, number: int) -> Signs:
    """That many images; the two things are of different kinds."""
    rng = np.random.Generator(np.random.PCG64([seed, number]))
    kinds = rng.permuted(np.tile(np.arange(NUM_KINDS), (number, 1)), axis=1)[:, :2]
    cells = rng.permuted(np.tile(np.arange(GRID**2), (number, 1)), axis=1)[:, :3]
    radius = np.stack([rng.uniform(*bounds, size=number) for bounds in RADII], axis=1)
    x, y = (CELL * at[:, :2] + rng.uniform(radius, CELL - radius) for at in (cells % GRID, cells // GRID))
    digits = rng.integers(len(DIGITS), size=number)
    pixels = regions.drawn(np.array(KINDS)[kinds], x, y, radius, rng, size=SIZE)
    for i, (digit, cell) in enumerate(zip(digits, cells[:, 2], strict=True)):
        plate = torch.from_numpy(1.6 * dots(DIGITS[digit]) - 0.8).float()
        down, across = (CELL * int(at) + (CELL - side) // 2 for at, side in
                        zip((cell // GRID, cell % GRID), plate.shape, strict=True))  # fmt: skip
        noise = torch.from_numpy(2 * shapes.NOISE * rng.standard_normal((3, *plate.shape), dtype=np.float32))
        pixels[i, :, down : down + plate.shape[0], across : across + plate.shape[1]] = plate + noise
    return Signs(kinds, np.stack([x - radius, y - radius, x + radius, y + radius], axis=-1), cells, digits, pixels)


def captions(s: Signs, rows: Tensor, rng: np.random.Generator, *, whole: bool = True) -> Tensor:
    """int64 (B, `CAPTION`): "red circle top left blue ring middle right written 7", each of the three in two of
    three captions, one at least. Not `whole`: neither places nor what is written, "red circle blue ring"."""
    texts = []
    for row in rows.tolist():
        told = rng.random(3) < 0.5
        told[int(rng.integers(3 if whole else 2))] = True
        words = []
        for thing in range(2):
            if told[thing]:
                words += [regions.NAMES[KINDS[s.kinds[row, thing]]], _place(s.cells[row, thing]) if whole else ""]
        words += [f"written {DIGITS[s.digits[row]]}"] if whole and told[2] else []
        texts.append(_ids(" ".join(words)))
    return _padded(texts, PAD, CAPTION)


def questions(s: Signs) -> tuple[Tensor, Tensor]:
    """Four questions an image, tokens (4N, 3) and answers (4N, 5): where each of its things is, what is written, what
    its large thing is."""
    asked, answers = [], []
    for kinds, boxes, digit in zip(s.kinds, s.boxes, s.digits, strict=True):
        names = [regions.NAMES[KINDS[kind]] for kind in kinds]
        asked += [*(_ids(f"find {name}") for name in names), _ids("read"), _ids("name")]
        places = (PLACES + np.rint(boxes / BIN).astype(int)).tolist()
        answers += [[*ids, END] for ids in (*places, _ids(DIGITS[digit]), _ids(names[0]))]
    return _padded(asked, PAD, 3), _padded(answers, IGNORED, 5)


def _place(cell: int) -> str:
    return f"{_DOWN[cell // GRID]} {_ACROSS[cell % GRID]}"


def _ids(text: str) -> list[int]:
    return [IDS[word] for word in text.split()]


def _padded(rows: list[list[int]], value: int, width: int) -> Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
