"""The scenes world: endless, seeded images of coloured shapes with everything that can be said about them.

Each scene holds one to five objects (7 shapes × 8 colours × 3 sizes × 3 fills) on a cluttered background, with
captions, question-answer pairs, boxes, masks, referring phrases and labels, and on demand with a number or a word
written in it. It is the project's test bed: cheap,
exact, and hard enough that a wrong architecture or objective shows.

The split is part of the seed: images of two splits never coincide. Some pairs of shape and colour (`HELD_OUT`)
never occur in "train", "val" and "test"; every "novel" scene holds one at least.
"""

from rebus.data.scenes.language import answer_kinds, parse_caption, vocabulary
from rebus.data.scenes.scene import LABELS, NOVEL_LABELS, Scene, scene
from rebus.data.scenes.world import COLOURS, FILLS, HELD_OUT, SHAPES, SIZES, SPLITS, SceneObject
from rebus.data.scenes.writing import NOTICES, Writing

__all__ = [
    "COLOURS",
    "FILLS",
    "HELD_OUT",
    "LABELS",
    "NOTICES",
    "NOVEL_LABELS",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "Scene",
    "SceneObject",
    "Writing",
    "answer_kinds",
    "parse_caption",
    "scene",
    "vocabulary",
]
