"""The scenes world: endless, seeded images of coloured shapes with everything that can be said about them.

Each scene holds one to five objects (7 shapes × 8 colours × 3 sizes × 3 fills) on a cluttered background, with
captions, question-answer pairs, boxes, masks, referring phrases and labels, and on demand with a number or a word
written in it. Scenes are put together to few-shot episodes (`episode`), to pages of text and images in turn (`page`),
and move in short videos (`video`). It is the project's test bed: cheap,
exact, and hard enough that a wrong architecture or objective shows.

The split is part of the seed: images of two splits never coincide. Some pairs of shape and colour (`HELD_OUT`)
never occur in "train", "val" and "test"; every "novel" scene holds one at least.
"""

from rebus.data.scenes.episodes import NAMES, Episode, Shown, episode
from rebus.data.scenes.language import answer_kinds, parse_caption, vocabulary
from rebus.data.scenes.pages import PLAIN, page
from rebus.data.scenes.scene import LABELS, NOVEL_LABELS, Scene, scene
from rebus.data.scenes.video import MOTIONS, Video, video
from rebus.data.scenes.world import COLOURS, FILLS, HELD_OUT, SHAPES, SIZES, SPLITS, SceneObject
from rebus.data.scenes.writing import NOTICES, Writing

__all__ = [
    "COLOURS",
    "FILLS",
    "HELD_OUT",
    "LABELS",
    "MOTIONS",
    "NAMES",
    "NOTICES",
    "NOVEL_LABELS",
    "PLAIN",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "Episode",
    "Scene",
    "SceneObject",
    "Shown",
    "Video",
    "Writing",
    "answer_kinds",
    "episode",
    "page",
    "parse_caption",
    "scene",
    "video",
    "vocabulary",
]
