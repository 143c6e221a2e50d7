"""Short videos: the objects of a scene before one background, each of which moves one way at one speed, or stays."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from rebus.core.errors import UsageError
from rebus.data.scenes.render import draw, placed
from rebus.data.scenes.world import Plan, generator, plan_scene

MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "nowhere": (0, 0)}
WHERE = "where does the {} move?"
_STREAM = 5  # of the random numbers of a seed
_SHORTEST, _LONGEST = 16, 40  # pixels of a 96-pixel image that a moving object covers
_GAP = 3.0  # pixels between the boxes of objects, at any time, and to the border


@dataclass(frozen=True)
class Video:
    """`planes` uint8 (frames, 3, size, size); of each object, left to right at the beginning, its `labels` ("red
    circle"), its `motions`, keys of `MOTIONS`, and `boxes` (frames, objects, 4) in pixels."""

    planes: np.ndarray
    boxes: np.ndarray
    labels: tuple[str, ...]
    motions: tuple[str, ...]

    @cached_property
    def frames(self) -> list[Image.Image]:
        return [Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))) for planes in self.planes]

    @property
    def caption(self) -> str:
        """What each object does: `red circle moves left, blue star moves nowhere`."""
        return ", ".join(f"{label} moves {way}" for label, way in zip(self.labels, self.motions, strict=True))

    @property
    def questions(self) -> list[tuple[str, str]]:
        """(question, answer) about each object."""
        return [(WHERE.format(label), way) for label, way in zip(self.labels, self.motions, strict=True)]


def video(seed: int, split: str = "train", frames: int = 4, size: int = 96) -> Video:
    """The video of that seed and split, always the same: one or two objects that differ in colour or shape, the first
    of which moves. More frames of the same seed show the same motion in smaller steps.

    Raises `UnknownName` for an unknown split, `UsageError` for fewer than two frames, or a size below 96.
    """
    if frames < 2 or size < 96:
        raise UsageError(f"a video has 2 frames or more of 96 pixels or more on a side; got {frames} and {size}")
    rng = generator(seed, split, _STREAM)
    while True:
        plans = plan_scene(rng, split, int(rng.integers(1, 3)))
        ways = [list(MOTIONS)[rng.integers(len(MOTIONS))] for _ in plans]
        reach = int(rng.integers(_SHORTEST, _LONGEST + 1))
        kinds = {(plan.colour, plan.shape) for plan in plans}
        times = np.linspace(0, 1, 9)  # enough to see whether two meet on their ways
        if len(kinds) == len(plans) and set(ways) != {"nowhere"} and all(_apart(plans, ways, reach * t) for t in times):
            break
    drawing = int(rng.integers(2**32))
    moments = [_moved(plans, ways, reach * i / (frames - 1)) for i in range(frames)]
    planes = [draw(moment, np.random.default_rng(drawing), size) for moment in moments]
    boxes = np.array([[one.box for one in placed(moment, size)] for moment in moments])
    return Video(np.stack(planes), boxes, tuple(f"{p.colour} {p.shape}" for p in plans), tuple(ways))


def _moved(plans: list[Plan], ways: list[str], distance: float) -> list[Plan]:
    steps = [MOTIONS[way] for way in ways]
    return [replace(p, x=p.x + distance * x, y=p.y + distance * y) for p, (x, y) in zip(plans, steps, strict=True)]


def _apart(plans: list[Plan], ways: list[str], distance: float) -> bool:
    """Whether all objects are inside, and none touches another."""
    now = _moved(plans, ways, distance)
    inside = all(1.1 * p.radius + _GAP <= min(p.x, p.y) and max(p.x, p.y) <= 96 - 1.1 * p.radius - _GAP for p in now)
    return inside and all(
        max(abs(p.x - q.x), abs(p.y - q.y)) >= 1.1 * (p.radius + q.radius) + _GAP
        for i, p in enumerate(now)
        for q in now[:i]
    )
