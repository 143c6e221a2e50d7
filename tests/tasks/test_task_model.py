"""What a task asks of a system: default decoding, companions, a notation of places."""

import pytest

from rebus.core.errors import MissingFile, UnknownName, UnsupportedTask, UsageError
from rebus.tasks.caption import caption
from rebus.tasks.detect import detect
from rebus.tasks.stream import stream
from rebus.tasks.task_model import companion, decoding_for
from tests.tasks.fakes import picture, writer


def says(colour, prompt):
    return "a very very very very red dog"


def test_defaults_hold_where_neither_the_system_nor_the_user_says_otherwise():
    model = writer(says)
    wanted = {"caption": 64, "ask": 32, "detect": 256, "segment": 128, "complete": 64}
    for task, room in wanted.items():
        assert decoding_for(model, task, {}) == {"max_new_tokens": room, "strategy": "greedy"}


def test_the_user_overrides_the_system_and_the_system_the_general_default():
    model = writer(says, decoding={"caption": {"max_new_tokens": 3, "stop": "dog"}})
    assert caption(model, picture("red")) == "a very very"
    assert caption(model, picture("red"), max_new_tokens=4) == "a very very very"
    assert caption(model, picture("red"), max_new_tokens=20) == "a very very very very red"
    assert decoding_for(model, "ask", {}) == {"max_new_tokens": 32, "strategy": "greedy"}


def test_options_of_the_systems_strategy_do_not_hinder_another():
    model = writer(says, decoding={"caption": {"strategy": "beam", "num_beams": 3, "no_repeat_ngram_size": 3}})
    assert decoding_for(model, "caption", {})["num_beams"] == 3
    sampled = decoding_for(model, "caption", {"strategy": "sample", "seed": 1})
    assert sampled == {"max_new_tokens": 64, "no_repeat_ngram_size": 3, "strategy": "sample", "seed": 1}
    assert caption(model, picture("red"), strategy="sample", seed=1).startswith("a")
    with pytest.raises(UsageError, match='num_beams belongs to the strategy "beam"'):
        caption(model, picture("red"), strategy="sample", num_beams=3)
    with pytest.raises(UnknownName, match='did you mean "greedy"'):
        caption(model, picture("red"), strategy="gredy")


def test_a_system_that_decodes_by_beam_search_streams_greedily():
    model = writer(says, decoding={"caption": {"strategy": "beam", "num_beams": 2}})
    assert "".join(stream(model, "caption", picture("red"))) == says("", "")
    with pytest.raises(UsageError, match="beam search cannot stream"):
        stream(model, "caption", picture("red"), strategy="beam")


def test_a_companion_that_is_missing_is_named_with_what_it_is_for():
    with pytest.raises(MissingFile, match=r"no vae-oid\.npz, without which there is nothing to decode masks by"):
        companion(writer(says), "mask_decoder")
    loaded = object()
    assert companion(writer(says, mask_decoder=loaded), "mask_decoder") is loaded


def test_a_system_without_places_cannot_detect():
    with pytest.raises(UnsupportedTask, match="neither finds regions nor states places"):
        detect(writer(says, locations=None), picture("red"), "cat")
