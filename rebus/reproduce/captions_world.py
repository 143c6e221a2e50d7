"""What alt-texts of the scenes of `regions_world` say, and questions about them: two or three objects, listed from left
to right, and as on the web often in part."""

import numpy as np
import torch
from torch import Tensor

from rebus.core.labels import IGNORED
from rebus.reproduce import regions_world as regions
from rebus.reproduce import shapes_world as shapes

PAD, START, END, MASK = 0, 1, 2, 3
LARGE = 7.0  # pixels of a radius
NO_SIZES, NO_TAIL = 0.3, 0.2  # how often an alt-text leaves out the sizes, and its last thing
_SHAPES = tuple(names[0] for names in shapes.SHAPES)
_WORDS = ("small", "large", "and", *shapes.COLOUR_NAMES, *_SHAPES, *"what colour shape is the thing how many".split())
_NUMBERS = ("two", "three")
IDS = {word: number for number, word in enumerate((*_WORDS, *_NUMBERS), start=4)}
VOCAB_SIZE = len(IDS) + 4
CAPTION, QUESTION = 12, 5  # tokens of the longest, with its end token; of the longest question
Things = list[tuple[str, str, str]]  # size, colour, shape


def things(found: regions.Scenes) -> list[Things]:
    """What is in each scene, from left to right."""
    return [
        [
            ("large" if box[2] - box[0] > 2 * LARGE else "small", *regions.NAMES[kind].split())
            for box, kind in sorted((b, k) for b, k in zip(boxes, kinds, strict=True) if k != regions.ABSENT)
        ]
        for boxes, kinds in zip(found.boxes.tolist(), found.classes.tolist(), strict=True)
    ]


def alt_texts(scenes: list[Things], rng: np.random.Generator) -> Tensor:
    """int64 (N, `CAPTION`), end token last, −100 at padding: "small red circle and large blue ring"."""
    said = []
    for scene in scenes:
        sizes, told = rng.random() >= NO_SIZES, scene[: -1 if rng.random() < NO_TAIL else None]
        said.append(" and ".join(" ".join(thing if sizes else thing[1:]) for thing in told))
    return _padded([[*_ids(text), END] for text in said], IGNORED, CAPTION)


def questions(scenes: list[Things], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Questions (N, `QUESTION`) and answers (N, 2): of what colour is the only thing of its shape, of what shape the
    only one of its colour, how many there are."""
    asked, answers = [], []
    for scene in scenes:
        kind, (_, colour, shape) = rng.integers(3), scene[int(rng.integers(len(scene)))]
        question, answer = "how many thing", _NUMBERS[len(scene) - 2]
        if kind == 0 and sum(other[2] == shape for other in scene) == 1:
            question, answer = f"what colour is the {shape}", colour
        elif kind == 1 and sum(other[1] == colour for other in scene) == 1:
            question, answer = f"what shape is the {colour}", shape
        asked.append(_ids(question))
        answers.append([*_ids(answer), END])
    return _padded(asked, PAD, QUESTION), torch.tensor(answers)


def corrupted(texts: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One span of one to three words of each text is replaced by `MASK`: texts (N, L), which of their tokens are real,
    and the spans (N, 4), end token last (Raffel et al., 2020, Sec. 3.1.4)."""
    given, spans = [], []
    for row in texts.tolist():
        words = [token for token in row if token not in (IGNORED, END)]
        length = int(rng.integers(1, 4))
        first = int(rng.integers(len(words) - length + 1)) if len(words) >= length else 0
        given.append([*words[:first], MASK, *words[first + length :]])
        spans.append([*words[first : first + length], END])
    tokens = _padded(given, PAD, CAPTION)
    return tokens, tokens != PAD, _padded(spans, IGNORED, 4)


def _ids(text: str) -> list[int]:
    return [IDS[word] for word in text.split()]


def _padded(rows: list[list[int]], value: int, width: int) -> Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
