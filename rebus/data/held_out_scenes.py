"""Held-out scenes as data sets of benchmarks: things to be named, questions with yes or no, captions true and false."""

from dataclasses import dataclass

import numpy as np

from rebus.core.errors import unknown
from rebus.data.record import Question, Record
from rebus.data.scenes import COLOURS, FILLS, LABELS, NOVEL_LABELS, SHAPES, SIZES, Scene, scene
from rebus.data.scenes.language import OPPOSITES, RELATIONS, exists_question, relation_caption, relations

SCENES = "scenes"  # the name of these in the place of a path
POPE = ("random", "popular", "adversarial")
_NUMBER = 500  # scenes that are asked about
_HELD_OUT = ("test", "val", "novel")
_PICK, _PAIR = 11, 12  # streams of random numbers: of what is asked, of which two are spoken of


@dataclass(frozen=True)
class _HeldOut:
    """`split`: one that no model learned from. Raises `UnknownName` for others."""

    split: str = "test"
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.split not in _HELD_OUT:
            raise unknown("split of scenes", self.split, _HELD_OUT, f"There are {', '.join(_HELD_OUT)}.")

    def _random(self, row: int, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([_HELD_OUT.index(self.split), row, stream]))


@dataclass(frozen=True)
class SingleObjects(_HeldOut):
    """200 scenes of one object, whose label is its colour and shape. Sentences around a label say its size and fill."""

    labels: tuple[str, ...] = (*LABELS, *NOVEL_LABELS)
    templates: tuple[str, ...] = tuple(f"{size} {fill} {{}}" for size in SIZES for fill in FILLS)
    sizes: tuple[int, ...] = (200,)

    def read(self, block: int, row: int) -> Record:
        s = scene(row, self.split, count=1)
        return Record(key=_key(s), image=s.pixels, label=s.label)


@dataclass(frozen=True)
class YesNoQuestions(_HeldOut):
    """POPE's three sets: of each of 500 scenes whether a thing is there that is, and one that is not.

    What is not there is any colour and shape ("random"), one of the pairs that the world has, which are all as common
    ("popular"), or one of a colour and a shape that are both there, in two other things, the one that is most often
    seen with them, as scenes have few colours or few shapes ("adversarial"; one of both where there is no such pair).
    """

    sizes: tuple[int, ...] = (2 * _NUMBER,) * len(POPE)

    def read(self, block: int, row: int) -> Record:
        s, rng = scene(row // 2, self.split), self._random(row // 2, _PICK + 10 * block)
        answer, things = ("yes", s.labels) if row % 2 == 0 else ("no", absent(s, POPE[block]))
        asked = exists_question(things[int(rng.integers(len(things)))])
        question = Question(text=asked, answers=(answer,), id=f"{s.seed} {answer}", kind=POPE[block])
        return Record(key=f"{_key(s)} {POPE[block]} {answer}", image=s.pixels, questions=(question,))


def absent(s: Scene, how: str) -> list[str]:
    """The labels of what is not in a scene, for one of the sets of POPE."""
    missing = [f"{c} {shape}" for c in COLOURS for shape in SHAPES if f"{c} {shape}" not in s.labels]
    if how == "random":
        return missing
    if how == "popular":
        return [label for label in missing if label in LABELS]
    there = {word for label in s.labels for word in label.split()}
    known = [sum(word in there for word in label.split()) for label in missing]
    return [label for label, number in zip(missing, known, strict=True) if number == max(known)]


@dataclass(frozen=True)
class RelationCaptions(_HeldOut):
    """500 scenes with two captions each, of which one says the opposite: "a red circle is left of a blue square"."""

    sizes: tuple[int, ...] = (_NUMBER,)

    def read(self, block: int, row: int) -> Record:
        relation = RELATIONS[row % len(RELATIONS)]
        for number in range(row, 100 * _NUMBER, _NUMBER):  # the next ones, where there are no two of which it is said
            s = scene(number, self.split)
            pairs = relations(s.objects, relation, s.scale)
            if pairs:
                break
        one, other = pairs[int(self._random(row, _PAIR).integers(len(pairs)))]
        true, false = (relation_caption(one, other, r) for r in (relation, OPPOSITES[relation]))
        captions = (true, false) if row // len(RELATIONS) % 2 == 0 else (false, true)
        question = Question(text="which is true?", answers=(true,), kind=relation)
        return Record(key=_key(s), image=s.pixels, captions=captions, questions=(question,))


def _key(s: Scene) -> str:
    return f"scene {s.split}:{s.seed}"
