"""What Florence-2 is asked, task by task, and how the released processors read its answers.

The library's own tasks read answers strictly (`rebus.codec.boxes`, `rebus.codec.polygons`). `released_answer` reads
them as the releases do, slips included, for numbers that are to be compared with theirs:

    transformers   coordinates in whole pixels, white space stripped
    hub            coordinates as they are; the first line of writing keeps its `</s>`
    launch         the same, without lines of writing smaller than a hundredth of the image: that of the paper
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from rebus.core.errors import unknown
from rebus.core.specs import NamedTask

Release = Literal["transformers", "hub", "launch"]
BINS = 1000
SMALLEST_LINE = 0.01  # of the image, at launch
# Phrases of a caption that name nothing which could be found.
VAGUE = frozenset(
    """it I me mine you your yours he him his she her hers they them their theirs one oneself we us our ours its myself
    yourself himself herself itself ourselves yourselves themselves this that these those who whom whose which what all
    another any anybody anyone anything each everybody everyone everything few many nobody none several some somebody
    someone something image images the a an lots""".split()
) | {"each other", "one another", "the image", "a group", "other objects", "a set"}

TASKS = {
    "<CAPTION>": NamedTask(prompt="What does the image describe?"),
    "<DETAILED_CAPTION>": NamedTask(prompt="Describe in detail what is shown in the image."),
    "<MORE_DETAILED_CAPTION>": NamedTask(prompt="Describe with a paragraph what is shown in the image."),
    "<OD>": NamedTask(prompt="Locate the objects with category name in the image.", answer="boxes"),
    "<DENSE_REGION_CAPTION>": NamedTask(
        prompt="Locate the objects in the image, with their descriptions.", answer="boxes"
    ),
    "<REGION_PROPOSAL>": NamedTask(prompt="Locate the region proposals in the image.", answer="boxes", label=""),
    "<OCR>": NamedTask(prompt="What is the text in the image?"),
    "<OCR_WITH_REGION>": NamedTask(prompt="What is the text in the image, with regions?", answer="lines"),
    "<CAPTION_TO_PHRASE_GROUNDING>": NamedTask(
        prompt="Locate the phrases in the caption: {text}", answer="boxes", skip=VAGUE
    ),
    "<REFERRING_EXPRESSION_SEGMENTATION>": NamedTask(prompt="Locate {text} in the image with mask", answer="masks"),
    "<REGION_TO_SEGMENTATION>": NamedTask(prompt="What is the polygon mask of region {region}", answer="masks"),
    "<OPEN_VOCABULARY_DETECTION>": NamedTask(prompt="Locate {text} in the image.", answer="boxes or masks"),
    "<REGION_TO_CATEGORY>": NamedTask(prompt="What is the region {region}?"),
    "<REGION_TO_DESCRIPTION>": NamedTask(prompt="What does the region {region} describe?"),
    "<REGION_TO_OCR>": NamedTask(prompt="What text is in the region {region}?"),
}


def released_answer(task: str, text: str, size: tuple[int, int], release: Release = "transformers") -> Any:
    """What the processor of a release makes of a generated text, control tokens included, for an image of `size`
    (width, height) in pixels: a text, or lists of places (x first) and of their labels, by the released names.

    Raises `UnknownName` for a task that there is not.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    answer = TASKS[task].answer
    if answer == "text":
        return _text(text, release)
    if answer == "lines":
        lines = list(_lines(text, size, release))
        return {"quad_boxes": [quad for quad, _ in lines], "labels": [line for _, line in lines]}
    text = text.replace("<s>", "").replace("</s>", "").replace("<pad>", "")
    outlined = answer == "masks" or (answer == "boxes or masks" and "<poly>" in text)
    outlines = list(_outlines(text, size, release, labelled=answer != "masks")) if outlined else []
    boxes = [] if outlined else list(_boxes(text, size, release, TASKS[task]))
    found: dict[str, list[Any]] = {
        "bboxes": [box for box, _ in boxes],
        "bboxes_labels": [label for _, label in boxes],
        "polygons": [polygons for polygons, _ in outlines],
        "polygons_labels": [label for _, label in outlines],
    }
    if answer == "masks":
        return {"polygons": found["polygons"], "labels": found["polygons_labels"]}
    return {"bboxes": found["bboxes"], "labels": found["bboxes_labels"]} if answer == "boxes" else found


def _text(text: str, release: Release) -> str:
    text = text.replace("<s>", "").replace("</s>", "\n" if release == "launch" else "")
    return text.strip() if release == "transformers" else text


def _lines(text: str, size: tuple[int, int], release: Release) -> Iterator[tuple[list[Any], str]]:
    text = text.replace("<s>", "")
    if release == "transformers":
        text = text.replace("</s>", "").replace("<pad>", "")
    for match in re.finditer(r"(.+?)((?:<loc_\d+>){8})", text):
        quad = _points(match[2], size, release)
        x, y = quad[0::2], quad[1::2]
        # Three of the four terms of the area, as released.
        area = 0.5 * abs(sum(x[i] * y[i + 1] - x[i + 1] * y[i] for i in range(3)))
        if release != "launch" or area >= size[0] * size[1] * SMALLEST_LINE:
            yield quad, match[1].strip() if release == "transformers" else match[1]


def _boxes(text: str, size: tuple[int, int], release: Release, task: NamedTask) -> Iterator[tuple[list[Any], str]]:
    for piece in re.findall((r"[^<]+" if task.label is None else "") + r"(?:<loc_\d+>){4,}", text):
        label = re.match(r"\s*(.*?)(?=<loc_)", piece)  # a line break inside a label is the end of it
        if label is None or label[0].strip() in task.skip:
            continue
        for box in re.findall(r"(?:<loc_\d+>){4}", piece):
            yield _points(box, size, release), _ascii(label[0].strip())


def _outlines(
    text: str, size: tuple[int, int], release: Release, labelled: bool
) -> Iterator[tuple[list[list[Any]], str]]:
    token = r"(?:<loc_\d+>|<sep>|<poly>|</poly>){4,}"
    for piece in re.findall(r"[^<]+" + token if labelled else token, text):
        named = re.sub(r"^<loc_\d+>" if release == "transformers" else r"^loc_\d+>", "", piece)
        label = re.match(r"\s*(.*?)(?=<loc_|<poly>)", named)
        if label is None:
            continue
        things = re.findall(r"<poly>(.*?)</poly>", piece) if "<poly>" in piece and "</poly>" in piece else [piece]
        for thing in things:
            found = re.findall(r"((?:<loc_\d+>)+)(?:<sep>|$)", thing)
            polygons = [_points(polygon, size, release) for polygon in found]
            if polygons:
                yield polygons, label[0].strip()


def _points(tokens: str, size: tuple[int, int], release: Release) -> list[Any]:
    """Coordinates in pixels, x and y in turn, in single precision; one without its pair is left out."""
    bins = np.array([int(place) for place in re.findall(r"<loc_(\d+)>", tokens)], dtype=np.float32)
    bins = bins[: len(bins) // 2 * 2]
    each = np.tile(np.array(size, dtype=np.float64) / BINS, len(bins) // 2).astype(np.float32)
    places = (bins + np.float32(0.5)) * each
    return (places.astype(np.int32) if release == "transformers" else places).tolist()


def _ascii(label: str) -> str:
    return label.encode("ascii", "ignore").decode("ascii")
