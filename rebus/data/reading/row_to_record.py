"""A row of named values (a line of a table, a JSON beside an image, a row of Parquet) as what a `Record` holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rebus.data.reading.box_form import objects_in
from rebus.data.reading.conversations import prompt_and_answer, questions_of
from rebus.data.record import XYXY, BadRecord, Phrase, Question, Record, Thing

# Columns that name an image, the first that is there
FILES = ("file", "file_name", "filename", "image", "path", "filepath", "image_path")
TEXTS = ("caption", "captions", "text", "title")  # columns of texts, all that are there
OTHERS = (
    "label",
    "question",
    "questions",
    "suffix",
    "conversations",
    "boxes",
    "objects",
    "phrases",
)  # columns of which one is enough beside the image
WEB = ("url", "image_url")  # columns of web addresses, in lower case
LABELS = ("label", "labels", "fine_label", "coarse_label")  # columns of one label, the first that is there
LISTS = ("questions", "boxes", "phrases", "absent", "incomplete")  # columns that hold lists

_QUESTION = (
    "question",
    "answer",
    "answers",
    "multiple_choice_answer",
    "qid",
    "question_id",
    "type",
    "answer_type",
    "question_type",
)
_UNDERSTOOD = frozenset(
    {*FILES, *TEXTS, *OTHERS, *LABELS, *LISTS, *_QUESTION, "prefix", "objects", "split", "url", "width", "height"}
)
_V = TypeVar("_V")
_TOO_LARGE = 1e15  # for a number about an image; NaN is not below it either


def file_column(columns: Sequence[str]) -> str | None:
    return next((name for name in FILES if name in columns), None)


def is_known(columns: Sequence[str]) -> bool:
    """Whether there is anything to learn about an image in these columns."""
    return any(name in columns for name in (*TEXTS, *OTHERS, *LABELS)) or {"class_index", "name"} <= set(columns)


def wanted() -> str:
    """The columns that are understood, for messages."""
    return f"an image's file ({', '.join(FILES)}) and one of {', '.join((*TEXTS, *OTHERS))}"


def label_column(row: Mapping[str, Any]) -> str | None:
    """The column with the image's one label, or the `name` of its `class_index`; lists of labels are facts."""
    names = (*LABELS, "name") if "class_index" in row else LABELS
    return next((name for name in names if row.get(name) is not None and not isinstance(row[name], list)), None)


def any_case(row: Mapping[str, _V]) -> dict[str, _V]:
    """The row with columns whose names are understood but for their capitals (URL, TEXT, Caption) in lower case."""
    found = dict(row)
    for name in row:
        if name != name.lower() and name.lower() in _UNDERSTOOD and name.lower() not in found:
            found[name.lower()] = found.pop(name)
    return found


def record_of(
    row: Mapping[str, Any], key: str, image: bytes | Path | None, used: Sequence[str] = (), corners: bool = False
) -> Record:
    """A record of what the row says about `image`; columns that are neither understood nor in `used` become facts.

    A cell of CSV may hold a list as JSON. `boxes: null` means that nobody looked: there are no things then, and the
    facts say `boxes: None`. `corners`: of the boxes in `objects`, see `boxes_of`. Raises `BadRecord` for values of the
    wrong type.
    """
    label = label_column(row)
    taken = {*used, *TEXTS, label or "label"}
    question = _text(row, "question", key)
    if question is not None:
        taken |= set(_QUESTION)
    asked = [] if question is None else [_question(row, question, key)]
    if row.get("suffix") is not None:
        asked.append(prompt_and_answer(row, key))
        taken |= {"prefix", "suffix"}
    if row.get("conversations") is not None:
        asked += questions_of(_listed(row["conversations"], "conversations", key) or [], key)
        taken.add("conversations")
    lists = {name: _listed(row.get(name), name, key) for name in LISTS}
    objects = objects_in(row.get("objects"))
    if objects is not None and lists["boxes"] is None:
        lists["boxes"] = boxes_of(objects, key, corners=corners)
        taken.add("objects")
    taken |= {name for name, value in lists.items() if value is not None}
    items = {name: list(enumerate(value or ())) for name, value in lists.items()}
    return Record(
        key=key,
        image=image,
        captions=texts_of(row, key),
        label=None if label is None else _name(row[label], label, key),
        questions=(
            *asked,
            *(_listed_question(item, f"questions[{n}]", key) for n, item in items["questions"]),
        ),
        things=tuple(_thing(box, f"boxes[{n}]", key) for n, box in items["boxes"]),
        phrases=tuple(_phrase(phrase, f"phrases[{n}]", key) for n, phrase in items["phrases"]),
        absent=tuple(_required(label, f"absent[{n}]", key) for n, label in items["absent"]),
        incomplete=tuple(_required(label, f"incomplete[{n}]", key) for n, label in items["incomplete"]),
        facts={name: value for name, value in row.items() if name not in taken},
    )


def texts_of(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts of all text columns, empty ones left out, and those that a column before has said."""
    texts: list[str] = []
    for column in TEXTS:
        value = row.get(column)
        said = set(texts)
        if isinstance(value, str) and not (column == "captions" and value.lstrip().startswith("[")):
            own = [value]
        else:
            own = _texts(value, column, key)
        texts += [text for text in own if text.strip() and text not in said]
    return tuple(texts)


def _question(row: Mapping[str, Any], text: str, key: str) -> Question:
    """Answers also as objects, as VQAv2 and VizWiz have them: [{"answer", "answer_confidence"}]."""
    answer = _text(row, "answer", key)
    given = row.get("answers")
    if isinstance(given, Mapping):  # a column for each field, as Parquet has lists of objects
        given = given.get("answer")
    if isinstance(given, list):
        given = [item.get("answer") if isinstance(item, Mapping) else item for item in given]
    answers = (() if answer is None else (answer,)) + tuple(_texts(given, "answers", key))
    number, kind = (_first(row, names) for names in (("qid", "question_id"), ("type", "answer_type", "question_type")))
    official = () if answers else tuple(filter(None, [_text(row, "multiple_choice_answer", key)]))
    return Question(
        text=text, answers=answers or official, id=_name(number, "qid", key) or "", kind=_name(kind, "type", key) or ""
    )


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def boxes_of(
    objects: Mapping[str, Any] | list[Any], key: str, names: Sequence[str] = (), corners: bool = False
) -> list[dict[str, Any]]:
    """The column `objects` of Hugging Face's detection sets as `boxes`: a list of objects, or an object of lists.

    `names`: what the numbers in `category` mean. `corners`: whether `bbox` is left, top, right, bottom; COCO's and
    the usual form is left, top, width, height. Raises `BadRecord`.
    """
    if isinstance(objects, Mapping):
        columns = {name: value for name, value in objects.items() if isinstance(value, list)}
        if len({len(value) for value in columns.values()}) > 1:
            raise BadRecord(key, "objects holds lists of different lengths")
        objects = [dict(zip(columns, item)) for item in zip(*columns.values())]
    boxes = []
    for n, item in enumerate(objects):
        label = _first(item, ("category", "categories", "category_id", "label"))
        if names and isinstance(label, int) and not isinstance(label, bool):
            if not 0 <= label < len(names):
                raise BadRecord(key, f"objects[{n}].category {label}; the file names {len(names)}")
            label = names[label]
        if item.get("bbox") is None:
            raise BadRecord(key, f"objects[{n}] has no bbox")
        crowd = _first(item, ("iscrowd", "is_crowd"))
        same = {name: item[name] for name in ("area", "id", "segmentation") if item.get(name) is not None}
        boxes.append(
            {"label": label, ("xyxy" if corners else "bbox_xywh"): item["bbox"], "iscrowd": crowd or 0, **same}
        )
    return boxes


def _listed_question(item: Any, what: str, key: str) -> Question:
    if not isinstance(item, Mapping):
        raise BadRecord(key, f"{what} must be an object with text and answers; got {_kind(item)}")
    text = _text(item, "text", key) or _text(item, "question", key)
    is_prompt = bool(item.get("is_prompt"))
    if text is None and not is_prompt:  # a whole prompt may be empty
        raise BadRecord(key, f"{what} has no text")
    renamed = {"qid": item.get("id"), "type": item.get("kind")}
    question = _question(
        {**{name: value for name, value in renamed.items() if value is not None}, **item}, text or "", key
    )
    return replace(question, is_prompt=is_prompt)


def _phrase(item: Any, what: str, key: str) -> Phrase:
    if not isinstance(item, Mapping):
        raise BadRecord(key, f"{what} must be an object with text and thing; got {_kind(item)}")
    return Phrase(text=_required(item.get("text"), f"{what}.text", key), thing=_thing(item.get("thing"), what, key))


def _required(value: Any, what: str, key: str) -> str:
    name = _name(value, what, key)
    if name is None:
        raise BadRecord(key, f"{what} must be a text; got {_kind(value)}")
    return name


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
