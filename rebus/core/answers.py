"""The answers of tasks. Boxes are xyxy in pixels of the input image; scores are probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from rebus.core.html_table import html_table
from rebus.core.strict_json import finite_or_none

if TYPE_CHECKING:  # or `import rebus` would wait for NumPy
    import numpy as np


@dataclass(frozen=True)
class Box:
    """A labelled box. `xyxy`: left, top, right, bottom in pixels of the input image."""

    xyxy: tuple[float, float, float, float]
    label: str
    score: float

    def to_json(self) -> dict[str, Any]:
        return {
            "xyxy": [finite_or_none(v, 2) for v in self.xyxy],
            "label": self.label,
            "score": finite_or_none(self.score, 6),
        }

    def to_dict(self) -> dict[str, Any]:
        """A flat dict, as a row of a table: label, score, left, top, right, bottom."""
        return {"label": self.label, "score": self.score, **dict(zip(_EDGES, self.xyxy, strict=True))}

    def _repr_html_(self) -> str:
        return box_table([self])


_EDGES = ("left", "top", "right", "bottom")


def box_table(boxes: Sequence[Box]) -> str:
    """Boxes as HTML, for notebooks."""
    rows = ((box.label, float(box.score), *(f"{edge:.0f}" for edge in box.xyxy)) for box in boxes)
    return html_table(("label", "score", *_EDGES), rows)


@dataclass(frozen=True, eq=False)
class Mask:
    """A labelled mask. `mask`: bool (H, W), the size of the input image; `box` encloses it."""

    mask: np.ndarray
    box: tuple[float, float, float, float]
    label: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """Without pixels: box, area, label, score, and COCO's run-length encoding, column by column, background first.

        `size` (H, W) and `counts` are what `pycocotools.mask.frPyObjects` reads.
        """
        import numpy as np

        flat = self.mask.reshape(-1, order="F").astype(np.int8)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1] if flat.size else 1]])))
        runs = np.diff(np.concatenate([[0], edges])).tolist()
        return {
            "box": [finite_or_none(v, 2) for v in self.box],
            "label": self.label,
            "score": finite_or_none(self.score, 6),
            "size": list(self.mask.shape),
            "area": int(self.mask.sum()),
            "counts": runs,
        }

    def to_dict(self) -> dict[str, Any]:
        """Flat, as a row of a table: label, score, left, top, right, bottom, area in pixels."""
        return {**Box(self.box, self.label, self.score).to_dict(), "area": int(self.mask.sum())}

    def _repr_html_(self) -> str:
        return box_table([Box(self.box, self.label, self.score)])


@dataclass(frozen=True)
class TextLine:
    """A line of text in an image. `corners`: four (x, y) in pixels of the input image, in reading direction from the
    upper left of the text; they need not form a rectangle."""

    text: str
    corners: tuple[tuple[float, float], ...]
    score: float

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "corners": [[finite_or_none(v, 2) for v in corner] for corner in self.corners],
            "score": finite_or_none(self.score, 6),
        }


class Ranking:
    """Labels with probabilities, best first.

    Iterates over `(label, probability)`; `ranking[0]` is the best such pair, `ranking["a cat"]` the probability of a
    label. It also works as a mapping: `dict(ranking)`, `pandas.DataFrame(answers)` with a column for each label.
    Immutable.
    """

    __slots__ = ("labels", "probabilities")
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def __init__(self, labels: Sequence[str], probabilities: Sequence[float]):
        object.__setattr__(self, "labels", tuple(labels))
        object.__setattr__(self, "probabilities", tuple(probabilities))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Ranking is immutable: {name}")

    def __reduce__(self) -> tuple[type[Ranking], tuple[tuple[str, ...], tuple[float, ...]]]:
        return Ranking, (self.labels, self.probabilities)

    @property
    def top(self) -> str:
        return self.labels[0]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(zip(self.labels, self.probabilities, strict=True))

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, which: int) -> tuple[str, float]: ...
    @overload
    def __getitem__(self, which: slice) -> Ranking: ...
    @overload
    def __getitem__(self, which: str) -> float: ...
    def __getitem__(self, which: int | slice | str) -> tuple[str, float] | Ranking | float:
        if isinstance(which, slice):
            return Ranking(self.labels[which], self.probabilities[which])
        if isinstance(which, str):
            if which not in self.labels:
                raise KeyError(which)
            return self.probabilities[self.labels.index(which)]
        return self.labels[which], self.probabilities[which]

    def keys(self) -> tuple[str, ...]:
        return self.labels

    def to_dict(self) -> dict[str, float]:
        """Label → probability, best first."""
        return dict(zip(self.labels, self.probabilities, strict=True))

    def to_json(self) -> list[dict[str, Any]]:
        return [{"label": label, "probability": finite_or_none(p, 6)} for label, p in self]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranking):
            return NotImplemented
        return (self.labels, self.probabilities) == (other.labels, other.probabilities)

    def __hash__(self) -> int:
        return hash((self.labels, self.probabilities))

    def __repr__(self) -> str:
        return f"Ranking(labels={self.labels!r}, probabilities={self.probabilities!r})"

    def _repr_html_(self) -> str:
        return html_table(("label", "probability"), self)


Mapping.register(Ranking)
