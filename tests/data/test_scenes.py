"""The scenes world: what is said is what is drawn, splits are apart, seeds are exact."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from rebus.core.errors import UsageError
from rebus.data import scenes
from rebus.data.scenes import language
from rebus.data.scenes.render import RGB

SPLITS = [("train", 0), ("val", 0), ("test", 0), ("novel", 0), ("test", 1000)]


def many(split: str = "train", start: int = 0, n: int = 60, **kwargs: int) -> list[scenes.Scene]:
    return [scenes.scene(start + i, split, **kwargs) for i in range(n)]


@pytest.mark.parametrize("size", [96, 128, 200])
def test_boxes_are_tight_around_masks_which_do_not_overlap(size: int) -> None:
    for s in many(size=size):
        assert s.image.size == (size, size)
        total = np.zeros((size, size), dtype=int)
        for o in s.objects:
            ys, xs = np.nonzero(o.mask)
            assert o.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            total += o.mask
        assert total.max() == 1


def test_objects_go_from_left_to_right_and_differ() -> None:
    for s in many():
        xs = [o.centre[0] for o in s.objects]
        assert all(b - a >= 2.5 for a, b in pairwise(xs))
        assert len({o.attributes for o in s.objects}) == len(s.objects)
        assert 1 <= len(s.objects) <= 5


def test_solid_objects_show_their_colour_and_stand_out() -> None:
    for s in many():
        for o in s.objects:
            inside = s.pixels[o.mask].astype(int)
            if o.fill == "solid":
                assert np.abs(np.median(inside, axis=0) - RGB[o.colour]).max() <= 12
        background = s.pixels[~np.any(s.masks, axis=0)].astype(int)
        vivid = np.ptp(background, axis=1)
        assert np.quantile(vivid, 0.99) < 60
        assert np.quantile(background.max(axis=1), 0.99) < 190


@pytest.mark.parametrize(("split", "start"), SPLITS)
def test_captions_parse_back_to_the_objects(split: str, start: int) -> None:
    for s in many(split, start):
        assert scenes.parse_caption(s.captions[0]) == [o.attributes for o in s.objects]
        assert scenes.parse_caption(s.captions[0].replace(",", " ,")) == [o.attributes for o in s.objects]
        assert len(s.captions) >= 4


def test_parse_caption_refuses_what_breaks_the_grammar() -> None:
    assert scenes.parse_caption("small solid red circle, big solid red circle") is None
    assert scenes.parse_caption("") is None
    assert scenes.parse_caption("solid small red circle") is None


@pytest.mark.parametrize(("split", "start"), SPLITS)
def test_answers_follow_from_the_questions_words(split: str, start: int) -> None:
    for s in many(split, start):
        assert len(s.questions) >= 4
        for question, answer in s.questions:
            assert language.answer(question, s.objects) == answer
            assert 1 <= len(answer.split()) <= 2


def test_answers_are_balanced() -> None:
    said: dict[str, list[str]] = {}
    for s in many(n=400):
        for (_, answer), kind in s.questions_by_kind:
            said.setdefault(kind, []).append(answer)
    assert set(said) == set(scenes.answer_kinds())
    for kind, answers in said.items():
        most = max(answers.count(a) for a in set(answers)) / len(answers)
        assert most < (0.6 if kind in ("exists", "count colour", "count shape") else 0.5), kind


def test_phrases_fit_exactly_one_object() -> None:
    for s in many():
        assert {i for _, i in s.phrases} == set(range(len(s.objects)))
        assert all(s.matching(phrase) == [i] for phrase, i in s.phrases)


def test_relations_in_captions_hold() -> None:
    for s in many():
        for text in s.captions[4:]:
            for relation in language.RELATIONS:
                if f" is {relation} " in text:
                    left, right = text.split(f" is {relation} ")
                    pairs = [(a, b) for a in s.matching(left) for b in s.matching(right)]
                    assert any(language._clear(s.objects[a], s.objects[b], relation, 1.0) for a, b in pairs)


def test_held_out_pairs_occur_in_novel_scenes_only() -> None:
    for split in ("train", "val", "test"):
        assert all((o.shape, o.colour) not in scenes.HELD_OUT for s in many(split) for o in s.objects)
    for s in many("novel"):
        assert any((o.shape, o.colour) in scenes.HELD_OUT for o in s.objects)
    assert set(scenes.LABELS).isdisjoint(scenes.NOVEL_LABELS)
    assert len(scenes.LABELS) + len(scenes.NOVEL_LABELS) == 56


def test_splits_never_share_a_picture() -> None:
    pictures = [s.pixels.tobytes() for split in scenes.SPLITS for s in many(split, n=30)]
    assert len(set(pictures)) == len(pictures)


def test_single_objects_have_a_class() -> None:
    for s in many(count=1, n=20):
        assert s.label in scenes.LABELS
    assert all(s.label in scenes.NOVEL_LABELS for s in many("novel", count=1, n=20))
    assert scenes.scene(0, count=3).label is None


def test_vocabulary_covers_everything_said() -> None:
    words = set(scenes.vocabulary())
    for split in ("train", "novel"):
        for s in many(split):
            said = s.captions + [t for pair in s.questions for t in pair] + [p for p, _ in s.phrases] + s.labels
            for text in said:
                assert set(text.replace(",", " , ").replace("?", " ?").split()) <= words


def test_a_seed_gives_the_same_bytes_everywhere() -> None:
    digest = hashlib.sha256()
    for split in scenes.SPLITS:
        for s in many(split, start=7, n=5):
            digest.update(s.pixels.tobytes())
            digest.update(repr((s.captions, s.questions, s.phrases, s.boxes)).encode())
    assert digest.hexdigest()[:16] == "b187c70f36071f71"


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match='no split "tset"; did you mean "test"'):
        scenes.scene(0, "tset")
    with pytest.raises(UsageError, match="96 pixels"):
        scenes.scene(0, size=64)
    with pytest.raises(UsageError, match="count=6"):
        scenes.scene(0, count=6)
    with pytest.raises(UsageError, match="seed"):
        scenes.scene(-1)
