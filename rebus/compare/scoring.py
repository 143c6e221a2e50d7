"""How far two answers to one question agree, and how right an answer is: numbers from 0 to 1, an image each."""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from rebus.core.box_overlap import same_boxes
from rebus.data.outlines import mask_of
from rebus.evaluate.caption_metrics import rouge_l
from rebus.evaluate.metrics import mask_iou
from rebus.evaluate.vqa import normal_answer

OVERLAP = 0.5  # of two boxes that are taken for the same
SCORED = {  # task → what its score is
    "classify": "accuracy",
    "caption": "ROUGE-L",
    "ask": "share of answers that equal one of the ground truth",
    "detect": "F1 of boxes at an overlap of one half",
    "read": "similarity of the text, by matching blocks",
}
AGREED = {  # task → what agreement is
    "classify": "the same best label",
    "caption": "ROUGE-L between the captions",
    "ask": "the same answer",
    "detect": "F1 of boxes at an overlap of one half",
    "segment": "overlap of the masks",
    "read": "similarity of the text",
}


def agreement(task: str, first: Any, second: Any) -> float:
    """The same whichever of the two comes first."""
    if task == "classify":
        return float(first[0]["label"] == second[0]["label"])
    if task == "ask":
        return float(normal_answer(first) == normal_answer(second))
    if task == "caption":
        return (_rouge(first, [second]) + _rouge(second, [first])) / 2
    if task == "segment":
        return _masks_overlap(first, second)
    if task == "detect":
        return box_f1(first, second)
    return (_alike(_text(first), _text(second)) + _alike(_text(second), _text(first))) / 2


def score(task: str, answer: Any, truth: Sequence[Any]) -> float:
    """`truth`: of classify, caption, ask and read texts, of which the best counts; of detect all boxes."""
    if task == "classify":
        return float(answer[0]["label"] in truth)
    if task == "ask":
        return float(normal_answer(answer) in map(normal_answer, truth))
    if task == "caption":
        return _rouge(answer, truth)
    if task == "detect":
        return box_f1(answer, truth)
    return max(_alike(_text(answer), text) for text in truth)


def box_f1(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> float:
    """Boxes are paired with the one of the same label that they overlap most, best overlap first; 1 where there is
    nothing on either side."""
    if not found and not wanted:
        return 1.0
    left, right = ([(box["label"], tuple(box["xyxy"])) for box in boxes] for boxes in (found, wanted))
    return 2 * same_boxes(left, right, OVERLAP) / (len(found) + len(wanted))


def _rouge(caption: str, others: Sequence[str]) -> float:
    return rouge_l([_words(caption)], [[_words(other) for other in others]])


def _words(text: str) -> str:
    """Lower case without marks, so that a full stop is no difference."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split()) or "-"


def _masks_overlap(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> float:
    if not first and not second:
        return 1.0
    height, width = (first or second)[0]["size"]
    together = [np.zeros((height, width), bool), np.zeros((height, width), bool)]
    for union, masks in zip(together, (first, second)):
        for mask in masks:
            union |= mask_of({"size": mask["size"], "counts": mask["counts"]}, height, width)
    return mask_iou(*together)


def _text(lines: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(" ".join(line["text"] for line in lines).split())


def _alike(read: str, text: str) -> float:
    return SequenceMatcher(None, read, " ".join(text.split()), autojunk=False).ratio()
