"""A row of named values (a line of a table, a JSON beside an image, a row of Parquet) as what a `Record` holds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rebus.data.record import XYXY, BadRecord, Question, Record, Thing

# Columns that name an image, the first that is there
FILES = ("file", "file_name", "filename", "image", "path", "filepath", "image_path")
TEXTS = ("caption", "captions", "text", "title")  # columns of texts, all that are there
OTHERS = ("label", "question", "boxes")  # columns of which one is enough beside the image

_TOO_LARGE = 1e15  # for a number about an image; NaN is not below it either


def file_column(columns: Sequence[str]) -> str | None:
    return next((name for name in FILES if name in columns), None)


def is_known(columns: Sequence[str]) -> bool:
    """Whether there is anything to learn about an image in these columns."""
    return any(name in columns for name in (*TEXTS, *OTHERS))


def wanted() -> str:
    """The columns that are understood, for messages."""
    return f"an image's file ({', '.join(FILES)}) and one of {', '.join((*TEXTS, *OTHERS))}"


def record_of(row: Mapping[str, Any], key: str, image: bytes | Path | None, used: Sequence[str] = ()) -> Record:
    """A record of what the row says about `image`; columns that are neither understood nor in `used` become facts.

    A cell of CSV may hold a list as JSON. `boxes: null` means that nobody looked: there are no things then, and the
    facts say `boxes: None`. Raises `BadRecord` for values of the wrong type.
    """
    taken = {*used, *TEXTS, "label"}
    question = _text(row, "question", key)
    if question is not None:
        taken |= {"question", "answer", "answers", "qid", "question_id", "type", "question_type"}
    things: tuple[Thing, ...] = ()
    boxes = _listed(row.get("boxes"), "boxes", key)
    if boxes is not None:
        things = tuple(_thing(box, f"boxes[{n}]", key) for n, box in enumerate(boxes))
        taken.add("boxes")
    return Record(
        key=key,
        image=image,
        captions=texts_of(row, key),
        label=_name(row.get("label"), "label", key),
        questions=() if question is None else (_question(row, question, key),),
        things=things,
        facts={name: value for name, value in row.items() if name not in taken},
    )


def texts_of(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts of all text columns, each once, empty ones left out."""
    texts: list[str] = []
    for column in TEXTS:
        value = row.get(column)
        if isinstance(value, str) and not (column == "captions" and value.lstrip().startswith("[")):
            texts.append(value)
        else:
            texts += _texts(value, column, key)
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def _question(row: Mapping[str, Any], text: str, key: str) -> Question:
    answer = _text(row, "answer", key)
    answers = (() if answer is None else (answer,)) + tuple(_texts(row.get("answers"), "answers", key))
    return Question(
        text=text,
        answers=answers,
        id=_name(row.get("qid", row.get("question_id")), "qid", key) or "",
        kind=_name(row.get("type", row.get("question_type")), "type", key) or "",
    )


def _thing(box: Any, what: str, key: str) -> Thing:
    if not isinstance(box, Mapping):
        raise BadRecord(key, f"{what} must be an object with label and xyxy; got {_kind(box)}")
    label = _name(box.get("label", box.get("category")), f"{what}.label", key)
    if label is None:
        raise BadRecord(key, f"{what} has no label or category")
    area = box.get("area")
    return Thing(
        label=label,
        box=_corners(box, what, key),
        outline=box.get("outline", box.get("segmentation")),
        crowd=bool(box.get("crowd", box.get("iscrowd", False))),
        area=None if area is None else _numbers([area], 1, f"{what}.area", key)[0],
        id=_name(box.get("id"), f"{what}.id", key) or "",
    )


def _corners(box: Mapping[str, Any], what: str, key: str) -> XYXY:
    if "xyxy" in box:
        x1, y1, x2, y2 = _numbers(box["xyxy"], 4, f"{what}.xyxy", key)
    elif "bbox_xywh" in box:
        x1, y1, width, height = _numbers(box["bbox_xywh"], 4, f"{what}.bbox_xywh", key)
        x2, y2 = x1 + width, y1 + height
    else:
        raise BadRecord(
            key, f"{what} has no xyxy or bbox_xywh, in pixels; it has {', '.join(map(str, box)) or 'nothing'}"
        )
    if x2 < x1 or y2 < y1:
        raise BadRecord(key, f"{what} ends before it begins ({x1:g}, {y1:g}, {x2:g}, {y2:g})")
    return x1, y1, x2, y2


def _numbers(value: Any, count: int, what: str, key: str) -> list[float]:
    right = isinstance(value, list) and len(value) == count
    if right and all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < _TOO_LARGE for n in value):
        return [float(n) for n in value]
    raise BadRecord(key, f"{what} must be {count} finite number{'s' * (count > 1)}; got {str(value)[:80]}")


def _text(row: Mapping[str, Any], column: str, key: str) -> str | None:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise BadRecord(key, f"{column} must be a text; got {_kind(value)}")
    return value or None


def _texts(value: Any, column: str, key: str) -> list[str]:
    if isinstance(value, str) and value and not value.lstrip().startswith("["):
        return [value]
    if not isinstance(value, str | list | None):
        raise BadRecord(key, f"{column} must be a text or a list of texts; got {_kind(value)}")
    values = _listed(value, column, key) or []
    for text in values:
        if not isinstance(text, str):
            raise BadRecord(key, f"{column} must be a text or a list of texts; got a list with {_kind(text)}")
    return values


def _listed(value: Any, column: str, key: str) -> list[Any] | None:
    """A list, also as JSON in a cell; None where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRecord(key, f"{column} must be a list, written as JSON") from None
        if value is None:
            return None
    if not isinstance(value, list):
        raise BadRecord(key, f"{column} must be a list; got {_kind(value)}")
    return value


def _name(value: Any, column: str, key: str) -> str | None:
    """A text, or a number as text; labels and ids come as either."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRecord(key, f"{column} must be a text or a whole number; got {_kind(value)}")
    return str(value)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
