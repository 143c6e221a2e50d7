"""Scenes as training batches, drawn on the fly. Batch i is a function of (seed, i) alone, so a run resumes anywhere."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rebus.codec.tokenizers import Tokenizer, word_level_tokenizer
from rebus.data.scenes import Scene, scene, vocabulary

SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>")
PAD, EOS, BOS, IMAGE = 0, 1, 2, 4
PIXEL_MEAN = PIXEL_STD = (0.5, 0.5, 0.5)


def scenes_tokenizer(locations: bool = False) -> Tokenizer:
    """Whole words of the scenes world; `locations`: also a newline, `<loc0000>`… and `<seg000>`…, for writers."""
    words = (*vocabulary(), "\n") if locations else vocabulary()
    return word_level_tokenizer(words, SPECIALS, locations=1024 if locations else 0, segments=128 if locations else 0)


class Words:
    """Text → ids by look-up, equal to `Tokenizer.encode` on everything that the scenes world says, and much faster."""

    def __init__(self, tokenizer: Tokenizer):
        found = {w: tokenizer.id_of(w) for w in vocabulary()}
        self.ids = {w: i for w, i in found.items() if i is not None}

    def __call__(self, text: str) -> list[int]:
        for mark in ",.?;":
            if mark in text:
                text = text.replace(mark, f" {mark} ")
        return [self.ids[w] for w in text.split()]


def scene_at(seed: int, index: int, split: str, size: int) -> Scene:
    """The scene with that number in the endless series of a seed."""
    return scene(seed * 1_000_000_000 + index, split, size)


def stack_pixels(scenes: list[Scene]) -> Tensor:
    """(B, 3, H, W) uint8."""
    return torch.from_numpy(np.stack([s.planes for s in scenes]))


def normalise(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 → [−1, 1]."""
    return pixels.to(dtype) * (1 / 127.5) - 1


def pad_rows(rows: list[list[int]], value: int, length: int | None = None) -> Tensor:
    """int64 (B, longest or `length`), padded on the right."""
    width = length or max(map(len, rows))
    padded = np.full((len(rows), width), value, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row[:width]
    return torch.from_numpy(padded)


@dataclass(frozen=True)
class SceneCaptions:
    """Images with one caption each, for two towers.

    `full`: how often it is the full caption; else one of the shorter ones, which are true of other images, too, and
    so make a batch noisier. `named`: how often a scene of one object gets its label instead, with or without article,
    which is what classification asks for. `begin`: whether texts begin with `<bos>`. Texts are cut and padded to
    `context`.
    """

    kind: Literal["scene captions"] = "scene captions"
    size: int = 96
    context: int = 32
    begin: bool = False
    full: float = 0.8
    named: float = 0.0
    pad: int = PAD

    def batch(self, seed: int, index: int, batch_size: int, split: str = "train") -> dict[str, Tensor]:
        """Batch number `index` of that seed: `pixels` uint8, `tokens`, `mask`."""
        words = _words(False)
        rng = np.random.Generator(np.random.PCG64([seed, index]))
        scenes = [scene_at(seed, index * batch_size + i, split, self.size) for i in range(batch_size)]
        rows = []
        for s in scenes:
            said = self._text(s, rng)
            ids = ([BOS] if self.begin else []) + words(said)
            rows.append([*ids[: self.context - 1], EOS])
        tokens = pad_rows(rows, self.pad, self.context)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(self.context)[None] < lengths[:, None]
        return {"pixels": stack_pixels(scenes), "tokens": tokens, "mask": mask}

    def _text(self, s: Scene, rng: np.random.Generator) -> str:
        if self.named and s.label is not None and rng.random() < self.named:
            return f"{'an' if s.label[0] in 'aeiou' else 'a'} {s.label}" if rng.random() < 0.5 else s.label
        return s.captions[0] if rng.random() < self.full else s.captions[int(rng.integers(len(s.captions)))]


_made: dict[bool, Words] = {}


def _words(locations: bool) -> Words:
    if locations not in _made:
        _made[locations] = Words(scenes_tokenizer(locations))
    return _made[locations]
