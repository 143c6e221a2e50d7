"""What tasks answer. Boxes are xyxy in pixels of the image that was given; scores are probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rebus.core.strict_json import finite_or_none

if TYPE_CHECKING:  # or `import rebus` would wait for NumPy
    import numpy as np


@dataclass(frozen=True)
class Box:
    """A labelled rectangle. `xyxy`: left, top, right, bottom in pixels of the given image."""

    xyxy: tuple[float, float, float, float]
    label: str
    score: float

    def to_json(self) -> dict[str, Any]:
        return {
            "xyxy": [finite_or_none(v, 2) for v in self.xyxy],
            "label": self.label,
            "score": finite_or_none(self.score, 6),
        }


@dataclass(frozen=True, eq=False)
class Mask:
    """A labelled region. `mask`: bool (H, W), the size of the given image; `box` encloses it."""

    mask: np.ndarray
    box: tuple[float, float, float, float]
    label: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """Without pixels: box, area, label, score, and COCO's run lengths, column by column, background first.

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


@dataclass(frozen=True)
class TextLine:
    """Writing in an image. `corners`: four (x, y) in pixels of the given image, from the upper left of the writing on,
    as it is read; they need not be a rectangle."""

    text: str
    corners: tuple[tuple[float, float], ...]
    score: float

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "corners": [[finite_or_none(v, 2) for v in corner] for corner in self.corners],
            "score": finite_or_none(self.score, 6),
        }


@dataclass(frozen=True)
class Ranking:
    """Labels with probabilities, best first. Iterates over `(label, probability)`."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def top(self) -> str:
        return self.labels[0]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(zip(self.labels, self.probabilities, strict=True))

    def __len__(self) -> int:
        return len(self.labels)

    def to_json(self) -> list[dict[str, Any]]:
        return [{"label": label, "probability": finite_or_none(p, 6)} for label, p in self]
