"""What a benchmark gives: scores, the worst mistakes, and what is worth a plot; not yet drawn or written."""

import heapq
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rebus.core.answers import Box, Mask
from rebus.data.record import StoredImage

NUM_WORST = 12  # mistakes that are shown


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """What was said of an image and what is true. `badness` ranks mistakes of one benchmark; `image` reads it."""

    key: str
    badness: float
    said: str
    truth: str
    image: Callable[[], StoredImage | None]
    found: Sequence[Box | Mask] = ()
    wanted: Sequence[Box | Mask] = ()


class Worst:
    """Keeps the worst mistakes of many, the same ones in whatever order they come."""

    def __init__(self, size: int = NUM_WORST):
        self.size = size
        self._heap: list[tuple[float, int, int, Mistake]] = []
        self._number = itertools.count()

    def add(self, mistake: Mistake) -> None:
        """Of equally bad ones, chance by the key decides: the first images of a data set often look alike."""
        chance = zlib.crc32(f"{mistake.key}\0{mistake.said}".encode("utf-8", "replace"))
        heapq.heappush(self._heap, (mistake.badness, chance, next(self._number), mistake))
        if len(self._heap) > self.size:
            heapq.heappop(self._heap)

    def __iter__(self) -> Iterator[Mistake]:
        """The worst first."""
        return (entry[-1] for entry in sorted(self._heap, key=lambda entry: entry[:3], reverse=True))


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Numbers to be drawn. `series`: name → (x, y); for bars x are names."""

    name: str  # of the file
    title: str
    x: str
    y: str
    series: Mapping[str, tuple[Sequence[Any], Sequence[float]]]
    kind: Literal["bars", "lines"] = "bars"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`scores`: numbers by name, those of groups in a mapping. `notes`: what a reader of the scores must know."""

    scores: Mapping[str, Any]
    worst: Sequence[Mistake] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def bars(name: str, title: str, values: Mapping[str, float], *, y: str = "", most: int = 30) -> Plot:
    """A bar for each value in the order given; of more than `most`, the lowest."""
    shown = dict(values)
    if len(shown) > most:
        shown = dict(sorted(shown.items(), key=lambda item: item[1])[:most])
        title = f"{title}: the lowest {most} of {len(values)}"
    return Plot(name=name, title=title, x="", y=y, series={"": (list(shown), list(shown.values()))})
