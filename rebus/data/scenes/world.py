"""The contents of scenes and how they are sampled: attributes, splits, positions."""

from dataclasses import dataclass

import numpy as np

from rebus.core.errors import UsageError, unknown

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "heart")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SIZES = ("small", "medium", "large")
FILLS = ("solid", "outlined", "striped")
MOST_OBJECTS = 5

RADII = {"small": 8.0, "medium": 12.5, "large": 18.0}  # pixels of a 96-pixel image
RADIUS_STEPS = (-0.5, 0.0, 0.5)  # so that a size is not one exact number of pixels

HELD_OUT = frozenset(  # (shape, colour): one for each shape, a colour of its own each
    {
        ("circle", "purple"),
        ("square", "orange"),
        ("triangle", "cyan"),
        ("star", "green"),
        ("cross", "yellow"),
        ("diamond", "red"),
        ("heart", "blue"),
    }
)
SPLITS = ("train", "val", "test", "novel")
_REACH = 1.08  # half the longer side of the widest shape's box, in radii
_MARGIN = 1.5  # pixels between objects, and to the border
_ORDER_GAP = 4.0  # pixels between the centres of neighbours from left to right: their order is never in doubt


@dataclass(frozen=True)
class SceneObject:
    """One object. `box`: left, top, right, bottom in pixels, tight around `mask` (H, W), the full outline inside."""

    shape: str
    colour: str
    size: str
    fill: str
    centre: tuple[float, float]  # x, y in pixels
    box: tuple[float, float, float, float]
    mask: np.ndarray

    @property
    def attributes(self) -> tuple[str, str, str, str]:
        """(size, fill, colour, shape): the order in which captions name them."""
        return self.size, self.fill, self.colour, self.shape


@dataclass(frozen=True)
class Plan:
    """An object before it is drawn, in pixels of a 96-pixel image."""

    shape: str
    colour: str
    size: str
    fill: str
    radius: float
    x: float
    y: float


def generator(seed: int, split: str, stream: int) -> np.random.Generator:
    """Random numbers of one scene; `stream` keeps drawing, wording and writing apart."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS, f"Splits: {', '.join(SPLITS)}.")
    if seed < 0:
        raise UsageError(f"a scene's seed must be 0 or more; got {seed}")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([SPLITS.index(split), seed, stream])))


def plan_scene(
    rng: np.random.Generator, split: str, count: int | None = None, kind: tuple[str, str] | None = None
) -> list[Plan]:
    """Objects with attributes and places, left to right, no two overlapping, no two alike in all attributes. `kind`:
    the shape and colour of a single object."""
    if kind is not None:
        placed = _place(rng, [(*kind, _pick(rng, SIZES), _pick(rng, FILLS))])
        assert placed is not None, "a single object has room"
        return placed
    count = int(rng.integers(1, MOST_OBJECTS + 1)) if count is None else count
    if not 1 <= count <= MOST_OBJECTS:
        raise UsageError(f"a scene holds 1 to {MOST_OBJECTS} objects; got count={count}")
    while True:
        placed = _place(rng, _attributes(rng, split, count))
        if placed is not None:
            return sorted(placed, key=lambda p: p.x)


def _attributes(rng: np.random.Generator, split: str, count: int) -> list[tuple[str, str, str, str]]:
    # Few shapes or few colours in one image make counts above one and hard distractors common.
    shapes = _few(rng, SHAPES) if rng.random() < 0.35 else SHAPES
    colours = _few(rng, COLOURS) if rng.random() < 0.35 else COLOURS
    chosen: list[tuple[str, str, str, str]] = []
    if split == "novel":
        shape, colour = sorted(HELD_OUT)[int(rng.integers(len(HELD_OUT)))]
        chosen.append((shape, colour, _pick(rng, SIZES), _pick(rng, FILLS)))
    while len(chosen) < count:
        drawn = (_pick(rng, shapes), _pick(rng, colours), _pick(rng, SIZES), _pick(rng, FILLS))
        if drawn[:2] not in HELD_OUT and drawn not in chosen:
            chosen.append(drawn)
    return chosen


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _few(rng: np.random.Generator, words: tuple[str, ...]) -> tuple[str, ...]:
    first = int(rng.integers(len(words)))
    second = (first + int(rng.integers(1, len(words)))) % len(words)
    return words[first], words[second]


def _place(rng: np.random.Generator, attributes: list[tuple[str, str, str, str]]) -> list[Plan] | None:
    """Whole-pixel places for all objects, the largest first; None when they do not fit."""
    placed: list[Plan] = []
    for shape, colour, size, fill in sorted(attributes, key=lambda a: -RADII[a[2]]):
        radius = RADII[size] + RADIUS_STEPS[int(rng.integers(len(RADIUS_STEPS)))]
        low, high = int(radius + _MARGIN + 2), int(96 - radius - _MARGIN - 1)
        for x, y in rng.integers(low, high, size=(40, 2)).tolist():
            if all(
                abs(x - p.x) >= _ORDER_GAP and max(abs(x - p.x), abs(y - p.y)) >= _REACH * (radius + p.radius) + _MARGIN
                for p in placed
            ):
                placed.append(Plan(shape, colour, size, fill, radius, x, y))
                break
        else:
            return None
    return placed
