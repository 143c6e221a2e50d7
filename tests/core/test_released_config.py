import pytest

from rebus.core.errors import BadConfig
from rebus.core.released_config import NEUTRAL, Released


def test_fields_that_mean_nothing_pass_and_others_are_refused_by_name():
    Released({**NEUTRAL, "architectures": ["CLIPModel"], "something_new": None}).finish()
    for name, value in (
        ("tie_word_embeddings", False),
        ("num_beams", 3),
        ("no_repeat_ngram_size", 3),
        ("forced_bos_token_id", 0),
        ("decoder_start_token_id", 2),
        ("early_stopping", True),
        ("suppress_tokens", [1]),
        ("pruned_heads", {"0": [1]}),
        ("temperature", 0.7),
    ):
        with pytest.raises(BadConfig, match=rf"config.json.{name}: only .* is supported; got"):
            Released({name: value}).finish()


def test_a_reader_may_take_them():
    fields = Released({"num_beams": 3, "tie_word_embeddings": False})
    assert fields.take("num_beams", int, 1) == 3
    assert fields.take("tie_word_embeddings", bool, True) is False
    fields.finish()


def test_null_is_a_value_where_the_kind_has_one():
    fields = Released({"cap": None, "size": None})
    assert fields.take("cap", float | None, 50.0) is None
    assert fields.take("absent", float | None, 50.0) == 50.0
    assert fields.take("size", int, 7) == 7
    with pytest.raises(BadConfig, match="size: missing"):
        fields.take("size", int)


def test_unknown_fields_are_named_with_the_nearest():
    fields = Released({"num_beam": 1, "hidden": 3})
    fields.take("hidden_size", int, 1)
    with pytest.raises(BadConfig, match=r"hidden: unknown field"):
        fields.finish()
