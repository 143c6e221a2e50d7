"""What a model reads, as far as data sets that are drawn for it must know."""

from dataclasses import dataclass, field

from rebus.core.errors import UsageError
from rebus.core.places import LocationNotation
from rebus.core.specs import ImageSpec, ImageTokens, Prompts, TextSpec


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
    answers_file: str | None = None  # the name of the file with the answers that it picks from

    def text_for(self, kind: str) -> TextSpec:
        """Its texts. Raises `UsageError` where it has none, as data of this kind want them."""
        if self.text is None:
            raise UsageError(f"{self.system} reads no text, which data.kind={kind!r} is made of")
        return self.text

    def image_for(self, kind: str) -> ImageSpec:
        """Its images. Raises `UsageError` where it has none of its own, as data of this kind want them."""
        if self.image is None:
            raise UsageError(f"{self.system} reads no images, which data.kind={kind!r} is made of")
        return self.image

    def image_tokens_for(self, kind: str) -> ImageTokens:
        """How it writes images. Raises `UsageError` where it writes none, as data of this kind want it to."""
        if self.image_tokens is None:
            raise UsageError(f"{self.system} writes no images, as data.kind={kind!r} wants it to")
        return self.image_tokens

    def answers_for(self, kind: str) -> str:
        """The name of its list of answers. Raises `UsageError` where it has none."""
        if self.answers_file is None:
            raise UsageError(f"{self.system} picks no answers from a list, as data.kind={kind!r} wants it to")
        return self.answers_file
