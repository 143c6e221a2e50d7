"""The tokens of the scenes world: whole words, and for generative models location and mask tokens."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizer_files import read_definition
from rebus.codec.tokenizers import Tokenizer, word_level_tokenizer
from rebus.core.specs import ImageSpec, TextSpec
from rebus.data.scenes import vocabulary

SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>")
MASK = "[MASK]"  # stands where a word is to be filled in, for masked language models, which have no <image>
PAD, EOS, BOS, IMAGE = 0, 1, 2, 4


@cache
def scenes_tokenizer(
    locations: bool = False,
    mask: bool = False,
    more: tuple[str, ...] = (),
    spoken: tuple[str, ...] = (),
    added: tuple[str, ...] | None = None,
    controls: tuple[str, ...] = (),
) -> Tokenizer:
    """Whole words of the scenes world; `locations`: also a newline, `<loc0000>`… and `<seg000>`…, for generative
    models; `mask`: with `MASK`, for masked language models; `more`: words after all others; `spoken`: control tokens
    of answers in the place of those of `locations`; `controls`: control tokens after the usual ones; `added`: control
    tokens at the very end in place of `<image>`, of systems that add theirs to a language model's (whose own has none,
    ())."""
    own = (*vocabulary(), "\n") if locations else vocabulary()
    words = tuple(dict.fromkeys((*own, *more)))
    special = (MASK,) if mask else () if added is not None else SPECIALS[-1:]
    bins, codes = (1024, 128) if locations else (0, 0)
    named = (*SPECIALS[:-1], *special, *controls)
    plain = word_level_tokenizer(words, named, locations=bins, segments=codes, spoken=spoken)
    definition = read_definition(plain.files, added or ())
    assert definition is not None
    return _LookUp(definition, plain.files, words)


def new_words(*templates: str) -> tuple[str, ...]:
    """The words of prompts, but for their {fields}, that are not in the vocabulary of scenes."""
    text = re.sub(r"\{\w+\}", " ", " ".join(templates)).lower().replace("_", " _ ")
    known = set(vocabulary())
    return tuple(word for word in dict.fromkeys(re.findall(r"\w+|[^\w\s]", text)) if word not in known)


def scenes_processor(
    text: TextSpec,
    size: int,
    locations: bool = False,
    mask: bool = False,
    files: Mapping[str, bytes] | None = None,
    more: tuple[str, ...] = (),
    spoken: tuple[str, ...] = (),
    added: tuple[str, ...] | None = None,
) -> Processor:
    """The processor of a model that is trained on scenes of `size` × `size` pixels, values scaled to [−1, 1]; `files`
    are saved with it. `locations`, `mask`, `more`, `spoken`, `added`: of the tokenizer."""
    pipeline = TextPipeline(scenes_tokenizer(locations, mask, more, spoken, added), text)
    return Processor(ImagePipeline(ImageSpec(size=(size, size)), threads=1), pipeline, sources=files)


def scenes_text(context: int) -> TextPipeline:
    """How a dual encoder of scenes reads its texts, which begin with `<bos>`, cut and padded to `context` tokens."""
    spec = TextSpec(context=context, pad_id=PAD, eos_id=EOS, bos_id=BOS, pad_to_context=True)
    return TextPipeline(scenes_tokenizer(), spec)


class _LookUp(Tokenizer):
    """The same tokens as `Tokenizer`, ten times as fast where a text holds nothing but words of the scenes world."""

    def __init__(self, definition: Mapping[str, Any], files: Mapping[str, bytes], words: Sequence[str]):
        super().__init__(definition, files)
        self._words = {word: token for word in words if (token := self.id_of(word)) is not None}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts at once."""
        found = [self._look_up(text) for text in texts]
        slow = [text for text, row in zip(texts, found, strict=True) if row is None]
        rest = iter(super().encode_batch(slow) if slow else ())
        return [next(rest) if row is None else row for row in found]

    def _look_up(self, text: str) -> list[int] | None:
        """None where the text has to be looked at more closely."""
        if "\n" in text:  # a token of its own, which `split` drops
            return None
        for mark in ",.?;":
            if mark in text:
                text = text.replace(mark, f" {mark} ")
        try:
            return [self._words[word] for word in text.split()]
        except KeyError:
            return None
