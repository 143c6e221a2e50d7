"""How well generated images match their prompt, judged by a detector of the shapes and colours of scenes.

`drawing`: the share of images, each of a full caption, in which just the colours and shapes that it names are found;
`drawing_objects`: of all objects; `drawing_truth`: `drawing` of the true images in their place, which is what the
detector itself makes of it. `replies`: of questions what two objects are like, the share that is answered by the name
of each with a right image after it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from rebus.data.scenes import LABELS, Scene, scene
from rebus.data.scenes.language import naming, question_of_looks

SURE = 0.8  # the score from which on a box counts: the detector gives weaker ones to parts of an object
_MOST = 200  # images and replies, which take a hundred times as long as captions
_TOGETHER = 50


def drawing_scores(model: Any, detector: Any, scenes: Sequence[Scene]) -> dict[str, float]:
    """The scores on the captions of `scenes`, of which at most 200 are drawn; `replies` of models that `complete`."""
    scenes = scenes[:_MOST]
    wanted = [Counter(s.labels) for s in scenes]
    drawn = list(_drawn(model, [s.captions[0] for s in scenes]))
    found, true = seen(detector, drawn), seen(detector, [s.image for s in scenes])
    common = sum(sum((one & other).values()) for one, other in zip(wanted, found, strict=True))
    scores = {
        "drawing": _share(wanted, found),
        "drawing_objects": common / max(sum(one.total() for one in wanted), 1),
        "drawing_truth": _share(wanted, true),
    }
    return scores | _reply_scores(model, detector, scenes) if "complete" in model.tasks else scores


def seen(detector: Any, images: Sequence[Image.Image]) -> list[Counter[str]]:
    """What the detector is sure to find in each image, enlarged to the size of scenes: how often each label."""
    found: list[Counter[str]] = []
    large = [image.resize((96, 96), Image.Resampling.BICUBIC) for image in images]
    for start in range(0, len(large), _TOGETHER):
        for boxes in detector.detect(large[start : start + _TOGETHER], list(LABELS)):
            found.append(Counter(box.label for box in boxes if box.score >= SURE))
    return found


def _drawn(model: Any, prompts: Sequence[str]) -> Iterator[Image.Image]:
    for start in range(0, len(prompts), _TOGETHER):
        some = list(prompts[start : start + _TOGETHER])
        yield from model.imagine(some, seed=list(range(start, start + len(some))))


def _reply_scores(model: Any, detector: Any, scenes: Sequence[Scene]) -> dict[str, float]:
    split, right = scenes[0].split, []
    pairs = [[scene(2 * i + k, split, count=1).objects[0] for k in (0, 1)] for i in range(len(scenes) // 2)]
    for start in range(0, len(pairs), _TOGETHER):
        some = pairs[start : start + _TOGETHER]
        asked = [[question_of_looks(pair)] for pair in some]
        for pair, reply in zip(some, model.complete(asked, seed=list(range(start, start + len(some)))), strict=True):
            names = [part for part in reply if isinstance(part, str)]
            images = [part for part in reply if not isinstance(part, str)]
            form = [isinstance(part, str) for part in reply] == [True, False] * len(pair)
            wanted = [Counter([f"{one.colour} {one.shape}"]) for one in pair]
            right.append(form and names == [naming([one]) for one in pair] and seen(detector, images) == wanted)
    return {"replies": float(np.mean(right))}


def _share(wanted: Sequence[Counter[str]], found: Sequence[Counter[str]]) -> float:
    return float(np.mean([one == other for one, other in zip(wanted, found, strict=True)]))
