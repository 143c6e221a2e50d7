"""Three tasks of one kind of image, asked and answered as text: name the colours from left to right, find the boxes of
a colour, name the colour in a box. The images are those of `regions_world`; coordinates are tokens, one a pixel."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from rebus.core.labels import IGNORED
from rebus.reproduce import regions_world as regions
from rebus.reproduce import shapes_world as shapes

TASKS = ("list", "find", "what")
PAD, END, START, IMAGE = range(4)
_WORDS = (*TASKS, *shapes.COLOUR_NAMES)
IDS = {word: number for number, word in enumerate(_WORDS, start=4)}
PLACES = len(IDS) + 4, regions.SIZE  # id of the first location token, and how many there are
VOCAB_SIZE = sum(PLACES)
PROMPT, ANSWER = 7, 4 * regions.MOST + 2  # tokens of the longest, start and end tokens included


class Things(NamedTuple):
    """What is in each image, from left to right."""

    colours: list[list[str]]
    boxes: list[list[list[float]]]


def draw(seed: int, number: int) -> tuple[Tensor, Things]:
    """`pixels` (N, 3, 48, 48), and the colour and the box of each thing."""
    found = regions.scenes(seed, number)
    rows = [
        sorted((box, kind) for box, kind in zip(boxes, kinds, strict=True) if kind != regions.ABSENT)
        for boxes, kinds in zip(found.boxes.tolist(), found.classes.tolist(), strict=True)
    ]
    colours = [[regions.NAMES[kind].split()[0] for _, kind in row] for row in rows]
    return found.pixels, Things(colours, [[box for box, _ in row] for row in rows])


def texts(
    things: Things, tasks: list[str], rng: np.random.Generator, num_image: int
) -> tuple[dict[str, Tensor], list[Any]]:
    """`tokens` (B, num_image + `PROMPT`), `mask`, `targets` (B, `ANSWER`) of a task for each image; and what is right:
    the answer's tokens, or of "find" its boxes."""
    prompts, answers, right = [], [], list[Any]()
    for task, colours, boxes in zip(tasks, *things, strict=True):
        one = int(rng.integers(len(colours)))
        about: list[int] = {"list": [], "find": [IDS[colours[one]]], "what": _places(boxes[one])}[task]
        asked = [box for box, colour in zip(boxes, colours, strict=True) if colour == colours[one]]
        if task == "find":
            answer = [place for box in asked for place in _places(box)]
        else:
            answer = [IDS[colour] for colour in (colours if task == "list" else colours[one : one + 1])]
        prompts.append([IMAGE] * num_image + [START, IDS[task], *about, END])
        answers.append([START, *answer, END])
        right.append(asked if task == "find" else answer)
    tokens = _padded(prompts, PAD, num_image + PROMPT)
    return {"tokens": tokens, "mask": tokens != PAD, "targets": _padded(answers, IGNORED, ANSWER)}, right


def is_right(task: str, answer: list[int], right: list[Any]) -> bool:
    """Whether an answer, from its start token to its end token, is right throughout; boxes by an IoU of a half."""
    body = answer[1 : answer.index(END)] if END in answer else answer[1:]
    if task != "find":
        return body == right
    if len(body) != 4 * len(right) or any(place < PLACES[0] for place in body):
        return False
    boxes = (torch.tensor(body).view(-1, 4) - PLACES[0]) + 0.5
    return bool((box_iou(boxes, torch.tensor(right)).diagonal() >= 0.5).all())


def _places(box: list[float]) -> list[int]:
    return [PLACES[0] + min(int(side), regions.SIZE - 1) for side in box]


def _padded(rows: list[list[int]], value: int, width: int) -> Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
