"""A world smaller than scenes: one coloured shape on 16 pixels, so that a claim's many runs fit into minutes.

Eight shapes × eight colours on four backgrounds, at any place and in any size, with noise. A caption names the colour
and the shape by one of its three names, in one of six phrases.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

SIZE = 16
SHAPES = (  # each with its three names
    ("circle", "disc", "dot"),
    ("square", "box", "block"),
    ("triangle", "wedge", "pyramid"),
    ("diamond", "rhombus", "lozenge"),
    ("cross", "plus", "crosslet"),
    ("ring", "hoop", "annulus"),
    ("saltire", "ex", "decussis"),
    ("bar", "stripe", "beam"),
)
COLOURS = {
    "red": (228, 40, 44),
    "orange": (246, 142, 30),
    "yellow": (244, 226, 60),
    "green": (44, 176, 68),
    "cyan": (64, 214, 226),
    "blue": (46, 84, 240),
    "purple": (176, 64, 214),
    "white": (246, 246, 246),
}
BACKGROUNDS = ((24, 24, 24), (96, 96, 96), (92, 62, 40), (30, 40, 90))
PHRASES = (
    "a {colour} {shape}",
    "a photo of a {colour} {shape}",
    "there is a {shape} in {colour}",
    "a small picture with a {colour} {shape}",
    "a {shape} that is {colour}",
    "one {colour} {shape} and nothing else",
)
NOISE = 0.05  # standard deviation, of the full range
PAD, START, END = 0, 1, 2
CONTEXT = 10  # the longest phrase has eight words
COLOUR_NAMES = tuple(COLOURS)
PAIRS = tuple((shape, colour) for shape in range(len(SHAPES)) for colour in range(len(COLOURS)))
HELD_OUT = tuple((shape, colour) for shape, colour in PAIRS if (shape + colour) % 4 == 0)  # two colours of each shape
_WORDS = sorted({*" ".join(PHRASES).replace("{colour}", "").replace("{shape}", "").split(), *COLOURS, *sum(SHAPES, ())})
IDS = {word: number for number, word in enumerate(_WORDS, start=3)}
VOCAB_SIZE = len(IDS) + 3


@dataclass(frozen=True)
class ImageSet:
    """`pixels` float32 (N, 3, 16, 16) in [−1, 1]; `pairs` int64 (N,), the row in `PAIRS`; `captions`."""

    pixels: Tensor
    pairs: Tensor
    captions: list[str]

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """What a dual-encoder network takes."""
        return {"pixels": self.pixels[rows], "tokens": tokens([self.captions[i] for i in rows.tolist()])}


def images(seed: int, number: int, pairs: tuple[tuple[int, int], ...] = PAIRS) -> ImageSet:
    """That many images of the given pairs of shape and colour, with one caption each."""
    rng = np.random.Generator(np.random.PCG64([seed, number]))
    chosen = np.array([PAIRS.index(pair) for pair in pairs])[rng.integers(len(pairs), size=number)]
    shapes, colours = chosen // len(COLOURS), chosen % len(COLOURS)
    ink = np.array(list(COLOURS.values()), dtype=np.float32)[colours] / 255
    ground = np.array(BACKGROUNDS, dtype=np.float32)[rng.integers(len(BACKGROUNDS), size=number)] / 255
    inside = _drawn(shapes, rng)
    drawn = ground[:, :, None, None] + inside[:, None] * (ink - ground)[:, :, None, None]
    drawn += NOISE * rng.standard_normal(drawn.shape, dtype=np.float32)
    names, phrases = rng.integers(3, size=number), rng.integers(len(PHRASES), size=number)
    captions = [
        PHRASES[p].format(colour=COLOUR_NAMES[c], shape=SHAPES[s][n])
        for s, c, n, p in zip(shapes, colours, names, phrases, strict=True)
    ]
    return ImageSet(torch.from_numpy(2 * drawn - 1), torch.from_numpy(chosen), captions)


def tokens(texts: list[str]) -> Tensor:
    """int64 (T, `CONTEXT`): start, words, end, padding."""
    rows = torch.full((len(texts), CONTEXT), PAD)
    for row, text in zip(rows, texts, strict=True):
        ids = [START, *(IDS[word] for word in text.split()), END]
        row[: len(ids)] = torch.tensor(ids)
    return rows


@lru_cache(maxsize=2)
def prompt_tokens(one: bool = False) -> Tensor:
    """int64 (64, texts, `CONTEXT`): the texts of each pair; `one`: a single one, "a photo of a red circle"."""
    found = prompts(PHRASES[1:2], names=1) if one else prompts()
    return torch.stack([tokens(texts) for texts in found])


def prompts(phrases: tuple[str, ...] = PHRASES, names: int = 3) -> list[list[str]]:
    """For each of `PAIRS` the texts that stand for it: every phrase with each of the shape's first `names` names."""
    return [
        [p.format(colour=COLOUR_NAMES[colour], shape=name) for p in phrases for name in SHAPES[shape][:names]]
        for shape, colour in PAIRS
    ]


def _drawn(shapes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 (N, 16, 16): how much of each pixel is ink, by four samples."""
    number, fine = len(shapes), 2
    radius = rng.uniform(3.5, 6.0, size=(number, 1, 1))
    x0, y0 = (rng.uniform(radius, SIZE - radius, size=(number, 1, 1)) for _ in range(2))
    at = (np.arange(SIZE * fine) + 0.5) / fine
    x, y = (at[None, None, :] - x0) / radius, (at[None, :, None] - y0) / radius
    inside = is_inside(shapes[:, None, None], x, y)
    return inside.reshape(number, SIZE, fine, SIZE, fine).mean(axis=(2, 4), dtype=np.float32)


def is_inside(shapes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in a shape, by its number in `SHAPES`; x and y are in radii from its centre, all broadcast."""
    far, across = np.hypot(x, y), np.maximum(abs(x), abs(y))
    ways = (  # in the order of SHAPES
        far <= 1,
        across <= 0.85,
        (y <= 0.85) & (abs(x) <= (y + 1) * 0.55),
        abs(x) + abs(y) <= 1.05,
        (np.minimum(abs(x), abs(y)) <= 0.3) & (across <= 1),
        (far <= 1) & (far >= 0.55),
        (np.minimum(abs(x - y), abs(x + y)) <= 0.42) & (across <= 0.9),
        (abs(y) <= 0.35) & (abs(x) <= 1),
    )
    return np.choose(shapes, np.broadcast_arrays(*ways))
