"""A record as one sample of a shard, or as the rows of a table beside its image."""

from collections.abc import Mapping
from typing import Any

from rebus.data.reading.row_to_record import FILES, OTHERS, TEXTS
from rebus.data.record import BadRecord, Record, Thing
from rebus.data.resize_images import Fitted

_OWN = frozenset({*FILES, *TEXTS, *OTHERS, "answer", "answers", "qid", "type"})  # names with a meaning in tables


def picture_of(record: Record) -> Any:
    """The record's image. Raises `BadRecord` for what a sample of one image cannot hold."""
    if record.image is not None:
        return record.image
    if record.document:
        raise BadRecord(record.key, "a document of several parts; a sample holds one image")
    if record.video is not None:
        raise BadRecord(record.key, "a video; a sample holds one image")
    raise BadRecord(record.key, "it has no image")


def facts_of(record: Record, key: str, fitted: Fitted) -> dict[str, Any]:
    """The JSON of a sample, with the names that img2dataset has for the same."""
    found = _others(record)
    if len(record.captions) > 1:
        found["captions"] = list(record.captions)
    if record.questions:
        found["questions"] = [
            {"text": q.text, "answers": list(q.answers), "id": q.id, "kind": q.kind} for q in record.questions
        ]
    caption = record.captions[0] if record.captions else None
    return _facts(record.facts, fitted) | found | {"key": key, "caption": caption, "source": record.key}


def rows_of(record: Record, file: str, fitted: Fitted) -> list[dict[str, Any]]:
    """Rows for the table of a folder: one for each further question."""
    facts = {name: value for name, value in _facts(record.facts, fitted).items() if name not in _OWN}
    first = {"file": file, **({"captions": list(record.captions)} if record.captions else {}), **_others(record)}
    questions = [
        {"question": q.text, "answers": list(q.answers), **({"qid": q.id} if q.id else {}), "type": q.kind}
        for q in record.questions
    ]
    rows = [first | (questions[0] if questions else {}), *({"file": file} | question for question in questions[1:])]
    return [facts | row for row in rows]


def _others(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if record.label is not None:
        found["label"] = record.label
    if record.things:
        found["boxes"] = [_thing(thing) for thing in record.things]
    if record.phrases:
        found["phrases"] = [{"text": phrase.text, "thing": _thing(phrase.thing)} for phrase in record.phrases]
    if record.absent:
        found["absent"] = list(record.absent)
    if record.incomplete:
        found["incomplete"] = list(record.incomplete)
    return found


def _thing(thing: Thing) -> dict[str, Any]:
    said = {"label": thing.label, "xyxy": list(thing.box), "outline": thing.outline, "crowd": thing.crowd}
    said |= {"area": thing.area, "id": thing.id}
    return {name: value for name, value in said.items() if value not in (None, "", False)}


def _facts(facts: Mapping[str, Any], fitted: Fitted) -> dict[str, Any]:
    """The record's facts with the size that the image has now; the size that it was found with stays."""
    first = {name: facts[name] for name in ("original_width", "original_height") if facts.get(name)}
    kept = {name: value for name, value in facts.items() if not isinstance(value, bytes)}
    return {**kept, **fitted.facts, **first}
