"""Three tasks of one kind of image, asked and answered as text: name the colours from left to right, find the box of a
colour, name the colour in a box. Shapes and drawing are those of `regions_world`; coordinates are tokens."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from rebus.core.labels import IGNORED
from rebus.reproduce import regions_world as regions
from rebus.reproduce import shapes_world as shapes

SIZE, MOST = 32, 3  # pixels; things in an image, at least one fewer
BIN = 2  # pixels that a coordinate is exact to
TASKS = ("list", "find", "what")
PAD, END, START, IMAGE = range(4)
_COLOURS = (0, 1, 3, 4, 5, 7)  # of shapes_world
COLOURS = tuple(shapes.COLOUR_NAMES[colour] for colour in _COLOURS)
IDS = {word: number for number, word in enumerate((*TASKS, *COLOURS), start=4)}
PLACES = len(IDS) + 4, SIZE // BIN + 1  # id of the first location token, and how many there are
VOCAB_SIZE = sum(PLACES)
PROMPT, ANSWER = 7, 6  # tokens of the longest, start and end tokens included
_CELL = SIZE // 2  # each thing has a quarter of the image to itself


class Things(NamedTuple):
    """What is in each image, from left to right."""

    colours: list[list[str]]
    boxes: list[list[list[float]]]


def draw(seed: int, number: int) -> tuple[Tensor, Things]:
    """`pixels` (N, 3, 32, 32), and the colour and the box of each thing; an image's colours differ."""
    rng = np.random.Generator(np.random.PCG64([seed, number]))
    colours = rng.permuted(np.tile(_COLOURS, (number, 1)), axis=1)[:, :MOST]
    classes = rng.integers(len(shapes.SHAPES), size=(number, MOST)) * len(shapes.COLOUR_NAMES) + colours
    classes[rng.random(number) < 0.5, MOST - 1] = regions.ABSENT
    radius = rng.uniform(4, 7, size=(number, MOST))
    cells = rng.permuted(np.tile(np.arange(4), (number, 1)), axis=1)[:, :MOST]
    x, y = (_CELL * at + rng.uniform(radius + 0.5, _CELL - radius - 0.5) for at in (cells % 2, cells // 2))
    boxes = np.stack([x - radius, y - radius, x + radius, y + radius], axis=-1)
    rows = [
        sorted((box, shapes.COLOUR_NAMES[colour]) for box, colour, kind in zip(*row, strict=True) if kind >= 0)
        for row in zip(boxes.tolist(), colours.tolist(), classes.tolist(), strict=True)
    ]
    pixels = regions.drawn(classes, x, y, radius, rng, size=SIZE)
    return pixels, Things([[name for _, name in row] for row in rows], [[box for box, _ in row] for row in rows])


def texts(
    things: Things, tasks: list[str], rng: np.random.Generator, num_image: int
) -> tuple[dict[str, Tensor], list[Any]]:
    """`tokens` (B, num_image + `PROMPT`), `mask`, `targets` (B, `ANSWER`) of a task for each image; and what is right:
    the answer's tokens, or of "find" the box."""
    prompts, answers, right = [], [], list[Any]()
    for task, colours, boxes in zip(tasks, *things, strict=True):
        one = int(rng.integers(len(colours)))
        named = [IDS[colour] for colour in colours]
        about, answer = {
            "list": ([], named),
            "find": ([named[one]], _places(boxes[one])),
            "what": (_places(boxes[one]), [named[one]]),
        }[task]
        prompts.append([IMAGE] * num_image + [START, IDS[task], *about, END])
        answers.append([START, *answer, END])
        right.append(boxes[one] if task == "find" else answer)
    tokens = _padded(prompts, PAD, num_image + PROMPT)
    return {"tokens": tokens, "mask": tokens != PAD, "targets": _padded(answers, IGNORED, ANSWER)}, right


def is_right(task: str, answer: list[int], right: list[Any]) -> bool:
    """Whether an answer, from its start token to its end token, is right throughout; a box by an IoU of a half."""
    body = answer[1 : answer.index(END)] if END in answer else answer[1:]
    if task != "find":
        return body == right
    if len(body) != 4 or any(place < PLACES[0] for place in body):
        return False
    box = BIN * (torch.tensor([body]) - PLACES[0])
    return float(box_iou(box.float(), torch.tensor([right]))) >= 0.5


def _places(box: list[float]) -> list[int]:
    return [PLACES[0] + round(side / BIN) for side in box]


def _padded(rows: list[list[int]], value: int, width: int) -> Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
