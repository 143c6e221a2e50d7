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
from rebus.codec.text import Pieces, Prompt, words_of
from rebus.core.answers import Box, TextLine
from rebus.core.labels import IGNORED
from rebus.core.places import LocationNotation
from rebus.core.specs import Prompts
from rebus.data.record import BadRecord, LeftOut, Record, Thing


class TextRow(NamedTuple):
    """A prompt (None for dual encoders) and the text that a dual encoder reads or a generative model is to write.

    Images of the row stand in front of the prompt, or where `ImageMark`s are: first those of the prompt, then those of
    the text, of models that write images.
    """

    prompt: Prompt | None
    text: Prompt

    @property
    def asked(self) -> str:
        """The words of the prompt."""
        return words_of(self.prompt or "")

    @property
    def words(self) -> str:
        """The words of the text."""
        return words_of(self.text)

    def images_before(self, images: int) -> int:
        """How many of its row's images belong to the prompt."""
        return images - (self.text.marks if isinstance(self.text, Pieces) else 0)


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
    without boxes is asked one, none where such images are left out; the number of each label of the data set."""

    image: ImageSource | ImageRegions | None
    prompt: str | None
    rng: np.random.Generator
    locations: LocationNotation | None = None
    negatives: Sequence[str] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def images(self) -> tuple[ImageSource | ImageRegions, ...]:
        return () if self.image is None else (self.image,)

    @property
    def notation(self) -> LocationNotation:
        """How the system writes positions, in forms with `places`, for which it was checked before."""
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


def _split_caption(record: Record, given: Given) -> Example:
    """A caption cut before a word by lot: {text} before it, at word {at}, is part of the prompt, and the rest is to be
    written (SplitCap; Chen et al., "PaLI", 2022, Sec. 3.3)."""
    words = one_of(record, record.captions, "caption", given.rng).split()
    at = int(given.rng.integers(max(len(words), 1)))
    prompt = filled(given.prompt, at=str(at), text=" ".join(words[:at])).rstrip()
    return Example(given.images, (TextRow(prompt, " ".join(words[at:])),))


def _ask_back(record: Record, given: Given) -> Example:
    """The question that has the {answer} of the prompt."""
    question = one_of(record, record.questions, "question", given.rng)
    prompt = filled(given.prompt, answer=one_of(record, question.answers, "answer", given.rng))
    return Example(given.images, (TextRow(prompt, question.text),))


def _objects(record: Record, given: Given) -> Example:
    """The names of all objects, each once, in the order of the alphabet."""
    labels = sorted({thing.label for thing in record.things})
    if not labels:
        raise LeftOut(record.key, "it has no boxes")
    return Example(given.images, (TextRow(given.prompt, ", ".join(labels)),))


def _captions(record: Record, given: Given) -> Example:
    one_of(record, record.captions, "caption", given.rng)  # or there is none
    return Example(given.images, tuple(TextRow(given.prompt, text) for text in record.captions))


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


def _read(record: Record, given: Given) -> Example:
    """Things are lines of writing: the label is what is written, the corners those of its outline where that is one
    polygon of four, else of its box. From top to bottom."""
    if not record.things:
        raise BadRecord(record.key, "it has no boxes with their text")
    lines = [TextLine(thing.label, _corners(thing), 1.0) for thing in record.things if not thing.crowd]
    lines.sort(key=lambda line: line.corners[0][1])
    return Example(given.images, (TextRow(given.prompt, given.notation.lines_text(lines, given.size)),))


def _corners(thing: Thing) -> tuple[tuple[float, float], ...]:
    outline = thing.outline
    if isinstance(outline, list) and len(outline) == 1 and len(outline[0]) == 8:
        return tuple(zip(outline[0][0::2], outline[0][1::2], strict=True))
    left, top, right, bottom = thing.box
    return (left, top), (right, top), (right, bottom), (left, bottom)


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


def _answer_blanks(record: Record, given: Given) -> Example:
    """A question and one of its answers as one text, of which words are blanked: VisualBERT's second phase for VQA.

    The released weights were trained on the letters of the answer with spaces between, by mistake; here it is words.
    """
    question = one_of(record, record.questions, "question", given.rng)
    asked = question.text.translate(str.maketrans("", "", ",?"))
    text = f"{asked.strip()} ? {one_of(record, question.answers, 'answer', given.rng)}"
    return Example(given.images, (TextRow(None, text),))


def _plain_caption(record: Record, given: Given) -> Example:
    """A caption without a prompt, of which words or their set are learned (`rebus.data.caption_targets`)."""
    return Example(given.images, (TextRow(None, one_of(record, record.captions, "caption", given.rng)),))


def _label_set(record: Record, given: Given) -> Example:
    """`targets` (K,): the numbers of the image's labels from 1, as many as the data set has; −100 after the last."""
    labels = {thing.label for thing in record.things if not thing.crowd}
    if record.label is not None:
        labels.add(record.label)
    if not labels:
        raise LeftOut(record.key, "it has no labels")
    found = sorted(given.numbers[label] for label in labels if label in given.numbers)
    if len(found) < len(labels):
        raise BadRecord(record.key, f"its labels {sorted(labels)} are not all among the data set's")
    targets = np.full(len(given.numbers), IGNORED)
    targets[: len(found)] = found
    return Example(given.images, (), {"targets": targets})


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
    # dual encoders
    "pairs": Form(_pairs),  # image and caption
    # generative models
    "caption": Form(_caption, prompt="caption"),
    "captions": Form(_captions, prompt="caption"),  # all of an image at once
    "split caption": Form(_split_caption, prompt="caption"),  # go on after {at} words, {text}
    "ask": Form(_ask, prompt="ask"),
    "ask back": Form(_ask_back, prompt="ask"),  # the question of an {answer}
    "objects": Form(_objects, prompt="ask"),  # name them all
    "detect": Form(_detect, prompt="detect", places=True),
    "read": Form(_read, prompt="read", places=True),  # boxes that are labelled with what is written in them
    "text": Form(_text, sees=False),  # without images
    "documents": Form(_documents, sees=False),  # text and images in turn
    # encoders that read image and text together
    "caption pairs": Form(_caption_pair),
    "answers": Form(_answers),  # of a list
    "answer blanks": Form(_answer_blanks),  # in questions with their answers
    # image encoders
    "masked caption": Form(_plain_caption),
    "word set": Form(_plain_caption),  # the words of a caption in any order
    "label set": Form(_label_set),  # labels of the image, or of the things in it, numbered from 1
}


def form_prompt(prompts: Prompts, form: Form) -> str | None:
    """The prompt by which a form asks; for all boxes of an image that without labels, where the system has one."""
    if form.prompt == "detect" and prompts.detect_all is not None:
        return prompts.detect_all
    return None if form.prompt is None else getattr(prompts, form.prompt)


def one_of(record: Record, among: Sequence[Any], what: str, rng: np.random.Generator) -> Any:
    """A random one. Raises `BadRecord` where there is none."""
    if not among:
        raise BadRecord(record.key, f"it has no {what}")
    return among[int(rng.integers(len(among)))]


def filled(prompt: str | None, /, **values: str) -> str:
    """A prompt with its {question}, {labels} or {phrase}; other braces stay."""
    text = prompt or ""
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text
