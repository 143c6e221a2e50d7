"""What can be said about a scene: captions, questions with answers, phrases. Everything said is true and unambiguous.

The full caption has one fixed grammar, `size fill colour shape, size fill colour shape, …` from left to right, so
that a generated one can be checked attribute by attribute (`parse_caption`).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from rebus.data.scenes.world import COLOURS, FILLS, SHAPES, SIZES, SceneObject

NUMBERS = ("zero", "one", "two", "three", "four", "five")
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_GAP = 6.0  # pixels of a 96-pixel image by which centres differ before a relation is spoken of
_GLUE = (
    "a an and are at below above answer caption class colour contains detect en filled has how in is it left like "
    "many no object objects of photo picture right segment shape shapes showing size the there to what which with yes"
)

Objects = Sequence[SceneObject]
Question = tuple[str, str]


def vocabulary() -> tuple[str, ...]:
    """Every word and mark that captions, questions, answers, phrases and the tasks' prompts can hold, sorted."""
    words = {*SHAPES, *COLOURS, *SIZES, *FILLS, *NUMBERS, *PLURALS.values(), *_GLUE.split(), ",", ".", "?", ";"}
    return tuple(sorted(words))


def full_caption(objects: Objects) -> str:
    """All attributes of all objects, left to right: `small solid red circle, large striped blue star`."""
    return ", ".join(" ".join(o.attributes) for o in objects)


def parse_caption(text: str) -> list[tuple[str, str, str, str]] | None:
    """(size, fill, colour, shape) of each object that a full caption names; None when it breaks the grammar."""
    found = []
    for part in text.strip().strip(".").split(","):
        words = part.split()
        if len(words) != 4 or any(w not in k for w, k in zip(words, (SIZES, FILLS, COLOURS, SHAPES), strict=True)):
            return None
        found.append((words[0], words[1], words[2], words[3]))
    return found


def captions(objects: Objects, scale: float) -> list[str]:
    """The full caption, then a sentence, a short one, a count, and relations where there is a clear one."""
    listed = [" ".join(o.attributes) for o in objects]
    number = NUMBERS[len(objects)]
    noun = "object" if len(objects) == 1 else "objects"
    said = [
        full_caption(objects),
        "a picture of " + _join([_article(text) for text in listed]),
        naming(objects),
        f"there {'is' if len(objects) == 1 else 'are'} {number} {noun} in the picture",
    ]
    for relation in RELATIONS:
        one, other = objects[0], objects[-1]
        if relation in ("right of", "below"):
            one, other = other, one
        if one is not other and _clear(one, other, relation, scale) and _name(one) != _name(other):
            said.append(relation_caption(one, other, relation))
    return said


def relation_caption(one: SceneObject, other: SceneObject, relation: str) -> str:
    """ "a red circle is left of a blue square"."""
    return f"{_article(_name(one))} is {relation} {_article(_name(other))}"


def relations(objects: Objects, relation: str, scale: float) -> list[tuple[SceneObject, SceneObject]]:
    """All pairs of objects that are plainly in that relation, each the only one of its colour and shape."""
    names = Counter(map(_name, objects))
    alone = [o for o in objects if names[_name(o)] == 1]
    return [(one, other) for one in alone for other in alone if _clear(one, other, relation, scale)]


def exists_question(label: str) -> str:
    """ "is there a red circle?", of a colour and a shape."""
    return f"is there {_article(label)}?"


def naming(objects: Objects) -> str:
    """Colours and shapes alone: `a red circle and a blue star`."""
    return _join([_article(_name(o)) for o in objects])


def question_of_looks(objects: Objects) -> str:
    """What is answered with images: `what is a red circle and a blue star like?`"""
    return f"what is {naming(objects)} like?"


def _article(text: str) -> str:
    return ("an " if text[0] in "aeiou" else "a ") + text


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _name(thing: SceneObject) -> str:
    return f"{thing.colour} {thing.shape}"


def _clear(one: SceneObject, other: SceneObject, relation: str, scale: float) -> bool:
    """Whether `one` is plainly in that relation to `other`."""
    axis = 0 if relation in ("left of", "right of") else 1
    distance = other.centre[axis] - one.centre[axis]
    return (distance if relation in ("left of", "above") else -distance) >= _GAP * scale


PHRASES: tuple[Callable[[SceneObject], str], ...] = (  # the usual ways to name an object
    lambda o: o.shape,
    lambda o: f"{o.colour} object",
    lambda o: f"{o.colour} {o.shape}",
    lambda o: f"{o.size} {o.shape}",
    lambda o: f"{o.fill} {o.shape}",
    lambda o: f"{o.size} {o.colour} {o.shape}",
    lambda o: f"{o.fill} {o.colour} {o.shape}",
    lambda o: f"{o.size} {o.fill} {o.colour} {o.shape}",
)


def phrases(objects: Objects) -> list[tuple[str, int]]:
    """(phrase, index) of all phrases of the usual forms that fit exactly one object, shortest first for each object."""
    said = []
    for form in PHRASES:
        texts = [form(o) for o in objects]
        counts = Counter(texts)
        said += [(text, i) for i, text in enumerate(texts) if counts[text] == 1]
    return sorted(said, key=lambda p: p[1])


def _unique(objects: Objects, rng: np.random.Generator, without: str) -> tuple[str, SceneObject] | None:
    """A phrase that fits one object only and does not say the attribute `without`."""
    said = [(text, objects[i]) for text, i in phrases(objects) if getattr(objects[i], without) not in text.split()]
    return said[int(rng.integers(len(said)))] if said else None


def _ask_attribute(attribute: str, wording: str) -> Callable[[Objects, np.random.Generator, float], Question | None]:
    def ask(objects: Objects, rng: np.random.Generator, scale: float) -> Question | None:
        found = _unique(objects, rng, without=attribute)
        return None if found is None else (wording.format(found[0]), getattr(found[1], attribute))

    return ask


def _ask_count(objects: Objects, rng: np.random.Generator, scale: float) -> Question | None:
    return "how many objects are there?", NUMBERS[len(objects)]


def _ask_count_of(attribute: str) -> Callable[[Objects, np.random.Generator, float], Question | None]:
    """Counts of one colour or shape; the answer is drawn first, so that it is not mostly zero."""
    values = COLOURS if attribute == "colour" else SHAPES

    def ask(objects: Objects, rng: np.random.Generator, scale: float) -> Question | None:
        counts = Counter(getattr(o, attribute) for o in objects)
        by_count: dict[int, list[str]] = {}
        for value in values:
            by_count.setdefault(counts[value], []).append(value)
        wanted = sorted(by_count)[int(rng.integers(len(by_count)))]
        value = by_count[wanted][int(rng.integers(len(by_count[wanted])))]
        what = PLURALS[value] if attribute == "shape" else f"{value} objects"
        return f"how many {what} are there?", NUMBERS[wanted]

    return ask


def _ask_exists(objects: Objects, rng: np.random.Generator, scale: float) -> Question | None:
    """Half yes, half no; most wrong ones change one word of an object that is there."""
    there = {(o.colour, o.shape) for o in objects}
    one = objects[int(rng.integers(len(objects)))]
    if rng.random() < 0.5:
        return exists_question(_name(one)), "yes"
    while True:
        colour, shape, change = COLOURS[rng.integers(8)], SHAPES[rng.integers(7)], int(rng.integers(3))
        pair = (colour if change != 0 else one.colour, shape if change != 1 else one.shape)
        if pair not in there:
            return exists_question(" ".join(pair)), "no"


def _ask_relation(relation: str) -> Callable[[Objects, np.random.Generator, float], Question | None]:
    """Asked of the object that has exactly one other on that side, plainly; anything else would be ambiguous."""
    axis = 0 if relation in ("left of", "right of") else 1
    backwards = relation in ("right of", "below")

    def ask(objects: Objects, rng: np.random.Generator, scale: float) -> Question | None:
        order = sorted(objects, key=lambda o: -o.centre[axis] if backwards else o.centre[axis])
        gaps = [abs(b.centre[axis] - a.centre[axis]) for a, b in pairwise(order)]
        if len(order) < 2 or any(gap < _GAP * scale for gap in gaps[:2]):
            return None
        answer, asked = order[0], order[1]
        named = [text for text, i in phrases(objects) if objects[i] is asked and not text.endswith("object")]
        return f"what is {relation} the {named[int(rng.integers(len(named)))]}?", _name(answer)

    return ask


_KINDS: dict[str, Callable[[Objects, np.random.Generator, float], Question | None]] = {
    "colour": _ask_attribute("colour", "what colour is the {}?"),
    "shape": _ask_attribute("shape", "what shape is the {}?"),
    "size": _ask_attribute("size", "what size is the {}?"),
    "fill": _ask_attribute("fill", "how is the {} filled?"),
    "count": _ask_count,
    "count colour": _ask_count_of("colour"),
    "count shape": _ask_count_of("shape"),
    "exists": _ask_exists,
    **{relation: _ask_relation(relation) for relation in RELATIONS},
}


def answer_kinds() -> tuple[str, ...]:
    """The kinds of questions."""
    return tuple(_KINDS)


def ask(kind: str, objects: Objects, rng: np.random.Generator, scale: float) -> Question | None:
    """One question of the kind with its answer; None where the scene has none that is unambiguous."""
    return _KINDS[kind](objects, rng, scale)


def answer(question: str, objects: Objects) -> str | None:
    """The answer computed from the text of the question alone; None for a question that is not one of ours."""
    if found := re.fullmatch(r"how many (.+) are there\?", question):
        words = found[1].split()
        if words == ["objects"]:
            return NUMBERS[len(objects)]
        singular = {plural: shape for shape, plural in PLURALS.items()}
        return NUMBERS[sum(o.colour == words[0] or o.shape == singular.get(words[0]) for o in objects)]
    if found := re.fullmatch(r"is there an? (\w+) (\w+)\?", question):
        return "yes" if any((o.colour, o.shape) == found.groups() for o in objects) else "no"
    if found := re.fullmatch(r"what (colour|shape|size) is the (.+)\?", question):
        fits = matching(found[2], objects)
        return getattr(objects[fits[0]], found[1]) if len(fits) == 1 else None
    if found := re.fullmatch(r"how is the (.+) filled\?", question):
        fits = matching(found[1], objects)
        return objects[fits[0]].fill if len(fits) == 1 else None
    if found := re.fullmatch(r"what is (left of|right of|above|below) the (.+)\?", question):
        fits = matching(found[2], objects)
        if len(fits) != 1:
            return None
        others = [o for o in objects if o is not objects[fits[0]] and _clear(o, objects[fits[0]], found[1], 0.0)]
        return _name(others[0]) if len(others) == 1 else None
    return None


def matching(phrase: str, objects: Objects) -> list[int]:
    """Indices of the objects that have every attribute named in the phrase or label ("object" fits all)."""
    words = [w for w in phrase.split() if w not in ("object", "a", "an", "the")]
    return [i for i, o in enumerate(objects) if all(w in o.attributes for w in words)]
