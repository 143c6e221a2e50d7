"""One scene: the image and, computed on demand, all texts about it."""

from functools import cached_property

import numpy as np
from PIL import Image

from rebus.core.errors import UsageError, unknown
from rebus.data.scenes import language
from rebus.data.scenes.render import draw, placed
from rebus.data.scenes.world import COLOURS, HELD_OUT, SHAPES, SceneObject, generator, plan_scene
from rebus.data.scenes.writing import Writing, written

LABELS = tuple(f"{c} {s}" for c in COLOURS for s in SHAPES if (s, c) not in HELD_OUT)
NOVEL_LABELS = tuple(f"{c} {s}" for c in COLOURS for s in SHAPES if (s, c) in HELD_OUT)


class Scene:
    """An image (`planes` uint8 (3, size, size), `pixels` (size, size, 3)) and its `objects`, left to right. It is drawn
    when it is first looked at."""

    def __init__(self, seed: int, split: str, size: int, count: int | None, label: str | None = None):
        if size < 96:
            raise UsageError(f"scenes are 96 pixels or more on a side; got size={size}")
        self.seed, self.split, self.size = seed, split, size
        self._rng = generator(seed, split, 0)
        self._plans = plan_scene(self._rng, split, count, _kind(label, split))
        self.objects: list[SceneObject] = placed(self._plans, size)

    @cached_property
    def planes(self) -> np.ndarray:
        return draw(self._plans, self._rng, self.size)

    @cached_property
    def pixels(self) -> np.ndarray:
        return np.ascontiguousarray(self.planes.transpose(1, 2, 0))

    @property
    def scale(self) -> float:
        """Pixels of this image for one of a 96-pixel image."""
        return self.size / 96

    @cached_property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)

    @cached_property
    def captions(self) -> list[str]:
        """The first lists every attribute of every object from left to right; the others say less, or otherwise."""
        return language.captions(self.objects, self.scale)

    @cached_property
    def questions(self) -> list[tuple[str, str]]:
        """(question, answer): one of each kind that the scene allows."""
        return [pair for pair, _ in self.questions_by_kind]

    @cached_property
    def questions_by_kind(self) -> list[tuple[tuple[str, str], str]]:
        """((question, answer), kind)."""
        rng = generator(self.seed, self.split, 1)
        asked = ((language.ask(kind, self.objects, rng, self.scale), kind) for kind in language.answer_kinds())
        return [(pair, kind) for pair, kind in asked if pair is not None]

    @cached_property
    def writing(self) -> Writing | None:
        """The same scene with a number or a word written in it; None where there is no room."""
        return written(self.planes, self.objects, generator(self.seed, self.split, 2))

    @cached_property
    def phrases(self) -> list[tuple[str, int]]:
        """(phrase, index of the one object that it fits)."""
        return language.phrases(self.objects)

    @property
    def boxes(self) -> list[tuple[float, float, float, float]]:
        return [o.box for o in self.objects]

    @property
    def masks(self) -> list[np.ndarray]:
        return [o.mask for o in self.objects]

    @cached_property
    def labels(self) -> list[str]:
        """Each object's detection label, "red circle"."""
        return [f"{o.colour} {o.shape}" for o in self.objects]

    def matching(self, label: str) -> list[int]:
        """Indices of all objects that a label or phrase fits: "circle", "red circle", "small red object"."""
        return language.matching(label, self.objects)

    @property
    def label(self) -> str | None:
        """The class of a scene with a single object, one of `LABELS` or `NOVEL_LABELS`; None with more objects."""
        return self.labels[0] if len(self.objects) == 1 else None


def scene(
    seed: int, split: str = "train", size: int = 96, count: int | None = None, *, label: str | None = None
) -> Scene:
    """The scene of that seed and split, always the same. `count` fixes the number of objects (1 to 5); `label` asks for
    a single one of that label.

    Raises `UnknownName` for an unknown split or label, or one that the split does not have (`NOVEL_LABELS` are those of
    "novel" alone); `UsageError` for a negative seed, a size below 96, an impossible count.
    """
    return Scene(seed, split, size, count, label)


def labels_of(split: str) -> tuple[str, ...]:
    """The labels of single objects in a split."""
    return NOVEL_LABELS if split == "novel" else LABELS


def _kind(label: str | None, split: str) -> tuple[str, str] | None:
    """The shape and colour of a label."""
    if label is None:
        return None
    if label not in labels_of(split):
        raise unknown(f"label of the split {split}", label, labels_of(split))
    colour, shape = label.split()
    return shape, colour
