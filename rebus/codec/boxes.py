"""Boxes ⇄ location tokens, as PaliGemma speaks them (Beyer et al., "PaliGemma", 2024).

Four tokens a box, top, left, bottom, right: `<loc0012><loc0100><loc0512><loc1023> cat ; …`. Encoding rounds the
coordinate times 1023, a coordinate being a share of the image's height or width; decoding divides by 1023, as the
reference evaluation does (the public demonstration divides by 1024). So a box comes back within half a bin, 1/2046
of the side.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rebus.core.answers import Box

BINS = 1024
NUM_CODES = 128  # words of the mask codebook, <seg000> to <seg127>
MASK_TOKENS = 16

XYXY = tuple[float, float, float, float]

_PIECE = re.compile(r"((?:<loc\d{4}>)+)((?:\s*<seg\d{3}>)*)([^<;]*)")
_TOKEN = re.compile(r"<(?:loc(\d{4})|seg(\d{3}))>")


@dataclass(frozen=True)
class Located:
    """One thing that a generated text places. `xyxy`: shares of width and height; `span`: where in the text."""

    xyxy: XYXY
    label: str  # empty where the text ended before it, or gives none
    codes: tuple[int, ...]  # 16 words of the mask codebook, or none
    span: tuple[int, int]


@dataclass(frozen=True)
class Rejected:
    """A piece of generated text that places nothing, and why."""

    text: str
    reason: str


def box_tokens(xyxy: XYXY, size: tuple[int, int]) -> str:
    """The four tokens of a box in pixels of an image of `size` (width, height). What lies outside is clipped."""
    width, height = size
    left, top, right, bottom = xyxy
    shares = (top / height, left / width, bottom / height, right / width)
    return "".join(f"<loc{_bin(share):04d}>" for share in shares)


def _bin(share: float) -> int:
    return min(max(round(share * (BINS - 1)), 0), BINS - 1)


def detection_text(boxes: Sequence[Box], size: tuple[int, int]) -> str:
    """What a model is taught to answer: `<loc…>×4 label ; <loc…>×4 label`, in the order given."""
    return " ; ".join(f"{box_tokens(box.xyxy, size)} {box.label}" for box in boxes)


def parse_located(text: str) -> tuple[list[Located], list[Rejected]]:
    """Every place in a generated text, with 16 mask codes or none, and the pieces that make no sense.

    Rejected are pieces with another number of tokens, tokens beyond the family (`<loc1024>`, `<seg128>`), and boxes
    that are empty or turned inside out. Text without any token is no piece.
    """
    found, rejected = [], []
    end = 0
    for match in _PIECE.finditer(text):
        rejected += _strays(text[end : match.start()])
        end = match.end()
        located = _located(match)
        if isinstance(located, str):
            rejected.append(Rejected(match[0].strip(), located))
        else:
            found.append(located)
    return found, rejected + _strays(text[end:])


def _located(match: re.Match[str]) -> Located | str:
    places = [int(place) for place, _ in _TOKEN.findall(match[1])]
    codes = tuple(int(code) for _, code in _TOKEN.findall(match[2]))
    if len(places) != 4:
        return f"{len(places)} location tokens instead of 4"
    if len(codes) not in (0, MASK_TOKENS):
        return f"{len(codes)} mask tokens instead of {MASK_TOKENS}"
    if max(places) >= BINS or (codes and max(codes) >= NUM_CODES):
        return "a token beyond its family"
    top, left, bottom, right = (place / (BINS - 1) for place in places)
    if bottom <= top or right <= left:
        return "an empty box"
    return Located((left, top, right, bottom), match[3].strip(), codes, match.span())


def _strays(text: str) -> list[Rejected]:
    return [Rejected(text.strip(" ;"), "mask tokens without a box")] if "<seg" in text else []


def in_pixels(xyxy: XYXY, size: tuple[int, int]) -> XYXY:
    """Shares → pixels of an image of `size` (width, height)."""
    width, height = size
    return xyxy[0] * width, xyxy[1] * height, xyxy[2] * width, xyxy[3] * height


def parse_boxes(
    text: str, size: tuple[int, int], scores: float | Sequence[float] = 1.0
) -> tuple[list[Box], list[Rejected]]:
    """Boxes in pixels of an image of `size` (width, height), out of detection text, and what was rejected.

    `scores`: one for all, or one for each piece that `parse_located` finds. A box without a label is rejected too:
    the text was cut off before it.
    """
    found, rejected = parse_located(text)
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
