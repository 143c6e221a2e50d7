"""Held-out scenes as data of benchmarks: what is said to be true of them is, and the rest is not."""

import pytest

from rebus.core.errors import UnknownName, UsageError
from rebus.data.held_out_scenes import POPE, RelationCaptions, SingleObjects, YesNoQuestions, absent
from rebus.data.scenes import LABELS, NOVEL_LABELS, language, scene
from rebus.data.scenes.language import OPPOSITES
from rebus.evaluate.measure import measure
from tests.evaluate.benchmarks.samples import Told


def test_half_of_the_questions_are_about_what_is_there() -> None:
    reader = YesNoQuestions()
    for block, kind in enumerate(POPE):
        for row in range(60):
            record = reader.read(block, row)
            (question,) = record.questions
            s = scene(row // 2, "test")
            assert (record.image == s.pixels).all()
            assert question.kind == kind
            assert question.answers == ("yes" if row % 2 == 0 else "no",)
            assert language.answer(question.text, s.objects) == question.answers[0]


def test_what_is_not_there_is_more_and_more_like_what_is() -> None:
    held_out, mixed = 0, 0
    for number in range(80):
        s = scene(number, "test")
        mixtures = {f"{a.split()[0]} {b.split()[1]}" for a in s.labels for b in s.labels} - {*s.labels}
        for how in POPE:
            assert not {*s.labels} & {*absent(s, how)}
        held_out += bool({*NOVEL_LABELS} & {*absent(s, "random")})
        assert {*absent(s, "popular")} <= {*LABELS}
        if mixtures:
            assert {*absent(s, "adversarial")} == mixtures
        for label in absent(s, "adversarial"):
            assert any({*label.split()} & {*there.split()} for there in s.labels)
        mixed += bool(mixtures)
    assert held_out == 80
    assert mixed > 40


def test_of_two_captions_one_is_true() -> None:
    places = set()
    for row in range(40):
        record = RelationCaptions("val").read(0, row)
        true, relation = record.questions[0].answers[0], record.questions[0].kind
        false = true.replace(relation, OPPOSITES[relation])
        assert {*record.captions} == {true, false}
        places.add((relation, record.captions.index(true)))
        s = scene(int(record.key.split(":")[1]), "val")
        assert (record.image == s.pixels).all()
        one, other = (s.objects[s.matching(name)[0]] for name in true.split(f" is {relation} "))
        axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
        assert sign * (one.centre[axis] - other.centre[axis]) >= 6
    assert len(places) == 8  # no relation is always first


def test_things_to_be_named() -> None:
    reader = SingleObjects()
    record = reader.read(0, 5)
    assert record.label == scene(5, "test", count=1).label
    assert record.label in reader.labels
    said = [sentence.format(record.label) for sentence in reader.templates]
    assert scene(5, "test", count=1).captions[0] in said


def test_benchmarks_take_scenes_in_place_of_a_path() -> None:
    told = Told(ask=lambda images, texts: ["yes"] * len(texts))
    result = measure(told, "pope", "scenes", number=40)
    assert result.document["data"]["used"] == 40
    assert result.document["data"]["split"] == "test"
    assert result.document["scores"]["yes"] == 1.0
    assert result.document["scores"]["recall"] == 1.0
    assert 0.3 < result.document["scores"]["accuracy"] < 0.7
    with pytest.raises(
        UsageError, match="vqa does not support scenes, only the benchmark scenes does; it reads images"
    ):
        measure(told, "vqa", "scenes")
    with pytest.raises(UnknownName, match=r'split of scenes "train"\. There are test, val, novel\.'):
        measure(told, "pope", "scenes", split="train")
