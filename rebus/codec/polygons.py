"""Polygons ⇄ location tokens: how Florence-2 states the outlines of things.

    car<poly><loc_10><loc_20><loc_30>…<sep><loc_500>…</poly><poly>…</poly>

A thing's polygons stand between `<poly>` and `</poly>`, divided by `<sep>`; a thing alone needs no such marks. Without
a label it is what was asked for (Xiao et al., "Florence-2", 2024).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rebus.codec.boxes import LOC_1000, LocationTokens, Point
from rebus.core.places import Located, Rejected


@dataclass(frozen=True, kw_only=True)
class PolygonTokens:
    """A system's notation of outlines (`System.outlines`). Points are (x, y) in pixels, sizes (width, height)."""

    locations: LocationTokens = LOC_1000
    begin: str = "<poly>"
    end: str = "</poly>"
    between: str = "<sep>"

    @property
    def marks(self) -> Sequence[str]:
        """The control tokens that it has besides location tokens."""
        return self.begin, self.end, self.between

    def tokens(self, polygons: Sequence[Sequence[Point]], size: tuple[int, int]) -> str:
        """The ground truth of one thing. What lies outside the image is clipped."""
        return self.between.join(self.locations.tokens(polygon, size) for polygon in polygons)

    def parse(self, text: str) -> tuple[list[Located], list[Rejected]]:
        """Every thing in a generated text, its polygons in shares of the image, and the pieces that make no sense.

        Rejected are things without a polygon of three points. A last coordinate without its pair is left out: the text
        was cut off there.
        """
        found: list[Located] = []
        rejected: list[Rejected] = []
        for match in self._piece.finditer(text):
            for span in self._things(match):
                one = self._one(text[slice(*span)], match[1].strip(), span)
                if isinstance(one, Located):
                    found.append(one)
                else:
                    rejected.append(one)
        return found, rejected

    def is_marked(self, text: str) -> bool:
        """Whether a text holds `<poly>`; locations without it are boxes, where both may be answered."""
        return self.begin in text

    @cached_property
    def _piece(self) -> re.Pattern[str]:
        marks = "|".join(map(re.escape, (self.begin, self.end, self.between)))
        return re.compile(rf"([^<]*)((?:{self.locations.pattern}|{marks})+)")

    def _things(self, match: re.Match[str]) -> Iterator[tuple[int, int]]:
        """Where in the text the tokens of each thing are."""
        start, tokens = match.start(2), match[2]
        if self.begin not in tokens:
            yield match.span(2)
            return
        for part in re.finditer(rf"{re.escape(self.begin)}(.*?)(?:{re.escape(self.end)}|$)", tokens):
            yield start + part.start(1), start + part.end(1)

    def _one(self, tokens: str, label: str, span: tuple[int, int]) -> Located | Rejected:
        polygons = []
        for part in tokens.split(self.between):
            places = [match.group() for match in re.finditer(self.locations.pattern, part)]
            points = [self.locations.point(places[i : i + 2]) for i in range(0, len(places) - 1, 2)]
            if any(self.locations.beyond(place) for place in places):
                return Rejected(tokens, "a token beyond its family")
            if len(points) > 2:
                polygons.append(tuple(points))
        if not polygons:
            return Rejected(tokens, "no polygon of three points")
        xs, ys = zip(*(point for polygon in polygons for point in polygon), strict=True)
        return Located((min(xs), min(ys), max(xs), max(ys)), label, (), span, outlines=tuple(polygons))
