"""What can be answered about a scene, form by form, for models that are asked by tasks with names of their own."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from rebus.core.answers import Box, TextLine
from rebus.core.places import XYXY, LocationNotation, OutlineNotation
from rebus.data.scenes import COLOURS, SHAPES, Scene, SceneObject
from rebus.data.scenes.corners import corners


class Notations(NamedTuple):
    """How a system states places; None for what it does not state."""

    boxes: LocationNotation | None
    lines: LocationNotation | None
    outlines: OutlineNotation | None


class Answer(NamedTuple):
    """What is answered, about what: a text or a region (xyxy in pixels), or the whole image."""

    said: str
    text: str | None = None
    region: XYXY | None = None


class Form(NamedTuple):
    """`states`: the notation it expects, if any; `asks`: what the task's prompt holds; `reads`: whether it is about
    writing, so that the image is to hold some."""

    make: Callable[[Scene, np.random.Generator, Notations], Answer]
    states: str | None = None
    asks: str | None = None
    reads: bool = False


def _paragraph(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
    """The number, all attributes, and a relation where there is a clear one."""
    sentence, _, number, *relations = s.captions[1:]
    return Answer(". ".join([number, sentence, *relations[:1]]))


def _objects(name: Callable[[SceneObject], str]) -> Callable[[Scene, np.random.Generator, Notations], Answer]:
    """Boxes from left to right."""

    def make(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
        return Answer(_boxes(s, how, [(name(o), o.box) for o in s.objects]))

    return make


def _boxes(s: Scene, how: Notations, named: list[tuple[str, XYXY]]) -> str:
    assert how.boxes is not None
    return how.boxes.detection_text([Box(box, name, 1.0) for name, box in named], (s.size, s.size))


def _phrases(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
    """The phrases of a caption with their boxes."""
    return Answer(_boxes(s, how, list(zip(s.labels, s.boxes, strict=True))), text=s.captions[2])


def _found(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
    """The boxes of all objects that a shape, a colour and a shape, or "object" names; in a third of the cases there is
    none, and the answer is empty."""
    one = s.objects[int(rng.integers(len(s.objects)))]
    shape, colour = SHAPES[rng.integers(len(SHAPES))], COLOURS[rng.integers(len(COLOURS))]
    kind, there = rng.random(), rng.random() < 0.6
    if kind < 0.6:
        name = one.shape if there else shape
    elif kind < 0.95:
        changed = (colour, one.shape) if rng.random() < 0.5 else (one.colour, shape)
        name = f"{one.colour} {one.shape}" if there else " ".join(changed)
    else:
        name = "object"
    return Answer(_boxes(s, how, [(name, s.boxes[i]) for i in s.matching(name)]), text=name)


def _outline(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
    phrase, i = s.phrases[int(rng.integers(len(s.phrases)))]
    return Answer(_polygon(s, s.objects[i], how), text=phrase)


def _region_outline(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
    one = s.objects[int(rng.integers(len(s.objects)))]
    return Answer(_polygon(s, one, how), region=one.box)


def _polygon(s: Scene, one: SceneObject, how: Notations) -> str:
    assert how.outlines is not None
    return how.outlines.tokens([corners(one)], (s.size, s.size))


def _region(name: Callable[[SceneObject], str]) -> Callable[[Scene, np.random.Generator, Notations], Answer]:
    def make(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
        one = s.objects[int(rng.integers(len(s.objects)))]
        return Answer(name(one), region=one.box)

    return make


def _writing(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
    return Answer("" if s.writing is None else s.writing.spelled)


def _lines(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
    if s.writing is None:
        return Answer("")
    assert how.lines is not None
    left, top, right, bottom = s.writing.box
    line = TextLine(s.writing.spelled, ((left, top), (right, top), (right, bottom), (left, bottom)), 1.0)
    return Answer(how.lines.lines_text([line], (s.size, s.size)))


def _region_writing(s: Scene, rng: np.random.Generator, how: Notations) -> Answer:
    """Nothing is written in an object."""
    if s.writing is None:
        return Answer("", region=s.objects[int(rng.integers(len(s.objects)))].box)
    return Answer(s.writing.spelled, region=s.writing.box)


def _label(one: SceneObject) -> str:
    return f"{one.colour} {one.shape}"


def _description(one: SceneObject) -> str:
    return " ".join(one.attributes)


ANSWERS: Mapping[str, Form] = {
    "caption": Form(lambda s, rng, how: Answer(s.captions[0])),  # every attribute of every object, from left to right
    "sentence": Form(lambda s, rng, how: Answer(s.captions[1])),
    "paragraph": Form(_paragraph),
    "objects": Form(_objects(_label), states="boxes"),
    "descriptions": Form(_objects(_description), states="boxes"),
    "proposals": Form(_objects(lambda one: ""), states="boxes"),
    "phrases": Form(_phrases, states="boxes", asks="text"),
    "found": Form(_found, states="boxes", asks="text"),
    "outline": Form(_outline, states="outlines", asks="text"),
    "region outline": Form(_region_outline, states="outlines", asks="region"),
    "region label": Form(_region(_label), states="boxes", asks="region"),
    "region description": Form(_region(_description), states="boxes", asks="region"),
    "writing": Form(_writing, reads=True),
    "lines": Form(_lines, states="lines", reads=True),
    "region writing": Form(_region_writing, states="boxes", asks="region", reads=True),
}
