"""GPT-2: published sizes, names of older files, and what the start of training is like."""

import pytest
import torch

from rebus.backbones.text.gpt2 import GPT2, PRESETS, keys, read_transformers
from rebus.core.errors import BadCheckpoint, BadConfig, BadText

SIZES = {"small": 124_439_808, "medium": 354_823_168, "large": 774_030_080, "xl": 1_557_611_200}


@pytest.mark.parametrize("preset", sorted(SIZES))
def test_published_size(preset):
    with torch.device("meta"):
        network = GPT2(PRESETS[preset])
    assert sum(p.numel() for p in network.parameters()) == SIZES[preset]


def test_captioning_models_with_two_more_tokens_have_their_size():
    from dataclasses import replace

    with torch.device("meta"):
        network = GPT2(replace(PRESETS["small"], vocab_size=50_259))
    assert sum(p.numel() for p in network.parameters()) == 124_441_344


@pytest.fixture
def network():
    torch.manual_seed(0)
    return GPT2(PRESETS["tiny"]).eval()


@pytest.mark.parametrize("prefix", ["", "transformer.", "model.transformer."])
def test_names_with_and_without_what_stands_before_them_are_read(network, prefix):
    theirs = keys(network.cfg).to_theirs(network.state_dict())
    assert set(theirs) >= {"transformer.h.1.attn.c_attn.weight", "transformer.wte.weight"}
    assert theirs["transformer.h.0.attn.c_attn.weight"].shape == (24, 72)
    old = {prefix + name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
    old |= {
        prefix + f"h.{i}.attn.{name}": torch.ones(1, 1, 64, 64) for i in range(2) for name in ("bias", "masked_bias")
    }
    back = keys(network.cfg).to_ours(old)
    state = network.state_dict()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name].load(), value) for name, value in state.items())
    with pytest.raises(BadCheckpoint, match=r"unexpected weight .*crossattention"):
        keys(network.cfg).to_ours(old | {prefix + "h.0.crossattention.c_attn.weight": torch.zeros(2, 2)})


def test_a_text_beyond_the_positions_is_refused(network):
    with pytest.raises(BadText, match="60 tokens of prompt and 5 after it make 65; the context holds 64"):
        network.start(room=5, tokens=torch.zeros(1, 60, dtype=torch.int64))
    with pytest.raises(BadText, match="65 tokens of prompt make 65"):
        network(torch.zeros(1, 65, dtype=torch.int64))


def test_what_is_added_to_the_residual_path_starts_smaller(network):
    block = GPT2(PRESETS["small"].__class__(width=192, num_layers=8, num_heads=3, mlp_width=768, vocab_size=9)).blocks[
        0
    ]
    for layer, std in ((block.attn.q, 0.02), (block.attn.out, 0.005), (block.mlp.up, 0.02), (block.mlp.down, 0.005)):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("field", ["scale_attn_by_inverse_layer_idx", "add_cross_attention"])
def test_other_kinds_of_attention_are_refused_by_name(field):
    with pytest.raises(BadConfig, match=f"{field}: only False is supported"):
        read_transformers({field: True})
