import json

import pytest

from rebus import catalog
from rebus.core.errors import BadConfig, LimitExceeded, RebusError
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0.0, -1e-5, 10**400])
def test_fault_39_a_number_that_cannot_be_is_refused_by_field(value):
    with pytest.raises(BadConfig, match=r"config.json.layer_norm_eps: expected a (finite number|number above 0)"):
        Released({"layer_norm_eps": value}).positive("layer_norm_eps", 1e-5)
    assert Released({}).positive("layer_norm_eps", 1e-5) == 1e-5


@pytest.mark.parametrize("name", ["align/scenes", "clip/scenes", "siglip/scenes", "paligemma/scenes"])
def test_fault_39_every_size_and_scale_of_a_checkpoint_is_checked(name, tmp_path):
    """Each number of a configuration in turn made zero, NaN or absurd, where it is a size, a count or a scale."""
    folder = catalog.bundled_folder(name)
    data = json.loads((folder / "config.json").read_text())
    read = catalog.system(data["model_type"]).layouts["transformers"].read_config
    read(data)
    harmless = {
        "pad_token_id",
        "eos_token_id",
        "bos_token_id",
        "image_token_index",
        "image_token_id",
        "num_image_tokens",
    }
    tried = 0
    for path, value in _numbers(data):
        if path[-1] in harmless or path == ("hidden_size",):  # of PaliGemma as a whole, which no tower has
            continue
        bad = [0, float("nan"), -1] if isinstance(value, float) else [0, -1, 10**9]
        for wrong in bad:
            broken = json.loads(json.dumps(data))
            part = broken
            for step in path[:-1]:
                part = part[step]
            part[path[-1]] = wrong
            try:
                read(broken)
            except RebusError as error:
                tried += path[-1] in str(error)
            else:
                assert path[-1] in ("projection_dim", "logit_scale_init_value"), f"{path}: {wrong} was read"
    assert tried > 30


def test_fault_37_ten_million_layers_are_refused_at_once():
    for taken in (10**7, 1001):
        with pytest.raises(
            LimitExceeded, match=r"config.json.num_hidden_layers: .* passes the limit MAX_LAYERS = 1,000"
        ):
            Released({"num_hidden_layers": taken}).layers("num_hidden_layers")


def _numbers(data, path=()):
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _numbers(value, (*path, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, name), value
