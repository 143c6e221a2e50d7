"""The scenes benchmark: how well a model does its tasks on held-out images of the scenes world.

`image_to_text`, `text_to_image`: recall at 1 among 100 images and their full captions. `classify`: single objects
among all colours and shapes. `questions`: exact answers; `relations`: to those about left, right, above and below.
`reading`, `reading_numbers`, `reading_words`, of models that have tokens for the question: what is written in the
image, whatever its spaces. `captions`: every attribute of every object right, in order. `detection_ap50`: all shapes
asked for at once, mean over shapes. `base_ap50`, `novel_ap50`, of networks that find regions by any labels: all colours
and shapes asked for at once, in scenes of which each holds a pair that was held out, mean over the other pairs and over
those. `segmentation_miou`: one phrase an image; an image without any mask counts 0. `lines`, of models that read lines
of writing: the one line in images with writing is found alone, says the right text whatever its spaces, and has an IoU
of a half with its plate; `lines_text`: the text alone. `few_shot_0`, `few_shot_8`, of models that learn
from examples in the prompt: the right one of four made-up names for held-out pairs of colour and shape, without
examples (a quarter by chance) and after eight; of half as many episodes as there are scenes. Of models that draw,
with a detector to judge that: `rebus.evaluate.scene_drawings`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rebus.core.answers import TextLine
from rebus.core.box_overlap import box_iou
from rebus.core.capabilities import FindsRegions
from rebus.core.errors import UsageError
from rebus.data.scenes import LABELS, NAMES, NOVEL_LABELS, SHAPES, Scene, episode, parse_caption, scene
from rebus.data.scenes.language import RELATIONS
from rebus.data.scenes.writing import QUESTION
from rebus.evaluate.detection import CocoScores, Detections, Truth, coco_scores, group_scores
from rebus.evaluate.metrics import mask_iou, recall_at_1
from rebus.evaluate.scene_drawings import drawing_scores

GROUP = 100  # images among which the right one is found
_TOGETHER = 50  # images of one call


def evaluate(
    model: Any, number: int = 1000, split: str = "test", objects: int | None = None, detector: Any = None
) -> dict[str, Any]:
    """Scores in [0, 1] by name, on scenes 0 to `number` of the split, for every task that the model has.

    `objects`: scenes of 1 to so many objects in turn, instead of as many as chance gives. `detector` judges what a
    model draws; without it drawings are not measured.

    Raises `UsageError` for a model without any of the tasks, or a `number` that is no multiple of 100.
    """
    if number < GROUP or number % GROUP:
        raise UsageError(f"the number of scenes must be a multiple of {GROUP}; got {number}")
    parts: dict[str, Callable[[Any, list[Scene]], dict[str, Any]]] = {
        "match": _retrieval,
        "ask": _questions,
        "caption": _captions,
        "detect": _detection,
        "segment": _segmentation,
        "read": _lines,
    }
    if detector is not None:
        parts["imagine"] = lambda model, scenes: drawing_scores(model, detector, scenes)
    chosen = [part for task, part in parts.items() if task in model.tasks]
    if "classify" in model.tasks and _reads_names(model):
        chosen.append(_few_shot)
    if not chosen:
        raise UsageError(f"the scenes benchmark measures {', '.join(parts)}; the model does {sorted(model.tasks)}")
    scenes = [scene(i, split, count=None if objects is None else 1 + i % objects) for i in range(number)]
    scores: dict[str, Any] = {"benchmark": "scenes", "split": split, "scenes": number}
    scores |= {} if objects is None else {"objects": objects}
    for part in chosen:
        scores |= part(model, scenes)
    return scores


def _groups(scenes: list[Scene], size: int) -> Iterator[list[Scene]]:
    for start in range(0, len(scenes), size):
        yield scenes[start : start + size]


def _retrieval(model: Any, scenes: list[Scene]) -> dict[str, Any]:
    to_text, to_image = [], []
    for group in _groups(scenes, GROUP):
        captions = [s.captions[0] for s in group]
        scores = np.asarray(model.match([s.image for s in group], captions))
        to_text.append(recall_at_1(scores, captions))
        to_image.append(recall_at_1(scores.T, captions))
    found = {"image_to_text": _mean(to_text), "text_to_image": _mean(to_image)}
    if "classify" not in model.tasks:  # reads image and text together, and knows no labels
        return found
    split, each = scenes[0].split, min(len(scenes), 500)
    alone = [scene(i, split, count=1) for i in range(each)]
    rankings = model.classify([s.image for s in alone], [*LABELS, *NOVEL_LABELS])
    named = np.mean([ranking.top == s.label for ranking, s in zip(rankings, alone, strict=True)])
    return {**found, "classify": float(named)}


def _questions(model: Any, scenes: list[Scene]) -> dict[str, Any]:
    """One question of each image, the kinds in turn."""
    right: dict[str, list[bool]] = {}
    for group in _groups(scenes, _TOGETHER):
        asked = [s.questions_by_kind[s.seed % len(s.questions_by_kind)] for s in group]
        answers = model.ask([s.image for s in group], [question for (question, _), _ in asked])
        for answer, ((_, truth), kind) in zip(answers, asked, strict=True):
            right.setdefault(kind, []).append(answer.strip() == truth)
    everything = [r for row in right.values() for r in row]
    kinds = {kind: _mean(row) for kind, row in right.items()}
    relations = [r for kind in RELATIONS for r in right.get(kind, ())]  # none where no scene has two objects
    found: dict[str, Any] = {"questions": _mean(everything), "questions_by_kind": kinds}
    found |= {"relations": _mean(relations)} if relations else {}
    return {**found, **_reading(model, scenes)}


def can_be_asked(model: Any, question: str) -> bool:
    """Whether a model has tokens for all words of a question, which one of a closed vocabulary may have not."""
    text = getattr(getattr(model, "processor", None), "text", None)
    return text is None or not text.lost_words(question)


def as_read(answer: str) -> str:
    """What a model read, whatever its spaces: "4 0 7" is "407"."""
    return "".join(answer.split()).lower()


def _reading(model: Any, scenes: list[Scene]) -> dict[str, Any]:
    """What is written in images that say so."""
    if not can_be_asked(model, QUESTION):
        return {}
    right: dict[bool, list[bool]] = {True: [], False: []}
    for group in _groups([s for s in scenes if s.writing is not None], _TOGETHER):
        writings = [s.writing for s in group if s.writing is not None]
        answers = model.ask([writing.image for writing in writings], QUESTION)
        for answer, writing in zip(answers, writings, strict=True):
            right[writing.is_number].append(as_read(answer) == writing.text)
    scores = {"reading": right[True] + right[False], "reading_numbers": right[True], "reading_words": right[False]}
    return {name: _mean(values) for name, values in scores.items()}


def _reads_names(model: Any) -> bool:
    """Whether the model learns labels from examples in the prompt, and made-up ones are not all the same to it."""
    prompts = getattr(getattr(model, "system", None), "prompts", None)
    learns = "classify" in getattr(prompts, "after_example", {})
    return learns and not model.processor.text.lost_words(" ".join(NAMES))


def _few_shot(model: Any, scenes: list[Scene]) -> dict[str, float]:
    return {f"few_shot_{shots}": few_shot_accuracy(model, len(scenes) // 2, shots) for shots in (0, 8)}


def few_shot_accuracy(model: Any, episodes: int, shots: int, split: str = "novel", classes: int = 4) -> float:
    """How often the query of an episode gets the right one of its names, after so many of its examples."""
    right = []
    for seed in range(episodes):
        one = episode(seed, split, classes, shots)
        examples = [(shown.scene.image, shown.name) for shown in one.shots]
        ranking = model.classify(one.query.scene.image, one.names, examples=examples or None)
        right.append(ranking.top == one.query.name)
    return _mean(right)


def _captions(model: Any, scenes: list[Scene]) -> dict[str, Any]:
    groups = _groups(scenes, _TOGETHER)
    return caption_scores([said for group in groups for said in model.caption([s.image for s in group])], scenes)


def caption_scores(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """`captions`: the share that are right throughout; `caption_attributes`: of all attributes, in order."""
    whole, attributes = [], []
    for said, s in zip(captions, scenes, strict=True):
        truth = [o.attributes for o in s.objects]
        parsed = parse_caption(said) or []
        whole.append(parsed == truth)
        pairs = zip([a for o in parsed for a in o], [a for o in truth for a in o], strict=False)
        attributes.append(sum(a == b for a, b in pairs) / (4 * max(len(truth), len(parsed))))
    return {"captions": _mean(whole), "caption_attributes": _mean(attributes)}


def _detection(model: Any, scenes: list[Scene]) -> dict[str, Any]:
    found = {"detection_ap50": _box_scores(model, scenes, SHAPES).ap50}
    if isinstance(getattr(model, "network", None), FindsRegions):  # no prompt: fifty labels are as good as one
        held_out = [scene(s.seed, "novel") for s in scenes]
        scores = _box_scores(model, held_out, (*LABELS, *NOVEL_LABELS))
        groups = group_scores(scores, {"base": LABELS, "novel": NOVEL_LABELS})
        found |= {f"{name}_ap50": group.ap50 for name, group in groups.items()}
    return found


def _box_scores(model: Any, scenes: list[Scene], labels: Sequence[str]) -> CocoScores:
    """Of all labels at once, each of which is a shape or a colour and a shape."""
    images = []
    for group in _groups(scenes, _TOGETHER):
        for boxes, s in zip(model.detect([s.image for s in group], list(labels)), group, strict=True):
            boxes = [box for box in boxes if box.label in labels]
            true = [label if label in labels else o.shape for label, o in zip(s.labels, s.objects, strict=True)]
            truth = Truth(labels=true, boxes=np.array([o.box for o in s.objects]))
            where = np.array([box.xyxy for box in boxes]).reshape(-1, 4)
            where[:, 2:] = np.maximum(where[:, :2], where[:, 2:])  # a box written backwards holds nothing
            names, sure = [box.label for box in boxes], [box.score for box in boxes]
            images.append((truth, Detections(labels=names, scores=sure, boxes=where)))
    return coco_scores(images, labels)


def _segmentation(model: Any, scenes: list[Scene]) -> dict[str, Any]:
    overlaps = []
    for group in _groups(scenes, _TOGETHER):
        asked = [s.phrases[s.seed % len(s.phrases)] for s in group]
        answers = model.segment([s.image for s in group], [phrase for phrase, _ in asked])
        for masks, (_, index), s in zip(answers, asked, group, strict=True):
            overlaps.append(mask_iou(masks[0].mask, s.objects[index].mask) if masks else 0.0)
    return {"segmentation_miou": _mean(overlaps)}


def _lines(model: Any, scenes: list[Scene]) -> dict[str, Any]:
    texts, placed = [], []
    for group in _groups([s for s in scenes if s.writing is not None], _TOGETHER):
        writings = [s.writing for s in group if s.writing is not None]
        for lines, writing in zip(model.read([writing.image for writing in writings]), writings, strict=True):
            texts.append(len(lines) == 1 and "".join(lines[0].text.split()).lower() == writing.text)
            placed.append(texts[-1] and box_iou(_around(lines[0]), writing.box) >= 0.5)
    return {"lines": _mean(placed), "lines_text": _mean(texts)}


def _around(line: TextLine) -> tuple[float, float, float, float]:
    xs, ys = zip(*line.corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _mean(values: Any) -> float:
    return float(np.mean(values))
