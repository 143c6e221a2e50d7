"""Boxes in plain numbers: `312 40 870 999 red circle ; …`, how PaLI states places before PaliGemma gave them tokens.

Each number is a coordinate on a grid of 1,000 lines over the image, top, left, bottom, right; a label follows (Chen et
al., "PaLI-X", 2023, whose notation PaLI-3 keeps).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rebus.core.answers import Box, TextLine
from rebus.core.errors import UsageError
from rebus.core.places import XYXY, Located, Rejected

_BETWEEN = " ; "
_DIGITS = re.compile(r"\d+")
_PLACE = re.compile(r"\s*((?:\d+\s+){0,3}\d+)?(?!\S)\s*(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class NumberLocations:
    """A notation of places (`System.locations`): line k of `bins` is the point k / (bins − 1) of a side, and a
    coordinate goes to the nearest. Masks are not stated."""

    bins: int = 1000
    mask_codes: ClassVar[int] = 0
    control_tokens: ClassVar[Sequence[str]] = ()

    @property
    def words(self) -> Sequence[str]:
        """Every number of the grid."""
        return [str(line) for line in range(self.bins)]

    def box_tokens(self, xyxy: XYXY, size: tuple[int, int]) -> str:
        """The four numbers of a box in pixels of an image of `size` (width, height), clipped to it."""
        sides = (size[1], size[0], size[1], size[0])
        yxyx = (xyxy[1], xyxy[0], xyxy[3], xyxy[2])
        lines = (round(value / side * (self.bins - 1)) for value, side in zip(yxyx, sides, strict=True))
        return " ".join(str(min(max(line, 0), self.bins - 1)) for line in lines)

    def detection_text(self, boxes: Sequence[Box], size: tuple[int, int]) -> str:
        """The ground truth of detection, in the order given."""
        return _BETWEEN.join(f"{self.box_tokens(box.xyxy, size)} {box.label}" for box in boxes)

    def lines_text(self, lines: Sequence[TextLine], size: tuple[int, int]) -> str:
        """Raises `UsageError`: this notation states no lines of writing."""
        raise UsageError("plain-number locations support boxes, not lines of text")

    def segmentation_text(self, xyxy: XYXY, codes: Sequence[int], label: str, size: tuple[int, int]) -> str:
        """Raises `UsageError`: this notation states no masks."""
        raise UsageError("plain-number locations support boxes, not masks")

    def parse(self, text: str) -> tuple[list[Located], list[Rejected]]:
        """Every place in a generated text, and the pieces that make no sense: without four numbers, with one beyond
        the grid, or with an empty box. Text without any number is no piece."""
        found: list[Located] = []
        rejected: list[Rejected] = []
        for piece, start in _pieces(text):
            match = _PLACE.fullmatch(piece)
            numbers = [int(digits) for digits in _DIGITS.findall(match[1] or "")] if match else []
            label = match[2].strip() if match else ""
            reason = None
            if len(numbers) != 4:
                reason = f"{len(numbers)} numbers instead of 4"
            elif max(numbers) >= self.bins:
                reason = "a number beyond the grid"
            elif numbers[2] <= numbers[0] or numbers[3] <= numbers[1]:
                reason = "an empty box"
            if reason is None:
                top, left, bottom, right = (number / (self.bins - 1) for number in numbers)
                span = start, start + len(piece)
                found.append(Located((left, top, right, bottom), label, (), span, ((left, top), (right, bottom))))
            elif numbers:
                rejected.append(Rejected(piece.strip(), reason))
        return found, rejected

    def log_probabilities(self, text: str, pieces: Sequence[str], logs: Sequence[float]) -> list[tuple[int, float]]:
        """Where in a text each coordinate begins, and the sum of the log-probabilities of the pieces that spell it."""
        digits = [0 if piece[:1] == "<" else sum(map(str.isdigit, piece)) for piece in pieces]
        spelled = iter([(number, log) for number, log in zip(digits, logs, strict=True) if number])
        runs: list[tuple[int, float]] = []
        for run in _DIGITS.finditer(text):
            length, total = 0, 0.0
            while length < len(run[0]):
                number, log = next(spelled, (0, 0.0))
                if not number:
                    return []
                length, total = length + number, total + log
            if length > len(run[0]):  # a piece that holds two numbers
                return []
            runs.append((run.start(), total))
        places = self._places(text)
        return [(at, total) for at, total in runs if any(start <= at < end for start, end in places)]

    def _places(self, text: str) -> list[tuple[int, int]]:
        """Where the numbers of each piece stand."""
        places = []
        for piece, start in _pieces(text):
            match = _PLACE.fullmatch(piece)
            if match is not None and match[1]:
                places.append((start + match.start(1), start + match.end(1)))
        return places


def _pieces(text: str) -> list[tuple[str, int]]:
    """What stands between semicolons, and where it begins."""
    return [(match[0], match.start()) for match in re.finditer(r"[^;]+", text)]
