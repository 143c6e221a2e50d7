"""How a generative model states places in its text: what tasks and data sets ask of a system's notation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rebus.core.answers import Box, TextLine

XYXY = tuple[float, float, float, float]


@dataclass(frozen=True)
class Located:
    """One thing that a generated text places, in shares of the image's width and height.

    `xyxy` encloses `points`, which are (x, y) in the order of the text: two corners of a box, or four of a quad.
    """

    xyxy: XYXY
    label: str  # empty where the text ended before it, or gives none
    codes: tuple[int, ...]  # the codes of its mask, or none
    span: tuple[int, int]  # where in the text
    points: tuple[tuple[float, float], ...] = ()
    outlines: tuple[tuple[tuple[float, float], ...], ...] = ()  # polygons that enclose it together, or none


@dataclass(frozen=True)
class Rejected:
    """A piece of generated text that places nothing, and why."""

    text: str
    reason: str


class OutlineNotation(Protocol):
    """Polygons ⇄ text, in the location tokens of a `LocationNotation`."""

    @property
    def marks(self) -> Sequence[str]:
        """The control tokens that it has besides location tokens."""
        ...

    def tokens(self, polygons: Sequence[Sequence[tuple[float, float]]], size: tuple[int, int]) -> str:
        """The polygons (x, y) of one thing, in pixels of an image of (width, height)."""
        ...

    def parse(self, text: str) -> tuple[list[Located], list[Rejected]]:
        """Everything that a generated text outlines, and the pieces that make no sense."""
        ...

    def is_marked(self, text: str) -> bool:
        """Whether a text says by its tokens that the locations in it are outlines."""
        ...


class LocationNotation(Protocol):
    """Boxes ⇄ text. Sizes are (width, height) in pixels of the image that the boxes refer to."""

    @property
    def mask_codes(self) -> int:
        """How many codes of a learned codebook state the mask of a thing; 0 where text states no masks."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """The words that state coordinates, of which a vocabulary of whole words needs each; none where coordinates
        have tokens of their own."""
        ...

    @property
    def control_tokens(self) -> Sequence[str]:
        """The tokens that state coordinates, in their order; none where words do."""
        ...

    def box_tokens(self, xyxy: XYXY, size: tuple[int, int]) -> str:
        """The location tokens of a box in pixels. What lies outside the image is clipped."""
        ...

    def detection_text(self, boxes: Sequence[Box], size: tuple[int, int]) -> str:
        """The ground truth of detection: boxes with their labels, in the order given."""
        ...

    def lines_text(self, lines: Sequence[TextLine], size: tuple[int, int]) -> str:
        """The ground truth of reading: lines of writing with their corners, in the order given."""
        ...

    def segmentation_text(self, xyxy: XYXY, codes: Sequence[int], label: str, size: tuple[int, int]) -> str:
        """The ground truth of segmentation for one thing: its box in pixels, the codes of its mask, its label."""
        ...

    def parse(self, text: str) -> tuple[list[Located], list[Rejected]]:
        """Every place in a generated text, and the pieces that make no sense."""
        ...

    def log_probabilities(self, text: str, pieces: Sequence[str], logs: Sequence[float]) -> list[tuple[int, float]]:
        """Where in a generated text each location begins, and the log-probability of what states it, out of the
        tokens of the text, as the vocabulary spells them, and theirs. Empty where nothing is known of them."""
        ...
