"""What a model reads, as far as data sets that are drawn for it must know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rebus.core.errors import UsageError
from rebus.core.places import LocationNotation, OutlineNotation
from rebus.core.specs import ImageSpec, ImageTokens, NamedTask, Prompts, TextSpec
from rebus.core.system import System


@dataclass(frozen=True)
class ModelInputs:
    """The images and texts of one configuration of a system, and what its prompts and answers look like."""

    system: str  # its name, for messages
    text: TextSpec | None = None  # None: no text beside an image
    image: ImageSpec | None = None  # None: it reads no images, or any
    image_tokens: ImageTokens | None = None  # how it writes images between its text; None: it writes none
    context: int = 0  # tokens that a language model reads at most; 0: any number
    prompts: Prompts = field(default_factory=Prompts)
    locations: LocationNotation | None = None  # how it states places in text
    lines: LocationNotation | None = None  # how it states lines of writing
    outlines: OutlineNotation | None = None  # how it states masks, by polygons
    named_tasks: Mapping[str, NamedTask] = field(default_factory=dict)
    answers_file: str | None = None  # the name of the file with the answers that it picks from

    @classmethod
    def of(cls, system: System, model: Any = None) -> "ModelInputs":
        """Those of a configuration of a system; without one, what all of its configurations share."""
        answers = system.companions.get("answers")
        return cls(
            system=system.name,
            text=None if model is None or system.text_spec is None else system.text_spec(model),
            image=None if model is None or system.image_spec is None else system.image_spec(model),
            image_tokens=None if model is None or system.image_tokens is None else system.image_tokens(model),
            context=getattr(model, "context", 0),
            prompts=system.prompts,
            locations=system.locations,
            lines=system.lines,
            outlines=system.outlines,
            named_tasks=system.named_tasks,
            answers_file=None if answers is None else answers.file,
        )

    def text_for(self, kind: str) -> TextSpec:
        """Its texts. Raises `UsageError` where it has none, as data of this kind want them."""
        if self.text is None:
            raise UsageError(f"{self.system} reads no text, which data.kind={kind!r} consists of")
        return self.text

    def image_for(self, kind: str) -> ImageSpec:
        """Its images. Raises `UsageError` where it has none of its own, as data of this kind want them."""
        if self.image is None:
            raise UsageError(f"{self.system} reads no images, which data.kind={kind!r} consists of")
        return self.image

    def image_tokens_for(self, kind: str) -> ImageTokens:
        """How it writes images. Raises `UsageError` where it writes none, as data of this kind want it to."""
        if self.image_tokens is None:
            raise UsageError(f"{self.system} does not generate images, which data.kind={kind!r} requires")
        return self.image_tokens

    def answers_for(self, kind: str) -> str:
        """The name of its list of answers. Raises `UsageError` where it has none."""
        if self.answers_file is None:
            raise UsageError(f"{self.system} picks no answers from a list, as data.kind={kind!r} requires")
        return self.answers_file
