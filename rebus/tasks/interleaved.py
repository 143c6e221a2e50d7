"""Text and images in turn: the states that an answer goes through (Chameleon Team, 2024, Sec. 4).

    text ──the token that begins an image──▶ image: so many codes and nothing else ──its end token──▶ text ──end──▶

An image is begun only where it fits into the context. Rows of a batch are in whatever state they are in: those that
write text go on together, then those that draw.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from rebus.tasks.image_generation import TokenRows, image_tokens, text_tokens
from rebus.tasks.imagine import best_of, draw_best
from rebus.tasks.task_model import TaskModel, decoding_for
from rebus.tasks.text_generation import Pair, clean, inputs


def interleaved(model: TaskModel, pairs: Sequence[Pair], options: Mapping[str, Any]) -> list[list[str | Image.Image]]:
    """What follows each prompt. `max_new_tokens` counts text alone; `guidance` as of `TokenRows.draw`, `best_of` as of
    `imagine`, by the text right before an image."""
    return _Answers(model, pairs, options).write()


class _Answers:
    def __init__(self, model: TaskModel, pairs: Sequence[Pair], options: Mapping[str, Any]):
        assert model.processor.text is not None
        self.model, self.spec, self.context = model, image_tokens(model), model.processor.text.spec.context
        self.options = {name: value for name, value in options.items() if name not in ("guidance", "best_of")}
        self.best_of = best_of(model, dict(options))
        self.for_images = decoding_for(
            model, "imagine", {name: value for name, value in options.items() if name == "guidance"}
        )
        self.rows = TokenRows(model, inputs(model, pairs))
        self.end: int | None = model.endings()["eos_id"]
        self.words: Any = self.options.get("allowed") or text_tokens(model, self.spec)
        self.left = [int(options["max_new_tokens"])] * len(pairs)  # tokens of text that each row may yet write
        self.text: list[list[int]] = [[] for _ in pairs]  # since its last image
        self.answers: list[list[str | Image.Image]] = [[] for _ in pairs]

    def write(self) -> list[list[str | Image.Image]]:
        going, turn = list(range(len(self.left))), 0
        while going:
            begun, unfinished = self._write_text(going, turn)
            for i in begun:
                self._say(i)
            if begun:
                seeds = self._seeds(begun, turn) if self.for_images["strategy"] == "sample" else {}
                texts = [self._text_before_image(i) for i in begun]
                found = draw_best(self.rows, begun, texts, self.spec, self.for_images | seeds, self.best_of)
                for i, drawn in zip(begun, found, strict=True):
                    self.rows.keep(i, drawn, self.spec)
                    self.answers[i].append(drawn.image)
            going, turn = [i for i in sorted(begun + unfinished) if self.left[i] > 0], turn + 1
        for i in range(len(self.answers)):
            self._say(i)
        return self.answers

    def _write_text(self, going: Sequence[int], turn: int) -> tuple[list[int], list[int]]:
        """Rows that began an image, and rows that stopped where none fits any more and go on without."""
        most = max(self.left[i] for i in going)
        groups: dict[tuple[int, bool], list[int]] = {}  # that write so many tokens, and may begin an image
        for i in going:
            room = self._room_for_image(i)
            limit = most if room >= most else min(self.left[i], room if room > 0 else self._room(i))
            groups.setdefault((limit, room > 0), []).append(i)
        begun, unfinished = [], []
        for (limit, draws), some in groups.items():
            if limit <= 0:
                continue
            for i, stopped in zip(some, self._generate(some, limit, draws, turn), strict=True):
                if self.rows.rows[i][-1] == self.spec.begin:
                    begun.append(i)
                elif not stopped:
                    unfinished.append(i)
        return begun, unfinished

    def _generate(self, some: Sequence[int], limit: int, draws: bool, turn: int) -> list[bool]:
        """Text after some rows, up to a token that ends it or begins an image; whether each stopped by itself."""
        ends = [] if self.end is None else [self.end]
        if draws:
            ends.append(self.spec.begin)
        allowed = [*self.words, *ends] if isinstance(self.words, list) else self.words
        options = {**self.options, "allowed": allowed, "eos_id": ends, "max_new_tokens": limit}
        stopped = []
        for i, new in zip(some, self.rows.generate(some, **options | self._seeds(some, turn)), strict=True):
            new = new[: self.left[i]]
            at = next((at for at, token in enumerate(new) if token in ends), len(new))
            self.left[i] -= len(new[: at + 1])
            self.rows.rows[i] += new[: at + 1]
            self.text[i] += new[:at]
            stopped.append(at < len(new) or len(new) < limit or self._is_cut(i))
        return stopped

    def _is_cut(self, row: int) -> bool:
        """Whether a stop string or the last sentence ended the text."""
        text = self.model.processor.decode([self.text[row]])[0].strip()
        return clean(text, self.options) != text

    def _room(self, row: int) -> int:
        """How many tokens more the context holds."""
        return self.context - len(self.rows.rows[row])

    def _room_for_image(self, row: int) -> int:
        """How many of the next tokens may begin an image: its codes, its end and the end of the text fit after them."""
        return self._room(row) - self.spec.each - 2

    def _say(self, row: int) -> None:
        text = clean(self.model.processor.decode([self.text[row]])[0], self.options)
        self.text[row] = []
        if text:
            self.answers[row].append(text)

    def _text_before_image(self, row: int) -> str | None:
        last = self.answers[row][-1] if self.answers[row] else None
        return last if isinstance(last, str) else None

    def _seeds(self, which: Sequence[int], turn: int) -> dict[str, Any]:
        """The seeds of some rows, another one in each turn, so that no two turns draw alike."""
        seed = self.options.get("seed")
        if seed is None:
            return {}
        each = list(seed) if isinstance(seed, list | tuple) else [seed] * len(self.left)
        return {"seed": [each[i] + 1_000_003 * turn for i in which]}
