"""Boxes ⇄ location tokens: the notations in which generative models state places.

A system's `LocationTokens` says how many bins a side has, how a coordinate is rounded to one, in which order the
coordinates come, and on which side of its tokens a label stands:

    PaliGemma    `<loc0012><loc0100><loc0512><loc1023> cat ; …`   1,024 bins, top left bottom right, the label after
    Florence-2   `cat<loc_97><loc_11><loc_999><loc_500>…`         1,000 bins, left top right bottom, the label before

Two roundings exist. "nearest": bin k is the point k / (bins − 1) of the side, and a coordinate goes to the nearest one
(Beyer et al., "PaliGemma", 2024; the public demonstration divides by the number of bins instead). "floor": bin k is
the k-th of equal parts, which its middle stands for (Xiao et al., "Florence-2", 2024). Either way a coordinate comes
back within half a bin.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

from rebus.core.answers import Box, TextLine
from rebus.core.places import XYXY, Located, LocationNotation, Rejected

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class MaskTokens:
    """Masks as codes of a learned codebook, in tokens that follow those of the box."""

    num_codes: int
    each: int  # tokens a mask
    token: str  # the form of a token: "<seg{:03d}>"

    def text(self, codes: Sequence[int]) -> str:
        """Raises `ValueError` for another number of codes, or one that is not in the codebook."""
        if len(codes) != self.each or min(codes) < 0 or max(codes) >= self.num_codes:
            raise ValueError(f"wanted {self.each} codes from 0 to {self.num_codes - 1}; got {list(codes)}")
        return "".join(self.token.format(int(code)) for code in codes)


@dataclass(frozen=True, kw_only=True)
class LocationTokens:
    """A system's notation of places (`System.locations`). Boxes are xyxy in pixels of an image of (width, height)."""

    bins: int
    token: str  # the form of a token: "<loc{:04d}>"
    order: Literal["yxyx", "xyxy"]
    rounding: Literal["nearest", "floor"]
    label: Literal["after", "before"]
    between: str = ""  # what separates two things
    num_points: int = 2  # of each place: 2 corners of a box, 4 of a quad
    masks: MaskTokens | None = None
    words: ClassVar[Sequence[str]] = ()

    @property
    def mask_codes(self) -> int:
        """How many codes state the mask of a thing; 0 where text states no masks."""
        return 0 if self.masks is None else self.masks.each

    @property
    def control_tokens(self) -> Sequence[str]:
        """The location tokens, by their bins."""
        return [self.token.format(place) for place in range(self.bins)]

    def tokens(self, points: Sequence[Point], size: tuple[int, int]) -> str:
        """The tokens of points (x, y) in pixels, two each. What lies outside the image is clipped."""
        axes = (1, 0) if self.order == "yxyx" else (0, 1)
        return "".join(self.token.format(self._bin(point[axis], size[axis])) for point in points for axis in axes)

    def box_tokens(self, xyxy: XYXY, size: tuple[int, int]) -> str:
        """The four tokens of a box."""
        return self.tokens((xyxy[:2], xyxy[2:]), size)

    def detection_text(self, boxes: Sequence[Box], size: tuple[int, int]) -> str:
        """The ground truth of detection, in the order given. A label that stands before its tokens is said once for
        boxes that follow each other."""
        if self.label == "after":
            return self.between.join(f"{self.box_tokens(box.xyxy, size)} {box.label}" for box in boxes)
        things: list[str] = []
        for at, box in enumerate(boxes):
            tokens = self.box_tokens(box.xyxy, size)
            if at and boxes[at - 1].label == box.label:
                things[-1] += tokens
            else:
                things.append(box.label + tokens)
        return self.between.join(things)

    def lines_text(self, lines: Sequence[TextLine], size: tuple[int, int]) -> str:
        """The ground truth of reading: each line with the tokens of its corners."""
        things = ((line.text, self.tokens(line.corners, size)) for line in lines)
        if self.label == "after":
            return self.between.join(f"{tokens} {text}" for text, tokens in things)
        return self.between.join(text + tokens for text, tokens in things)

    def segmentation_text(self, xyxy: XYXY, codes: Sequence[int], label: str, size: tuple[int, int]) -> str:
        """The ground truth of segmentation for one thing: its box, the codes of its mask, its label."""
        assert self.masks is not None, "this notation has no mask tokens"
        return f"{self.box_tokens(xyxy, size)}{self.masks.text(codes)} {label}"

    def parse(self, text: str) -> tuple[list[Located], list[Rejected]]:
        """Every place in a generated text, with all codes of its mask or none, and the pieces that make no sense.

        Rejected are pieces with too few or too many tokens, tokens beyond the vocabulary (`<loc1024>`, `<seg128>`),
        and boxes that are empty or turned inside out. Text without any token is no piece.
        """
        found: list[Located] = []
        rejected: list[Rejected] = []
        end = 0
        for match in self._piece.finditer(text):
            rejected += self._strays(text[end : match.start()])
            end = match.end()
            for piece in self._located(match):
                if isinstance(piece, Located):
                    found.append(piece)
                else:
                    rejected.append(piece)
        return found, rejected + self._strays(text[end:])

    def log_probabilities(self, text: str, pieces: Sequence[str], logs: Sequence[float]) -> list[tuple[int, float]]:
        """Where in a text each of its location tokens begins, and its log-probability; `pieces` are the tokens of the
        text and `logs` theirs. Empty where location tokens were spelt out letter by letter."""
        own = [log for piece, log in zip(pieces, logs, strict=True) if self._location.fullmatch(piece)]
        starts = [match.start() for match in self._location.finditer(text)]
        return [] if len(starts) > len(own) else list(zip(starts, own, strict=False))

    def point(self, tokens: Sequence[str]) -> Point:
        """The point (x, y) of two location tokens, in shares of the image's width and height."""
        one, other = (self._share(int(self._location.fullmatch(token)[1])) for token in tokens)  # type: ignore[index]
        return (other, one) if self.order == "yxyx" else (one, other)

    def _bin(self, value: float, side: int) -> int:
        nearest = self.rounding == "nearest"
        place = round(value / side * (self.bins - 1)) if nearest else math.floor(value / (side / self.bins))
        return min(max(place, 0), self.bins - 1)

    def _share(self, place: int) -> float:
        return place / (self.bins - 1) if self.rounding == "nearest" else (place + 0.5) / self.bins

    def beyond(self, token: str) -> bool:
        """Whether a location token is of no bin."""
        return int(self._location.fullmatch(token)[1]) >= self.bins  # type: ignore[index]

    @property
    def pattern(self) -> str:
        """A regular expression of one location token, without groups."""
        return _regex(self.token, group=False)

    @cached_property
    def _location(self) -> re.Pattern[str]:
        return re.compile(_regex(self.token))

    @cached_property
    def _piece(self) -> re.Pattern[str]:
        places, codes = f"((?:{_regex(self.token, group=False)})+)", "()"
        if self.masks is not None:
            codes = rf"((?:\s*{_regex(self.masks.token, group=False)})*)"
        label = f"[^<{re.escape(self.between.strip())}]*"
        return re.compile(f"(){places}{codes}({label})" if self.label == "after" else f"({label}){places}{codes}()")

    def _located(self, match: re.Match[str]) -> Iterator[Located | Rejected]:
        """The things of one piece: one, or with the label before its tokens as many as there are complete places."""
        tokens = list(self._location.finditer(match[2]))
        codes = () if self.masks is None else tuple(int(c) for c in re.findall(_regex(self.masks.token), match[3]))
        label, each = (match[1] or match[4]).strip(), 2 * self.num_points
        if self.label == "after":
            yield self._one([int(token[1]) for token in tokens], label, codes, match.span(), match[0])
            return
        for first in range(0, len(tokens), each):
            group = tokens[first : first + each]
            start = match.start(2) + group[0].start() if first else match.start()
            span = start, match.start(2) + group[-1].end()
            yield self._one([int(token[1]) for token in group], label, codes, span, match.string[slice(*span)])

    def _one(
        self, places: list[int], label: str, codes: tuple[int, ...], span: tuple[int, int], text: str
    ) -> Located | Rejected:
        each = 2 * self.num_points
        if len(places) != each:
            return Rejected(text.strip(), f"{len(places)} location tokens instead of {each}")
        if len(codes) not in (0, self.mask_codes):
            return Rejected(text.strip(), f"{len(codes)} mask tokens instead of {self.mask_codes}")
        if max(places) >= self.bins or (self.masks is not None and codes and max(codes) >= self.masks.num_codes):
            return Rejected(text.strip(), "a token beyond its family")
        pairs = [(self._share(a), self._share(b)) for a, b in zip(places[::2], places[1::2], strict=True)]
        points = tuple((b, a) for a, b in pairs) if self.order == "yxyx" else tuple(pairs)
        if self.num_points == 2 and (points[1][0] <= points[0][0] or points[1][1] <= points[0][1]):
            return Rejected(text.strip(), "an empty box")
        xs, ys = zip(*points, strict=True)
        return Located((min(xs), min(ys), max(xs), max(ys)), label, codes, span, points)

    def _strays(self, text: str) -> list[Rejected]:
        stray = self.masks is not None and self.masks.token.partition("{")[0] in text
        return [Rejected(text.strip(self.between), "mask tokens without a box")] if stray else []


def _regex(token: str, group: bool = True) -> str:
    """`<loc{:04d}>` → `<loc(\\d{4})>`, `<loc_{}>` → `<loc_(\\d+)>`."""
    before, form, after = re.fullmatch(r"(.*)\{(?::0(\d+)d)?\}(.*)", token).groups()  # type: ignore[union-attr]
    digits = rf"\d{{{form}}}" if form else r"\d+"
    return re.escape(before) + (f"({digits})" if group else digits) + re.escape(after)


# PaliGemma's notation, which the scenes world shares.
LOC_1024 = LocationTokens(
    bins=1024,
    token="<loc{:04d}>",
    order="yxyx",
    rounding="nearest",
    label="after",
    between=" ; ",
    masks=MaskTokens(num_codes=128, each=16, token="<seg{:03d}>"),
)


# Florence-2's, of boxes and of the corners of writing.
LOC_1000 = LocationTokens(bins=1000, token="<loc_{}>", order="xyxy", rounding="floor", label="before")
QUADS_1000 = replace(LOC_1000, num_points=4)


def in_pixels(xyxy: XYXY, size: tuple[int, int]) -> XYXY:
    """Shares → pixels of an image of `size` (width, height)."""
    width, height = size
    return xyxy[0] * width, xyxy[1] * height, xyxy[2] * width, xyxy[3] * height


def parse_boxes(
    locations: LocationNotation, text: str, size: tuple[int, int], scores: float | Sequence[float] = 1.0
) -> tuple[list[Box], list[Rejected]]:
    """Boxes in pixels of an image of `size` (width, height), out of detection text, and what was rejected.

    `scores`: one for all, or one for each piece that `locations.parse` finds. A box without a label is rejected too:
    the text was cut off before it.
    """
    found, rejected = locations.parse(text)
    values = [float(scores)] * len(found) if isinstance(scores, int | float) else list(scores)
    if len(values) != len(found):
        raise ValueError(f"wanted a score for each of {len(found)} boxes; got {len(values)}")
    boxes = []
    for located, score in zip(found, values, strict=True):
        if located.label:
            boxes.append(Box(in_pixels(located.xyxy, size), located.label, score))
        else:
            rejected.append(Rejected(text[slice(*located.span)].strip(), "no label"))
    return boxes, rejected
