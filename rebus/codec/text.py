"""Text → batches of ids and back, as the checkpoint's card (`TextSpec`) says.

Two conventions share one pipeline. Encoders read `[bos] text eos`; what is too long is cut so that the end token stays
last, and this is logged. Generative models read `images, [bos] prompt separator`, which is cut only where the user
allows it and never inside an image, and learn to answer `text eos`. Images stand before the prompt, or where its
`ImageMark`s are.
"""

import html
import logging
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import ftfy
import numpy as np
import torch
from torch import Tensor

from rebus.codec.tokenizers import Tokenizer, check_text
from rebus.core.errors import BadConfig, BadText
from rebus.core.labels import IGNORED
from rebus.core.specs import Prompts, TextSpec

log = logging.getLogger("rebus")

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


class Unfinished(Pieces):
    """A prompt that the answer continues directly, without the separator that ends other prompts."""


Prompt = str | Pieces


def words_of(prompt: Prompt) -> str:
    """A prompt without its control tokens and images."""
    return prompt if isinstance(prompt, str) else " ".join(part for part in prompt if isinstance(part, str))


def filled_prompt(prompts: Prompts, task: str, **values: str) -> Prompt:
    """A system's prompt for a task with its {question}, {text} or {phrase}, in which the system's own control tokens
    are control tokens and those that a user typed are not."""
    template = str(getattr(prompts, task))
    if "question" in values and prompts.drops:
        values = {**values, "question": values["question"].translate(dict.fromkeys(map(ord, prompts.drops)))}

    def filled(part: str) -> str:
        names = re.split(r"\{(\w+)\}", part)
        return "".join(values.get(name, "{" + name + "}") if i % 2 else name for i, name in enumerate(names))

    if not prompts.controls:
        return filled(template)
    parts = re.split("(" + "|".join(map(re.escape, prompts.controls)) + ")", template)
    return Pieces(*(Control(part) if i % 2 else filled(part) for i, part in enumerate(parts) if part))


class TextPipeline:
    """Texts → (tokens, mask) and targets, and ids → texts, by a tokenizer and a `TextSpec`."""

    def __init__(self, tokenizer: Tokenizer, spec: TextSpec):
        self.tokenizer = tokenizer
        self.spec = spec
        self._told_lost = self._told_hidden = False
        self._expected = frozenset[str]()  # words whose loss is not worth a warning
        for role in ("pad_id", "bos_id", "eos_id"):
            value = getattr(spec, role)
            if value is not None and not 0 <= value < tokenizer.vocab_size:
                raise BadConfig(f"{role} {value} is outside the tokenizer's {tokenizer.vocab_size:,} tokens")
        check_end(tokenizer, spec)
        separator = spec.eos_id if spec.eos_after_prompt else tokenizer.id_of(spec.separator)
        self._separator = [separator] if separator is not None else tokenizer.encode(spec.separator)
        self._read, self._cut = 0, list[int]()  # texts since the last report, and the tokens of those that were cut
        self._gathers = self._reported = False

    def allow_truncation(self) -> None:
        """From now on texts, prompts and answers that are too long are cut, without an error or a warning."""
        self.spec = replace(self.spec, truncate=True)

    @contextmanager
    def one_report(self, around: str = "") -> Iterator[None]:
        """Log once how many of the texts encoded inside were truncated. Only the first report of a pipeline is logged:
        training or a loop of calls would repeat it endlessly. `around`: words that are not the caller's, as those of a
        published template; that a small vocabulary lacks them is not logged."""
        outermost, self._gathers = not self._gathers, True
        before, self._expected = self._expected, frozenset(self.prepare(around).split())
        try:
            yield
        finally:
            self._expected = before
            if outermost:
                self._gathers = False
                self._report()

    def _report(self) -> None:
        if self._cut and not self._reported and self.spec.truncate is None:
            self._reported = True
            log.warning(
                "%s of %s texts are longer than the context of %s tokens (up to %s) and were truncated. Shorten them, "
                "or allow it: --truncate, or model.processor.text.allow_truncation()",
                *(f"{n:,}" for n in (len(self._cut), self._read, self.spec.context, max(self._cut))),
            )
        self._read, self._cut = 0, []

    def __call__(self, texts: Prompt | Sequence[Prompt], images: int | Sequence[int] = 0) -> tuple[Tensor, Tensor]:
        """tokens (B, L) int64 and mask (B, L) bool, padded on the right.

        `images`: how many images each prompt has (one number for all, or one each), for models whose prompts hold
        placeholders: in front of the prompt, or where its marks are. Raises `BadText` for what cannot be encoded, for
        another number of marks than images, and for what is too long: prompts unless the spec says `truncate=True`,
        other texts when it says `truncate=False`.
        """
        prompts = _listed(texts)
        counts = [images] * len(prompts) if isinstance(images, int) else list(images)
        if len(counts) != len(prompts):
            raise BadText(f"{len(prompts)} prompts but images for {len(counts)}: there must be one entry for each")
        for i, (prompt, count) in enumerate(zip(prompts, counts, strict=True)):
            self._check_marks(i, prompt, count)
        self._tell_hidden(prompts)
        bodies = self._encode(prompts)
        self._tell_lost(prompts, bodies)
        if self.spec.generates:
            each = enumerate(zip(prompts, bodies, counts, strict=True))
            rows = [self._prompt(i, body, count, not isinstance(one, Unfinished)) for i, (one, body, count) in each]
        else:
            with self.one_report():
                rows = [self._whole(i, body) for i, body in enumerate(bodies)]
                self._read += len(rows)
        width = self.spec.context if self.spec.pad_to_context else max(map(len, rows), default=0)
        mask = torch.arange(width) < torch.tensor([len(row) for row in rows], dtype=torch.int64)[:, None]
        return _padded(rows, width, self.spec.pad_id), mask

    def targets(self, texts: Prompt | Sequence[Prompt]) -> Tensor:
        """(B, S) int64: what a generative model is to answer, end token last, padded on the right with −100.

        Images in an answer (`ImageMark`), of models that write them, are placeholders as in prompts.

        Places and masks (`<loc0001>`, `<seg001>`) are control tokens here. An answer longer than the context raises
        `BadText`, or is cut and has no end token where the spec says `truncate=True`.
        """
        rows = []
        answers = _listed(texts)
        for i, answer in enumerate(answers):
            if isinstance(answer, Pieces) and answer.marks and self.spec.image_begin_id is None:
                raise BadText(
                    f"answer {i} contains an image: models that generate text cannot be trained to answer with one"
                )
        start = [self.spec.bos_id] if self.spec.bos_before_answer and self.spec.bos_id is not None else []
        for i, marked in enumerate(self._encode(answers, answers=True)):
            body = [token for part in marked for token in (self._image_ids() if part == _MARK else [part])]
            row = start + body if self.spec.eos_id is None else [*start, *body, self.spec.eos_id]
            if len(row) > self.spec.context and not self.spec.truncate:
                raise BadText(
                    f"answer {i} has {len(row):,} tokens, the context holds {self.spec.context:,}; shorten it, or "
                    "allow truncation (--truncate; data.truncate in training)"
                )
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

    def lost_words(self, text: str) -> list[str]:
        """The words of which no token is left but the unknown one: the network does not learn of them."""
        unknown = self.tokenizer.unknown_id
        words = self.prepare(text).split()
        return [word for word in words if not any(token != unknown for token in self.tokenizer.encode_answer(word))]

    def _tell_hidden(self, prompts: Sequence[Prompt]) -> None:
        """Log once that a text spells a token that only `Control` gives."""
        if self._told_hidden:
            return
        texts = [part for prompt in prompts for part in ([prompt] if isinstance(prompt, str) else prompt)]
        found = [word for word in self.tokenizer.hidden_words if any(isinstance(t, str) and word in t for t in texts)]
        if found:
            self._told_hidden = True
            log.warning(
                f"{found[0]!r} was added to this tokenizer, but text never becomes a control token, so it is tokenized "
                f"as plain characters here. Write Pieces('a ', Control({found[0]!r})) of rebus.codec.text"
            )

    def _tell_lost(self, prompts: Sequence[Prompt], bodies: Sequence[Sequence[int]]) -> None:
        """Log once that words of a prompt are lost."""
        unknown = self.tokenizer.unknown_id
        for prompt, body in zip(prompts, bodies, strict=True):
            if self._told_lost or not isinstance(prompt, str) or (body and unknown not in body):
                continue
            if lost := [word for word in self.lost_words(prompt) if word not in self._expected]:
                self._told_lost = True
                log.warning(
                    f"the tokenizer has no tokens for {', '.join(map(repr, lost[:5]))}: such words are "
                    "dropped, here and in later texts"
                )

    def prepare(self, text: str) -> str:
        """The text as the tokenizer is to see it: cleaned, without punctuation, in lower case, as the spec says."""
        check_text(text)
        if self.spec.clean:
            text = clean(text)
        if self.spec.canonical:
            text = canonical(text)
        text = text.lower() if self.spec.lower else text
        text = without_accents(text) if self.spec.strip_accents else text
        return f" {text}" if self.spec.leading_space and text else text

    def _whole(self, index: int, body: list[int]) -> list[int]:
        """`[bos] body eos` within the context; when the body is too long the end token stays last."""
        start = [] if self.spec.bos_id is None else [self.spec.bos_id]
        end = [] if self.spec.eos_id is None else [self.spec.eos_id]
        room = self.spec.context - len(start) - len(end)
        if len(body) > room:
            size = len(start) + len(body) + len(end)
            if self.spec.truncate is False:
                raise BadText(f"text {index} has {size:,} tokens, the context holds {self.spec.context:,}; shorten it")
            self._cut.append(size)
        return start + body[: max(room, 0)] + end

    def _prompt(self, index: int, body: list[int], images: int, finished: bool = True) -> list[int]:
        """`images [bos] body separator`: the start token comes after the last placeholder, marked or in front, as the
        released processor of PaliGemma has it, or at the very beginning (`bos_first`)."""
        seen, body = self._images(body, images)
        start = [] if self.spec.bos_id is None else [self.spec.bos_id]
        separator = self._separator if finished else []
        if not (seen or start or body or separator or self.spec.empty_prompts) and self.spec.eos_id is not None:
            start = [self.spec.eos_id]  # nothing to continue: a text begins where another one ends
        seen, start = (start + seen, []) if self.spec.bos_first else (seen, start)
        room = self.spec.context - len(seen) - len(start) - len(separator)
        if self.spec.truncate and room >= 0:
            body = body[:room]
        row = seen + start + body + separator
        if len(row) > self.spec.context:
            placed = self.spec.num_image_tokens * images
            placeholders = f"{_number(images)} ({placed:,} tokens) and " if placed else ""
            raise BadText(
                f"prompt {index}: {placeholders}{len(row) - placed:,} tokens of text make {len(row):,}; "
                f"the context holds {self.spec.context:,}. Shorten it, or allow truncation (--truncate)"
            )
        return row

    def _image_ids(self) -> list[int]:
        """What stands for an image: its placeholders, between the tokens that begin and end it where there are any."""
        if self.spec.image_token_id is None:
            return []
        begin, end = self.spec.image_begin_id, self.spec.image_end_id
        placeholders = [self.spec.image_token_id] * self.spec.num_image_tokens
        return [*([] if begin is None else [begin]), *placeholders, *([] if end is None else [end])]

    def _images(self, body: list[int], images: int) -> tuple[list[int], list[int]]:
        """A prompt up to its last image, which is in front where none is marked, and what comes after."""
        around = self.spec.image_around_id
        image = self._image_ids()
        last = len(body) - body[::-1].index(_MARK) if _MARK in body else 0
        seen: list[int] = []
        for part in body[:last] or [_MARK] * images:
            if part != _MARK:
                seen.append(part)
            elif around is None:
                seen += image
            else:
                seen += [*([around] if seen[-1:] != [around] else []), *image, around]
        return seen, body[last:]


def check_end(tokenizer: Tokenizer, spec: TextSpec) -> None:
    """Raise `BadConfig` where the network would read every text at another token than the end token: the answers would
    look like answers."""
    if spec.read_at is None or spec.eos_id == spec.read_at:
        return
    ends = "no end token" if spec.eos_id is None else f"{tokenizer.piece_of(spec.eos_id)!r} (id {spec.eos_id})"
    if spec.read_at == "largest":
        if spec.eos_id is not None and spec.eos_id >= tokenizer.last_own_id:
            return
        reads = f"at their largest id, which goes up to {tokenizer.last_own_id}"
    else:
        reads = f"at {tokenizer.piece_of(spec.read_at)!r} (id {spec.read_at})"
    raise BadConfig(
        f"the network reads texts {reads}, and the tokenizer ends them with {ends}. "
        "tokenizer_config.json says eos_token and bos_token, config.json says text_config.eos_token_id"
    )


def _number(images: int) -> str:
    return f"{images} image{'s' * (images != 1)}"


def clean(text: str) -> str:
    """CLIP's cleaning (clip §4): encoding fixed by ftfy, HTML entities twice, single spaces."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def without_accents(text: str) -> str:
    """Compatibility forms (NFKD) without their combining marks: "café" → "cafe"."""
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))


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
