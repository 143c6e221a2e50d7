"""A record as one sample of a shard, or as a row of a table beside its image."""

from collections.abc import Mapping
from typing import Any

from rebus.data.reading.row_to_record import FILES, LISTS, OTHERS, TEXTS
from rebus.data.record import BadRecord, Question, Record, Thing
from rebus.data.resize_images import Fitted

# Names with a meaning in the JSON of a sample, and in tables
_READ = frozenset({*OTHERS, *LISTS, "captions"})
_OWN = _READ | {*FILES, *TEXTS}


def image_of(record: Record) -> Any:
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
    facts = {name: value for name, value in _facts(record.facts, fitted).items() if name not in _READ}
    caption = record.captions[0] if record.captions else None
    return facts | annotations_of(record) | {"key": key, "caption": caption, "source": record.key}


def row_of(record: Record, file: str, fitted: Fitted) -> dict[str, Any]:
    """The row for the table of a folder."""
    facts = {name: value for name, value in _facts(record.facts, fitted).items() if name not in _OWN}
    return facts | {"file": file} | annotations_of(record)


def annotations_of(record: Record) -> dict[str, Any]:
    """What people said of the image, as `rebus.data.reading.row_to_record` reads it; and that nobody marked it."""
    found: dict[str, Any] = {}
    if record.captions:
        found["captions"] = list(record.captions)
    if record.questions:
        found["questions"] = [_question(question) for question in record.questions]
    if record.label is not None:
        found["label"] = record.label
    if record.things:
        found["boxes"] = [_thing(thing) for thing in record.things]
    elif "boxes" in record.facts and record.facts["boxes"] is None:
        found["boxes"] = None
    if record.phrases:
        found["phrases"] = [{"text": phrase.text, "thing": _thing(phrase.thing)} for phrase in record.phrases]
    if record.absent:
        found["absent"] = list(record.absent)
    if record.incomplete:
        found["incomplete"] = list(record.incomplete)
    return found


def _question(question: Question) -> dict[str, Any]:
    said = {"text": question.text, "answers": list(question.answers), "id": question.id, "kind": question.kind}
    return said | ({"is_prompt": True} if question.is_prompt else {})


def _thing(thing: Thing) -> dict[str, Any]:
    said = {"label": thing.label, "xyxy": list(thing.box), "outline": thing.outline, "crowd": thing.crowd}
    said |= {"area": thing.area, "id": thing.id}
    return {name: value for name, value in said.items() if value not in (None, "", False)}


def _facts(facts: Mapping[str, Any], fitted: Fitted) -> dict[str, Any]:
    """The record's facts with the size that the image has now; the size that it was found with stays."""
    first = {name: facts[name] for name in ("original_width", "original_height") if facts.get(name)}
    kept = {name: value for name, value in facts.items() if not isinstance(value, bytes)}
    return {**kept, **fitted.facts, **first}
