"""Text → batches of ids and back, as the checkpoint's card (`TextSpec`) says.

Two conventions share one pipeline. Encoders read `[bos] text eos`, cut so that the end token stays last.
Generative models read `images, [bos] prompt separator`, which is never cut, and learn to answer `text eos`. Images
stand before the prompt, or where its `ImageMark`s are.
"""

import html
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import ftfy
import numpy as np
import torch
from torch import Tensor

from rebus.codec.tokenizers import Tokenizer, check_text
from rebus.core.errors import BadConfig, BadText
from rebus.core.labels import IGNORED
from rebus.core.specs import TextSpec

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARK = -1  # an image inside a prompt, before it is made room for


@dataclass(frozen=True)
class Control:
    """A control token by name, for tasks to put into a prompt: `Control("<loc0012>")`. Text never becomes one."""

    name: str


@dataclass(frozen=True)
class ImageMark:
    """Where an image stands inside a prompt; marks take the images of their row in order."""


class Pieces(tuple[str | Control | ImageMark, ...]):
    """A prompt of text, control tokens and images: `Pieces("caption ", Control("<loc0001>"), Control("<loc0002>"))`,
    `Pieces("a cat: ", ImageMark(), " a dog: ", ImageMark())`."""

    def __new__(cls, *parts: str | Control | ImageMark) -> "Pieces":
        for part in parts:
            if not isinstance(part, str | Control | ImageMark):
                raise BadText(f"a prompt is made of str, Control and ImageMark; got {type(part).__name__}")
        return super().__new__(cls, parts)

    @property
    def marks(self) -> int:
        """How many images the prompt has room for."""
        return sum(isinstance(part, ImageMark) for part in self)


Prompt = str | Pieces


class TextPipeline:
    """Texts → (tokens, mask) and targets, and ids → texts, by a tokenizer and a `TextSpec`."""

    def __init__(self, tokenizer: Tokenizer, spec: TextSpec):
        self.tokenizer = tokenizer
        self.spec = spec
        for role in ("pad_id", "bos_id", "eos_id"):
            value = getattr(spec, role)
            if value is not None and not 0 <= value < tokenizer.vocab_size:
                raise BadConfig(f"{role} {value} is outside the tokenizer's {tokenizer.vocab_size:,} tokens")
        separator = tokenizer.id_of(spec.separator)
        self._separator = [separator] if separator is not None else tokenizer.encode(spec.separator)

    def __call__(self, texts: Prompt | Sequence[Prompt], images: int | Sequence[int] = 0) -> tuple[Tensor, Tensor]:
        """tokens (B, L) int64 and mask (B, L) bool, padded on the right.

        `images`: how many images each prompt has (one number for all, or one each), for models whose prompts hold
        placeholders: in front of the prompt, or where its marks are. Raises `BadText` for what cannot be encoded, for
        another number of marks than images, and for what is too long: prompts always, other texts when the spec says
        `truncate=False`.
        """
        prompts = _listed(texts)
        counts = [images] * len(prompts) if isinstance(images, int) else list(images)
        if len(counts) != len(prompts):
            raise BadText(f"{len(prompts)} prompts but images for {len(counts)}: one entry for each is wanted")
        for i, (prompt, count) in enumerate(zip(prompts, counts, strict=True)):
            self._check_marks(i, prompt, count)
        bodies = self._encode(prompts)
        if self.spec.generates:
            rows = [self._prompt(i, body, count) for i, (body, count) in enumerate(zip(bodies, counts, strict=True))]
        else:
            rows = [self._whole(i, body) for i, body in enumerate(bodies)]
        width = self.spec.context if self.spec.pad_to_context else max(map(len, rows), default=0)
        mask = torch.arange(width) < torch.tensor([len(row) for row in rows], dtype=torch.int64)[:, None]
        return _padded(rows, width, self.spec.pad_id), mask

    def targets(self, texts: Prompt | Sequence[Prompt]) -> Tensor:
        """(B, S) int64: what a writer is to answer, end token last, padded on the right with −100.

        Places and masks (`<loc0001>`, `<seg001>`) are control tokens here. An answer longer than the context is cut
        and has no end token then, or raises `BadText` when the spec says `truncate=False`.
        """
        rows = []
        answers = _listed(texts)
        for i, answer in enumerate(answers):
            if isinstance(answer, Pieces) and answer.marks:
                raise BadText(f"answer {i} holds an image: models that write text cannot be taught to answer with one")
        start = [self.spec.bos_id] if self.spec.bos_before_answer and self.spec.bos_id is not None else []
        for i, body in enumerate(self._encode(answers, answers=True)):
            row = start + body if self.spec.eos_id is None else [*start, *body, self.spec.eos_id]
            if len(row) > self.spec.context and not self.spec.truncate:
                raise BadText(f"answer {i} has {len(row):,} tokens, the context holds {self.spec.context:,}")
            rows.append(row[: self.spec.context])
        return _padded(rows, max(map(len, rows), default=0), IGNORED)

    def decode(self, tokens: Tensor | Sequence[Sequence[int]]) -> list[str]:
        """One text a row, up to its end token; control tokens are left out, except places and masks."""
        rows = tokens.tolist() if isinstance(tokens, Tensor) else [list(row) for row in tokens]
        if rows and isinstance(rows[0], int):
            rows = [rows]
        return [self.tokenizer.decode(self._answer(row)) for row in rows]

    def _answer(self, row: list[int]) -> Iterable[int]:
        if self.spec.eos_id in row:
            row = row[: row.index(self.spec.eos_id)]
        return (token for token in row if token >= 0)

    def _encode(self, prompts: Sequence[Prompt], answers: bool = False) -> list[list[int]]:
        """The ids of each prompt's words and control tokens; plain texts all at once."""
        if answers:
            return [self._pieces(prompt, self.tokenizer.encode_answer) for prompt in prompts]
        if all(isinstance(prompt, str) for prompt in prompts):
            return self.tokenizer.encode_batch([self.prepare(prompt) for prompt in prompts])  # type: ignore[arg-type]
        return [self._pieces(prompt, self.tokenizer.encode) for prompt in prompts]

    def _pieces(self, prompt: Prompt, encode: Callable[[str], list[int]]) -> list[int]:
        ids: list[int] = []
        for part in (prompt,) if isinstance(prompt, str) else prompt:
            if isinstance(part, str):
                ids += encode(self.prepare(part))
                continue
            if isinstance(part, ImageMark):
                ids += [_MARK]
                continue
            token = self.tokenizer.id_of(part.name)
            if token is None:
                raise BadText(f"the tokenizer has no control token {part.name}")
            ids.append(token)
        return ids

    def _check_marks(self, index: int, prompt: Prompt, images: int) -> None:
        marks = prompt.marks if isinstance(prompt, Pieces) else 0
        if marks and self.spec.image_token_id is None:
            raise BadText(f"text {index} holds {_number(marks)}: this model's texts have no place for images")
        if marks and marks != images:
            raise BadText(f"prompt {index} has marks for {_number(marks)} and {_number(images)} beside it")

    def prepare(self, text: str) -> str:
        """The text as the tokenizer is to see it: cleaned, without punctuation, in lower case, as the spec says."""
        check_text(text)
        if self.spec.clean:
            text = clean(text)
        if self.spec.canonical:
            text = canonical(text)
        return text.lower() if self.spec.lower else text

    def _whole(self, index: int, body: list[int]) -> list[int]:
        """`[bos] body eos` within the context; when the body is too long the end token stays last."""
        start = [] if self.spec.bos_id is None else [self.spec.bos_id]
        end = [] if self.spec.eos_id is None else [self.spec.eos_id]
        room = self.spec.context - len(start) - len(end)
        if len(body) > room and not self.spec.truncate:
            size = len(start) + len(body) + len(end)
            raise BadText(f"text {index} has {size:,} tokens, the context holds {self.spec.context:,}; shorten it")
        return start + body[: max(room, 0)] + end

    def _prompt(self, index: int, body: list[int], images: int) -> list[int]:
        """`images [bos] body separator`: the start token comes after the last placeholder, marked or in front, as the
        released processor of PaliGemma has it."""
        place = self.spec.image_token_id
        image = [] if place is None else [place] * self.spec.num_image_tokens
        if _MARK in body:
            last = len(body) - body[::-1].index(_MARK)
            seen = [token for part in body[:last] for token in (image if part == _MARK else [part])]
            body = body[last:]
        else:
            seen = image * images
        row = seen + ([] if self.spec.bos_id is None else [self.spec.bos_id]) + body + self._separator
        if len(row) > self.spec.context:
            placed = len(image) * images
            pictures = f"{_number(images)} ({placed:,} tokens) and " if placed else ""
            raise BadText(
                f"prompt {index}: {pictures}{len(row) - placed:,} tokens of text make {len(row):,}; "
                f"the context holds {self.spec.context:,}"
            )
        return row


def _number(images: int) -> str:
    return f"{images} image{'s' * (images != 1)}"


def clean(text: str) -> str:
    """CLIP's cleaning (clip §4): encoding mended by ftfy, HTML entities twice, single spaces."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def canonical(text: str) -> str:
    """SigLIP's canonical form (siglip §4): underscores as spaces, no ASCII punctuation, single spaces."""
    return " ".join(text.replace("_", " ").translate(_PUNCTUATION).split())


def _listed(texts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    if isinstance(texts, str | Pieces):
        return [texts]
    for text in texts:
        if not isinstance(text, str | Pieces):
            raise BadText(f"a text must be a str; got {type(text).__name__}")
    return list(texts)


def _padded(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    filled = np.full((len(rows), width), value, dtype=np.int64)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = row
    return torch.from_numpy(filled)
