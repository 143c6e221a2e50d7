"""The processor of a language model that a dual encoder guides: two tokenizers, and images for the second alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Images, Processor, text_pipeline
from rebus.codec.text import ImageMark, Pieces, Prompt, TextPipeline
from rebus.codec.tokenizer_files import found_files, read_definition
from rebus.codec.tokenizers import Tokenizer
from rebus.core.errors import MissingFile, RebusError
from rebus.core.specs import TextSpec

_GUIDE = "guide_"  # before the names of the files of the guide's tokenizer


class GuidedProcessor(Processor):
    """Prompts and answers are the language model's (`text`); images are the guide's, which reads what was generated,
    too (`read`). Marks of images in a prompt only say that there is one: the language model is shown none."""

    def __init__(
        self,
        image: ImagePipeline | None,
        text: TextPipeline | None,
        guide: TextPipeline | None,
        *,
        sources: Mapping[str, bytes] | None = None,
    ):
        super().__init__(image, text, sources=sources)
        self.guide = guide and TextPipeline(guide.tokenizer, replace(guide.spec, truncate=True))

    def __call__(
        self,
        images: Images | None = None,
        texts: Prompt | Sequence[Prompt] | None = None,
        targets: Prompt | Sequence[Prompt] | None = None,
        regions: Any = None,
        owners: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """As of `Processor`."""
        if texts is not None:
            one = isinstance(texts, str | Pieces)
            texts = _without_marks(texts) if one else [_without_marks(text) for text in texts]  # type: ignore[arg-type]
        return super().__call__(images, texts, targets, regions, owners)

    def read(self, texts: list[str]) -> dict[str, Tensor]:
        """`tokens` and `mask` of texts as the guide reads them. Raises `MissingFile`."""
        if self.guide is None:
            raise MissingFile(f"this checkpoint has no {_GUIDE}tokenizer.json, without which nothing guides its text")
        tokens, mask = self.guide(texts)
        return {"tokens": tokens, "mask": mask}

    def files(self) -> dict[str, bytes]:
        """As of `Processor`, with those of the guide's tokenizer."""
        guide = {} if self.guide is None else Processor(None, self.guide).files()
        return super().files() | {_GUIDE + name: data for name, data in guide.items()}

    def resized(self, side: int) -> "GuidedProcessor":
        """As of `Processor`."""
        found = super().resized(side)
        return GuidedProcessor(found.image, self.text, self.guide, sources=found.sources)


def guide_text(directory: Path, spec: TextSpec) -> TextPipeline | None:
    """How the guide reads texts, from the files that `GuidedProcessor.files` wrote; None without them.

    Raises `BadCheckpoint` naming a damaged file.
    """
    files = found_files(directory, _GUIDE)
    try:
        definition = read_definition(files)
        return None if definition is None else text_pipeline(Tokenizer(definition, files), spec)
    except RebusError as error:
        raise type(error)(f"{directory}, {_GUIDE}: {error}") from None


def _without_marks(text: Prompt) -> Prompt:
    if isinstance(text, str):
        return text
    return Pieces(*(part for part in text if not isinstance(part, ImageMark)))
