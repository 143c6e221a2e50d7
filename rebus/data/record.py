"""One example as it lies on disk: nothing is decoded before it is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from rebus.core.errors import RebusError

XYXY: TypeAlias = tuple[float, float, float, float]
Encoded: TypeAlias = bytes | Path  # an image or video file, or where it lies
StoredImage: TypeAlias = Encoded | np.ndarray  # or an image that was never a file, uint8 (H, W, 3)


class BadRecord(RebusError):
    """A record that cannot be read; the message begins with its key."""

    def __init__(self, key: str, reason: str):
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason


class LeftOut(BadRecord):
    """A whole record that has nothing of what is asked for: another takes its place, and it is no damage."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about an image, with what people answered, most official answer first."""

    text: str
    answers: tuple[str, ...]
    id: str = ""
    kind: str = ""  # "yes/no", "number", "other"
    is_prompt: bool = False  # the text is all that the model is given: PaliGemma's prefix


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A labelled object. `box` in pixels of the image, `outline` as the layout writes it (polygons or runs)."""

    label: str
    box: XYXY
    outline: Any = None
    crowd: bool = False
    area: float | None = None
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """Words that fit one object of the image alone."""

    text: str
    thing: Thing


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a reader gives. Layouts fill the fields that they have.

    `key`: where the record is, for messages ("00012.tar:000120003", "captions.csv:17"). `document`: texts and images
    in reading order. `absent` and `incomplete`: labels that were looked for and are not there, and labels of which only
    some objects are marked (LVIS). `facts`: the layout's other columns, as they are.
    """

    key: str
    image: StoredImage | None = None
    captions: tuple[str, ...] = ()
    label: str | None = None
    questions: tuple[Question, ...] = ()
    things: tuple[Thing, ...] = ()
    phrases: tuple[Phrase, ...] = ()
    document: tuple[str | Encoded, ...] = ()
    video: Encoded | None = None
    seconds: tuple[float, float] | None = None  # the part of the video that the captions are about
    absent: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Reader(Protocol):
    """A data set on disk as numbered records, in blocks of what lies together (a file, a tar, a row group).

    Opening one looks at names, counts and indices only, and raises a `RebusError` when the layout is not what it
    should be. A reader can be pickled and sent to a worker process. One that holds much in memory to read anywhere may
    say by an attribute `window` how many rows to shuffle together.
    """

    @property
    def sizes(self) -> Sequence[int]:
        """How many records each block holds, damaged ones included."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """All labels that things (or whole images) can have, in the layout's order; empty where there are none."""
        ...

    def read(self, block: int, row: int) -> Record:
        """Raises `BadRecord` when this one is damaged; others can still be read."""
        ...
