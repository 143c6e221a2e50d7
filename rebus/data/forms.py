"""What a record becomes when a model learns from it: a table of small functions, one for each form.

A form is given a record and what it needs to put it into words, and gives an `Example`: the images of one row and the
texts that belong to them.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rebus.codec.decode_image import ImageSource
from rebus.codec.regions import ImageRegions
from rebus.core.answers import Box
from rebus.core.places import LocationNotation
from rebus.data.record import BadRecord, LeftOut, Record


class TextRow(NamedTuple):
    """A prompt (None for dual encoders) and the text that a dual encoder reads or a generative model is to write."""

    prompt: str | None
    text: str


@dataclass(frozen=True)
class Example:
    """One row of images with the texts that belong to it, before they are tensors.

    `arrays`: what else an objective learns from, one array for each name; examples of a batch have the same names.
    `document`: texts and, as None, images in reading order, where they stand in turn.
    """

    images: tuple[ImageSource | ImageRegions, ...] = ()
    texts: tuple[TextRow, ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    document: tuple[str | None, ...] | None = None


@dataclass(frozen=True)
class Given:
    """What a form may use: the record's image, decoded where the form says `places`; the prompt of the form, with
    its {question}, {labels} or {phrase}; random numbers; how the system states places; the labels of which an image
    without boxes is asked one, none where such images are left out."""

    image: ImageSource | ImageRegions | None
    prompt: str | None
    rng: np.random.Generator
    locations: LocationNotation | None = None
    negatives: Sequence[str] = ()

    @property
    def images(self) -> tuple[ImageSource | ImageRegions, ...]:
        return () if self.image is None else (self.image,)

    @property
    def notation(self) -> LocationNotation:
        """How the system states places, in forms with `places`: whoever opens such a form has made sure of it."""
        assert self.locations is not None
        return self.locations

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the decoded image."""
        if isinstance(self.image, np.ndarray):
            return self.image.shape[1], self.image.shape[0]
        assert isinstance(self.image, Image.Image)
        return self.image.size


class Form(NamedTuple):
    """`make(record, given)` → the example; raises `BadRecord` for a record that lacks what the form needs, `LeftOut`
    for one that is whole and has nothing for it.

    `prompt`: which of a system's `Prompts` it asks by, None for no prompt. `sees`: whether the record's image is part
    of it. `places`: whether it says where things are, so that the image must be decoded and must not be cropped or
    flipped.
    """

    make: Callable[[Record, Given], Example]
    prompt: str | None = None
    sees: bool = True
    places: bool = False


def _pairs(record: Record, given: Given) -> Example:
    """`groups` (2,) say which record and which caption it is: rows of the same are no negatives of each other."""
    caption = one_of(record, record.captions, "caption", given.rng)
    groups = np.array([_number(record.key), _number(caption)])
    return Example(given.images, (TextRow(None, caption),), {"groups": groups})


def _number(text: str) -> int:
    """The same on every rank."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _caption(record: Record, given: Given) -> Example:
    return Example(given.images, (TextRow(given.prompt, one_of(record, record.captions, "caption", given.rng)),))


def _ask(record: Record, given: Given) -> Example:
    question = one_of(record, record.questions, "question", given.rng)
    prompt = question.text if question.is_prompt else filled(given.prompt, question=question.text)
    return Example(given.images, (TextRow(prompt, one_of(record, question.answers, "answer", given.rng)),))


def _detect(record: Record, given: Given) -> Example:
    """Crowds are neither asked for nor answered: their boxes hold several things, of which none is marked alone."""
    things = [thing for thing in record.things if not thing.crowd]
    labels = sorted({thing.label for thing in things})
    if not things:
        labels = [one_of(record, _missing(record, given.negatives), "box", given.rng)]
    boxes = [Box(thing.box, thing.label, 1.0) for thing in things]
    prompt = filled(given.prompt, labels=" ; ".join(labels))
    return Example(given.images, (TextRow(prompt, given.notation.detection_text(boxes, given.size)),))


def _missing(record: Record, labels: Sequence[str]) -> Sequence[str]:
    """Of `labels`, those that an image without boxes surely lacks. Raises `LeftOut` where there is none."""
    unknown = {*(thing.label for thing in record.things), *record.incomplete}
    looked_for = set(record.absent or labels)
    missing = [label for label in labels if label in looked_for - unknown]
    if not missing or record.facts.get("boxes", ...) is None:  # null: nobody looked
        raise LeftOut(record.key, "it has no boxes")
    return missing


def _text(record: Record, given: Given) -> Example:
    return Example((), (TextRow("", one_of(record, record.captions, "text", given.rng)),))


def _caption_pair(record: Record, given: Given) -> Example:
    """Two captions, the first as the prompt, and by lot whether the second goes to the neighbouring row
    (`rebus.data.caption_pairs`). An image with one caption has that alone."""
    second = one_of(record, record.captions, "caption", given.rng)
    others = [text for text in record.captions if text != second]
    first = others[int(given.rng.integers(len(others)))] if others else None
    return Example(given.images, (TextRow(first, second),), {OWN: np.array(given.rng.random() < 0.5)})


def _answers(record: Record, given: Given) -> Example:
    """A question by lot with all its answers, one a line, to be scored by a list (`rebus.data.answer_batches`)."""
    question = one_of(record, record.questions, "question", given.rng)
    return Example(given.images, (TextRow(question.text, "\n".join(question.answers)),))


MOST_IMAGES = 5  # of a document in one example (Flamingo, Sec. 2.4)


def _documents(record: Record, given: Given) -> Example:
    """At most `MOST_IMAGES` images with the texts between and after them, from one by lot of those that leave enough to
    come; texts that follow each other are joined by a space. An image and its caption are a document too."""
    parts: list[Any] = list(record.document)
    if not parts:
        if record.image is None:
            raise LeftOut(record.key, "it has neither a document nor an image")
        parts = [record.image, one_of(record, record.captions, "caption", given.rng)]
    at = [i for i, part in enumerate(parts) if not isinstance(part, str)]
    if not at:
        raise LeftOut(record.key, "a document without images")
    first = int(given.rng.integers(max(1, len(at) - MOST_IMAGES + 1)))
    begin = at[first] if first else 0
    stop = at[first + MOST_IMAGES] if first + MOST_IMAGES < len(at) else len(parts)
    document: list[str | None] = []
    for part in parts[begin:stop]:
        if not isinstance(part, str):
            document.append(None)
        elif document and document[-1] is not None:
            document[-1] = f"{document[-1]} {part.strip()}"
        elif part.strip():
            document.append(part.strip())
    images = tuple(part for part in parts[begin:stop] if not isinstance(part, str))
    return Example(images, document=tuple(document))


OWN = "own"  # array of an example: whether its second caption stays with its image
FORMS: Mapping[str, Form] = {
    "pairs": Form(_pairs),
    "caption": Form(_caption, prompt="caption"),
    "ask": Form(_ask, prompt="ask"),
    "caption pairs": Form(_caption_pair),
    "answers": Form(_answers),
    "detect": Form(_detect, prompt="detect", places=True),
    "text": Form(_text, sees=False),
    "documents": Form(_documents, sees=False),
}


def one_of(record: Record, among: Sequence[Any], what: str, rng: np.random.Generator) -> Any:
    """One by lot. Raises `BadRecord` where there is none."""
    if not among:
        raise BadRecord(record.key, f"it has no {what}")
    return among[int(rng.integers(len(among)))]


def filled(prompt: str | None, **values: str) -> str:
    """A prompt with its {question}, {labels} or {phrase}; other braces stay."""
    text = prompt or ""
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text
