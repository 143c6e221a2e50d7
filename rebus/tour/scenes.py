"""Synthetic scenes, whose ground truth is exact: retrieval, captions, answers, boxes and masks of bundled models."""

import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from rebus.core.answers import Box, Mask
from rebus.core.box_overlap import box_iou
from rebus.core.capabilities import FindsRegions
from rebus.data.scenes import SHAPES, Scene, parse_caption, scene
from rebus.data.scenes.writing import QUESTION
from rebus.evaluate.metrics import mask_iou
from rebus.evaluate.scene_drawings import seen
from rebus.evaluate.scenes import as_read, can_be_asked

FIRST_SEED = 5000  # beyond the images of `rebus eval`; chosen before any of them was seen
NUM_MATCHED, NUM_WRITTEN, NUM_DRAWN = 24, 8, 8
MOST_DRAWN = 2  # objects of an image that is asked for
SURE = 0.5  # score of a box of a detector that is shown
LEAST_IOU = 0.5  # from which a box or a mask counts as correct
QUESTIONS_EACH = 3


@dataclass(frozen=True)
class Matched:
    """Images and captions, and the retrieval of a dual encoder: for each caption, images most similar first."""

    model: str
    scenes: tuple[Scene, ...]
    orders: tuple[tuple[int, ...], ...]
    to_text: int  # images whose own caption came first
    to_image: int  # captions whose own image came first
    seconds: float


@dataclass(frozen=True)
class Written:
    """One scene and all predictions of a model for it."""

    scene: Scene
    caption: str
    answers: tuple[tuple[str, str, str], ...]  # (question, ground truth, prediction)
    boxes: tuple[Box, ...]
    boxes_right: tuple[bool, ...]
    phrase: str
    wanted: int  # the object that the phrase fits
    masks: tuple[Mask, ...]
    overlap: float  # intersection over union of the first mask
    read: str | None = None  # text in the image, where the model was asked for it

    @property
    def attributes(self) -> list[tuple[str, str | None]]:
        """(prediction, ground truth) of each attribute of the caption, in order; None where they agree."""
        truth = [a for o in self.scene.objects for a in o.attributes]
        said = [a for o in parse_caption(self.caption) or [] for a in o]
        width = max(len(truth), len(said))
        pairs = zip(said + ["…"] * (width - len(said)), truth + ["nothing"] * (width - len(truth)), strict=True)
        return [(a, None if a == b else b) for a, b in pairs]

    @property
    def found(self) -> int:
        """The number of objects with a correct box."""
        return sum(self.boxes_right)


@dataclass(frozen=True)
class Writing:
    """A model on all its scenes, with the seconds of each task."""

    model: str
    rows: tuple[Written, ...]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Drawing:
    """Images generated for captions; `found`: the colours and shapes that a detector finds in each."""

    model: str
    detector: str
    prompts: tuple[str, ...]
    images: tuple[Image.Image, ...]
    found: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]  # whether those are all that the caption names, and nothing else
    seconds: float


def draw_scenes(model: Any, detector: Any) -> Drawing:
    """Generate images for captions of held-out scenes, and run a detector on them."""
    scenes = [scene(FIRST_SEED + i, "test", count=1 + i % MOST_DRAWN) for i in range(NUM_DRAWN)]
    prompts = [s.captions[0] for s in scenes]
    began = time.perf_counter()
    images = model.imagine(prompts, seed=list(range(len(prompts))))
    seconds = time.perf_counter() - began
    found = seen(detector, images)
    right = tuple(one == Counter(s.labels) for one, s in zip(found, scenes, strict=True))
    labels = tuple(tuple(sorted(one.elements())) for one in found)
    return Drawing(model.card.name, detector.card.name, tuple(prompts), tuple(images), labels, right, seconds)


def match_scenes(model: Any) -> Matched:
    """Retrieve images by captions and captions by images."""
    scenes = [scene(FIRST_SEED + i, "test") for i in range(NUM_MATCHED)]
    captions = [s.captions[0] for s in scenes]
    began = time.perf_counter()
    scores = np.asarray(model.match([s.image for s in scenes], captions), dtype=np.float64)
    seconds = time.perf_counter() - began
    orders = tuple(tuple(int(i) for i in np.argsort(-column, kind="stable")) for column in scores.T)
    to_text = sum(captions[int(row.argmax())] == captions[i] for i, row in enumerate(scores))
    to_image = sum(captions[order[0]] == captions[i] for i, order in enumerate(orders))
    return Matched(model.card.name, tuple(scenes), orders, to_text, to_image, seconds)


def write_scenes(model: Any) -> Writing:
    """Caption, ask, detect, segment and read: the tasks that the model has."""
    scenes = [scene(FIRST_SEED + i, "test") for i in range(NUM_WRITTEN)]
    images = [s.image for s in scenes]
    seconds: dict[str, float] = {}

    def timed(task: str, *args: Any) -> Any:
        if task not in model.tasks:
            return None
        began = time.perf_counter()
        answers = getattr(model, task)(*args)
        seconds[task] = time.perf_counter() - began
        return answers

    captions = timed("caption", images) or [""] * len(scenes)
    asked = [
        (i, q, a) for i, s in enumerate(scenes) for q, a in _spread(s.questions, QUESTIONS_EACH, start=s.seed)
    ]  # other kinds of questions for each image
    said = timed("ask", [images[i] for i, _, _ in asked], [q for _, q, _ in asked]) or []
    boxes = timed("detect", images, list(SHAPES)) or [[] for _ in scenes]
    if isinstance(getattr(model, "network", None), FindsRegions):  # which ranks all it sees, hardly there or not
        boxes = [[box for box in found if box.score >= SURE] for found in boxes]
    phrases = [s.phrases[s.seed % len(s.phrases)] for s in scenes]
    masks = timed("segment", images, [phrase for phrase, _ in phrases]) or [[] for _ in scenes]
    read = _read(model, scenes, seconds)
    rows = []
    for i, s in enumerate(scenes):
        answers = tuple((q, a, text.strip()) for (j, q, a), text in zip(asked, said, strict=False) if j == i)
        phrase, wanted = phrases[i]
        overlap = mask_iou(masks[i][0].mask, s.objects[wanted].mask) if masks[i] else 0.0
        right = _right(boxes[i], s)
        row = Written(s, captions[i], answers, tuple(boxes[i]), right, phrase, wanted, tuple(masks[i]), overlap)
        rows.append(replace(row, read=read.get(s.seed)))
    return Writing(model.card.name, tuple(rows), seconds)


def _read(model: Any, scenes: list[Scene], seconds: dict[str, float]) -> dict[int, str]:
    """What a model reads in the scenes that contain text, by their seeds."""
    written = {s.seed: s.writing for s in scenes if s.writing is not None}
    images = [writing.image for writing in written.values()]
    if not images:
        return {}
    began = time.perf_counter()
    if "read" in model.tasks:
        texts = [" ".join(line.text for line in lines) for lines in model.read(images)]
    elif "ask" in model.tasks and can_be_asked(model, QUESTION):
        texts = model.ask(images, [QUESTION] * len(images))
    else:
        return {}
    seconds["read"] = time.perf_counter() - began
    return {seed: as_read(text) for seed, text in zip(written, texts, strict=True)}


def _spread(items: list[tuple[str, str]], number: int, start: int) -> list[tuple[str, str]]:
    """A few of the items, from a place that differs between images."""
    step = max(1, len(items) // number)
    return [items[(start + k * step) % len(items)] for k in range(min(number, len(items)))]


def _right(boxes: list[Box], s: Scene) -> tuple[bool, ...]:
    """For each box whether it matches an object of its shape that no box of a higher score has matched."""
    taken: set[int] = set()
    right = []
    for box in boxes:
        meeting = [
            (box_iou(box.xyxy, o.box), i) for i, o in enumerate(s.objects) if o.shape == box.label and i not in taken
        ]
        overlap, index = max(meeting, default=(0.0, -1))
        right.append(overlap >= LEAST_IOU)
        if overlap >= LEAST_IOU:
            taken.add(index)
    return tuple(right)


def truth_boxes(s: Scene) -> list[Box]:
    """The ground truth as boxes."""
    return [Box(o.box, o.shape, math.nan) for o in s.objects]


def enlarged(image: Image.Image, factor: int) -> Image.Image:
    """Enlarged by a whole factor."""
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
