"""Pages of text and scenes in turn, as web pages have them: each sentence stands after the scene that it is about, and
between them stands text that is about none.
"""

from rebus.data.scenes.scene import Scene, scene
from rebus.data.scenes.world import generator

_STREAM = 4  # of the random numbers of a seed
_EACH = 1000  # scenes between those of two pages
MOST_SCENES = 4
PLAIN = (
    "what follows is a page of pictures.",
    "this page shows objects of any shape and colour.",
    "no picture is like the other.",
    "to the next one.",
    "there is no more to say of it.",
    "what is below is another one.",
)


def page(seed: int, split: str = "train", size: int = 96) -> tuple[str | Scene, ...]:
    """The page of that seed and split, always the same: two to `MOST_SCENES` scenes in reading order, each with a
    sentence after it, half of the pages with plain text before and half of the sentences with plain text after.

    Raises `UnknownName` for an unknown split.
    """
    rng = generator(seed, split, _STREAM)
    parts: list[str | Scene] = [PLAIN[rng.integers(len(PLAIN))]] if rng.random() < 0.5 else []
    for i in range(int(rng.integers(2, MOST_SCENES + 1))):
        one = scene(seed * _EACH + i, split, size)
        sentence = one.captions[int(rng.integers(len(one.captions)))] + "."
        plain = f" {PLAIN[rng.integers(len(PLAIN))]}" if rng.random() < 0.5 else ""
        parts += [one, sentence + plain]
    return tuple(parts)
