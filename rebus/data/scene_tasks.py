"""Scenes as prompts and answers, for writers: caption, question, detection, segmentation, several for each image.

Prompts and answers are PaliGemma's: `caption en`, `answer en …`, `detect a ; b`, `segment …`; boxes are four location
tokens (top, left, bottom, right), masks sixteen words of a mask codebook.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rebus.codec.boxes import LOC_1024
from rebus.core.labels import IGNORED
from rebus.data.scene_batches import BOS, EOS, IMAGE, Words, pad_rows, scene_at, scenes_tokenizer, stack_pixels
from rebus.data.scene_masks import mask_codes
from rebus.data.scene_patches import patch_owners
from rebus.data.scenes import COLOURS, SHAPES, Scene, SceneObject, answer_kinds
from rebus.data.scenes.language import ask

ALL_SHAPES = " ; ".join(SHAPES)
Row = tuple[list[int], list[int]]  # prompt, answer


@dataclass(frozen=True)
class SceneTasks:
    """Images with `per_picture` different tasks each, drawn with the given odds.

    Rows of the same image follow each other: `tokens` and `targets` have `per_picture` rows for each of `pixels`.
    `names`, `present` and `boxes` say what each patch shows. The first `tower_first` batches hold these alone, of as
    many images as later batches have rows. From batch `turn` on questions have the odds `ask_later`: they are easy
    to learn for who can already see and caption (0: never).
    """

    kind: Literal["scene tasks"] = "scene tasks"
    size: int = 96
    patch: int = 12
    tower_first: int = 0
    per_picture: int = 2
    caption: float = 0.4
    detect: float = 0.3
    ask: float = 0.2
    segment: float = 0.1
    turn: int = 0
    ask_later: float = 0.5
    codebook: str = "mask_vqvae/scenes"  # what writes masks as tokens: a bundled name or a directory

    def batch(self, seed: int, index: int, batch_size: int, split: str = "train") -> dict[str, Tensor]:
        """Batch number `index` of that seed: `pixels` uint8, `tokens`, `mask`, `targets`, and what the patches show."""
        rng = np.random.Generator(np.random.PCG64([seed, index]))
        alone = split == "train" and index < self.tower_first
        stride = batch_size * self.per_picture
        number = stride if alone else batch_size
        scenes = [scene_at(seed, index * stride + i, split, self.size) for i in range(number)]
        batch = {"pixels": stack_pixels(scenes), **patch_owners(scenes, self.patch)}
        if alone:
            return batch
        asked = self.ask_later if 0 < self.turn <= index else self.ask
        odds = np.array([self.caption, self.detect, asked, self.segment])
        makers: tuple[Callable[[Scene, np.random.Generator], Row], ...] = (_caption, _detect, _ask, self._segment)
        rows = [
            makers[task](s, rng)
            for s in scenes
            for task in rng.choice(4, size=self.per_picture, replace=False, p=odds / odds.sum())
        ]
        pictures = [IMAGE] * (self.size // self.patch) ** 2
        newline = _words().newline
        prompts = [[*pictures, BOS, *prompt, newline] for prompt, _ in rows]
        tokens = pad_rows(prompts, 0)
        lengths = torch.tensor([len(p) for p in prompts])
        return {
            **batch,
            "tokens": tokens,
            "mask": torch.arange(tokens.shape[1])[None] < lengths[:, None],
            "targets": pad_rows([[*answer, EOS] for _, answer in rows], IGNORED),
        }

    def _segment(self, s: Scene, rng: np.random.Generator) -> Row:
        phrase, i = s.phrases[int(rng.integers(len(s.phrases)))]
        words, one = _words(), s.objects[i]
        codes = mask_codes(one.mask, one.box, self.codebook)
        answer = [*words.box(one, s.size), *(words.first_segment + c for c in codes), *words(phrase)]
        return words("segment " + phrase), answer


class _TaskWords(Words):
    """Words, and boxes as location tokens."""

    def __init__(self) -> None:
        tokenizer = scenes_tokenizer(locations=True)
        super().__init__(tokenizer)
        ids = [tokenizer.id_of(piece) for piece in ("<loc0000>", "<seg000>", "\n")]
        assert None not in ids
        self.first_location, self.first_segment, self.newline = (int(i or 0) for i in ids)

    def box(self, one: SceneObject, size: int) -> list[int]:
        left, top, right, bottom = one.box
        return [self.first_location + round(v / size * (LOC_1024.bins - 1)) for v in (top, left, bottom, right)]


@lru_cache(maxsize=1)
def _words() -> _TaskWords:
    return _TaskWords()


def _caption(s: Scene, rng: np.random.Generator) -> Row:
    return _words()("caption en"), _words()(s.captions[0])


def _ask(s: Scene, rng: np.random.Generator) -> Row:
    kinds = answer_kinds()
    while True:
        pair = ask(kinds[int(rng.integers(len(kinds)))], s.objects, rng, s.scale)
        if pair is not None:
            return _words()("answer en " + pair[0]), _words()(pair[1])


def _detect(s: Scene, rng: np.random.Generator) -> Row:
    """All shapes at once, or any object, named; or one to three kinds of object, some of which are not there."""
    form = rng.random()
    if form < 0.2:
        return _words()("detect " + ALL_SHAPES), _boxes(s, [(o, o.shape) for o in s.objects])
    if form < 0.7:
        return _words()("detect object"), _boxes(s, list(zip(s.objects, s.labels, strict=True)))
    labels: list[str] = []
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.7:
            label = s.labels[int(rng.integers(len(s.labels)))]
        else:
            label = f"{COLOURS[rng.integers(len(COLOURS))]} {SHAPES[rng.integers(len(SHAPES))]}"
        if label not in labels:
            labels.append(label)
    found = [(o, label) for o, label in zip(s.objects, s.labels, strict=True) if label in labels]
    return _words()("detect " + " ; ".join(labels)), _boxes(s, found)


def _boxes(s: Scene, found: list[tuple[SceneObject, str]]) -> list[int]:
    """`<loc…>×4 label ; <loc…>×4 label`, left to right."""
    words = _words()
    answer: list[int] = []
    for one, label in found:
        answer += ([words.ids[";"]] if answer else []) + words.box(one, s.size) + words(label)
    return answer
