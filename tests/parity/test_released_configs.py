"""Every configuration that the reference library writes is read; what would change numbers is refused by name."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rebus.backbones.text import bert, gpt2, llama_layouts, t5_layouts
from rebus.core.errors import BadConfig
from rebus.core.released_config import NEUTRAL
from rebus.models.contrastive import clip_config, siglip_config
from rebus.models.unified import paligemma_config

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


def configs() -> dict[str, tuple[Any, Any]]:
    """(the reference's configuration, our reader), by name."""
    gemma2 = {"model_type": "gemma2"}
    return {
        "clip": (transformers.CLIPConfig(), clip_config.read_transformers),
        "siglip": (transformers.SiglipConfig(), siglip_config.read_transformers),
        "siglip2": (transformers.Siglip2Config(), siglip_config.read_transformers),
        "paligemma": (transformers.PaliGemmaConfig(), paligemma_config.read_transformers),
        "paligemma2": (transformers.PaliGemmaConfig(text_config=gemma2), paligemma_config.read_transformers),
        "bert": (transformers.BertConfig(), bert.read_transformers),
        "gpt2": (transformers.GPT2Config(), gpt2.read_transformers),
        "llama": (transformers.LlamaConfig(), llama_layouts.read_transformers),
        "t5": (transformers.T5Config(), t5_layouts.read_transformers),
        "t5 1.1": (
            transformers.T5Config(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
            t5_layouts.read_transformers,
        ),
        "mt5": (transformers.MT5Config(), t5_layouts.read_transformers),
        "umt5": (transformers.UMT5Config(), t5_layouts.read_transformers),
    }


NAMES = ["clip", "siglip", "siglip2", "paligemma", "paligemma2", "bert", "gpt2", "llama", "t5", "t5 1.1", "mt5", "umt5"]


def parts(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [data, *(data[name] for name in ("text_config", "vision_config") if name in data)]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_reference_writes_is_read(name, tmp_path):
    config, read = configs()[name]
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert read(config.to_dict()) == read(saved)


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_of_decoding_that_older_files_spell_out_are_read(name):
    """Files of version 4 repeat every default in every part."""
    config, read = configs()[name]
    data = json.loads(config.to_json_string(use_diff=False))
    plain = read(data)
    for part in parts(data):
        part |= {**NEUTRAL, **part, "bos_token_id": None, "sep_token_id": None, "_attn_implementation_autoset": False}
    assert read(data) == plain


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("field", "value"),
    [("num_beams", 3), ("tie_word_embeddings", False), ("decoder_start_token_id", 2), ("is_encoder_decoder", True)],
)
def test_what_would_change_numbers_is_refused_by_name(name, field, value):
    if (name, field) == ("llama", "tie_word_embeddings"):
        pytest.skip("Llamas come with either")
    if "t5" in name and field != "num_beams":
        pytest.skip("T5s say it, and are read so")
    config, read = configs()[name]
    data = json.loads(config.to_json_string(use_diff=False))
    for i in range(len(parts(data))):
        changed = json.loads(json.dumps(data))
        parts(changed)[i][field] = value
        with pytest.raises(BadConfig, match=rf"{field}: only .*; got {value}"):
            read(changed)


def gemma2(**fields: Any) -> Any:
    config = transformers.PaliGemmaConfig(text_config={"model_type": "gemma2", **fields})
    return paligemma_config.read_transformers(json.loads(config.to_json_string(use_diff=False))).text


def test_caps_that_are_null_are_none():
    text = gemma2(attn_logit_softcapping=None, final_logit_softcapping=None)
    assert (text.score_cap, text.logit_cap) == (None, None)
    assert (gemma2().score_cap, gemma2().logit_cap) == (50.0, 30.0)


def test_which_layers_look_through_a_window_is_read():
    turns = ["sliding_attention", "full_attention"]
    common = {"num_hidden_layers": 2, "sliding_window": 9}
    assert gemma2(**common).window == 9
    assert gemma2(**common, layer_types=turns).window == 9
    assert gemma2(**common, layer_types=["full_attention"] * 2).window is None
    with pytest.raises(BadConfig, match="layer_types: only sliding and full attention in turn"):
        gemma2(**common, layer_types=turns[::-1])


def test_a_scale_that_is_no_whole_number_is_kept():
    cfg = paligemma_config.PaliGemmaConfig(text=replace(paligemma_config.GEMMA2, query_scale=56.25))
    written = paligemma_config.write_transformers(cfg)
    assert paligemma_config.read_transformers(written).text.query_scale == 56.25


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
@pytest.mark.parametrize("second", [None, {}, {"hidden_size": 96, "num_hidden_layers": 3}])
def test_a_tower_that_is_said_twice_is_read_as_the_reference_does(part, second):
    first = {"hidden_size": 64, "num_attention_heads": 4, "hidden_act": "gelu"}
    data = {"text_config": {}, "vision_config": {}, "projection_dim": 32, part: first, f"{part}_dict": second}
    theirs = getattr(transformers.CLIPConfig(**json.loads(json.dumps(data))), part)
    config = clip_config.read_transformers(data)
    ours = config.text if part == "text_config" else config.image
    assert (ours.width, ours.num_layers, ours.num_heads) == (
        theirs.hidden_size,
        theirs.num_hidden_layers,
        theirs.num_attention_heads,
    )
    assert ours.act == theirs.hidden_act


def test_an_end_token_that_stands_for_the_largest_is_told_where_others_are_larger(caplog):
    tower = {"vocab_size": 49_410}
    assert clip_config.read_transformers({"text_config": {**tower, "eos_token_id": 2}}).end_id is None
    assert "those from 49,408 on would be taken for the end" in caplog.text
    caplog.clear()
    assert clip_config.read_transformers({"text_config": {**tower, "eos_token_id": 49_407}}).end_id == 49_407
    assert clip_config.read_transformers({"text_config": {"eos_token_id": 2}}).end_id is None
    assert not caplog.records


def test_the_padding_of_a_large_vocabulary_is_what_the_file_says():
    """Files of SigLIP 2 do not say it: they are padded with 0."""
    large = {"vocab_size": 256_000}
    assert siglip_config.read_transformers({"text_config": large}).pad_id == 0
    assert siglip_config.read_transformers({"text_config": {**large, "pad_token_id": 1}}).pad_id == 1
    assert siglip_config.read_transformers({"text_config": {}}).pad_id == 1
