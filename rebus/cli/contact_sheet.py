"""A contact sheet: thumbnails, each with its boxes and the beginning of its text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rebus.core.errors import RebusError
from rebus.core.fonts import font_for

if TYPE_CHECKING:
    from PIL import Image

    from rebus.data.record import Record

_COLUMNS, _WIDTH, _HEIGHT, _LINES = 6, 300, 260, 4  # of the sheet; pixels of an image; lines of text
_LINE, _GAP, _LETTERS = 17, 12, 44
_MOST_BOXES = 12  # more hide the image


@dataclass(frozen=True)
class Cell:
    """One example: its image where it has one, and what is written below."""

    image: Image.Image | None
    text: str


def contact_sheet(records: Sequence[Record]) -> Image.Image:
    """All records in rows of six. An image that cannot be opened is replaced by the reason."""
    from PIL import Image, ImageDraw

    cells = [_cell(record) for record in records] or [Cell(None, "no examples")]
    rows = -(-len(cells) // _COLUMNS)
    columns = min(_COLUMNS, len(cells))
    height = _HEIGHT + _LINES * _LINE + _GAP
    sheet = Image.new("RGB", (columns * (_WIDTH + _GAP) + _GAP, rows * (height + _GAP) + _GAP), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for number, cell in enumerate(cells):
        left = _GAP + number % _COLUMNS * (_WIDTH + _GAP)
        top = _GAP + number // _COLUMNS * (height + _GAP)
        if cell.image is not None:
            at = left + (_WIDTH - cell.image.width) // 2, top + (_HEIGHT - cell.image.height) // 2
            sheet.paste(cell.image, at)
        most = _LINES if cell.image is not None else _LINES + (_HEIGHT // _LINE) - 1
        below = top + (_HEIGHT + _GAP // 2 if cell.image is not None else 0)
        for line, words in enumerate(textwrap.wrap(cell.text, _LETTERS, max_lines=most, placeholder=" …")):
            pen.text((left, below + line * _LINE), words, fill=(30, 30, 30), font=font_for(words, 13))
    return sheet


def _cell(record: Record) -> Cell:
    from rebus.codec.decode_image import open_image

    if record.image is None:
        return Cell(None, _words(record))
    try:
        image = open_image(record.image)
    except RebusError as error:
        return Cell(None, f"{record.key}: {error}")
    regions = len(record.things) + len(record.phrases)
    left_out = f"({_MOST_BOXES} of {regions} boxes shown) " if regions > _MOST_BOXES else ""
    return Cell(_with_boxes(image, record), left_out + _words(record))


def _with_boxes(image: Image.Image, record: Record) -> Image.Image:
    """The image within a cell, its things and phrases outlined."""
    from rebus.core.answers import Box
    from rebus.tasks.draw import draw_boxes

    scale = min(_WIDTH / image.width, _HEIGHT / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = image.resize(size)
    things = [(thing.box, thing.label) for thing in record.things]
    things += [(phrase.thing.box, phrase.text) for phrase in record.phrases]
    boxes = [
        Box((box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale), label, math.nan)
        for box, label in things[:_MOST_BOXES]
    ]
    return draw_boxes(small, boxes, smallest=1) if boxes else small


def _words(record: Record) -> str:
    if record.captions:
        return record.captions[0]
    if record.questions:
        question = record.questions[0]
        return f"{question.text} {question.answers[0] if question.answers else ''}"
    if record.phrases:
        return record.phrases[0].text
    if record.document:
        return " ".join(part if isinstance(part, str) else "[image]" for part in record.document)
    return record.label or record.key
