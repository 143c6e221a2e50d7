"""Llama: published sizes, limits, and what inference changes that must change nothing."""

import pytest
import torch

from rebus.backbones.text.llama import Llama
from rebus.backbones.text.llama_layouts import PRESETS, keys, read_transformers
from rebus.core.errors import BadConfig, BadText
from rebus.nn import attention
from rebus.nn.linear import join_products

SIZES = {  # of the released files, tied weights once
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1b7": 1_711_376_384,
    "tinyllama_1b1": 1_100_048_384,
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama3_8b": 8_030_261_248,
}


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"tiny"}))
def test_published_size(preset):
    with torch.device("meta"):
        network = Llama(PRESETS[preset])
    assert sum(p.numel() for p in network.parameters()) == SIZES[preset]


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = Llama(PRESETS["tiny"]).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network


@torch.no_grad()
def test_joined_products_and_a_lone_query_on_a_gpu_give_the_same(network, monkeypatch):
    tokens = torch.randint(0, 96, (2, 7))
    expected = network(tokens).logits
    join_products(network)
    assert not any(hasattr(block.attn, "q") or hasattr(block.mlp, "gate") for block in network.blocks)
    monkeypatch.setattr(attention, "_is_lone_query", lambda queries, _: queries == 1)
    torch.testing.assert_close(network(tokens).logits, expected)
    step = network.start(room=3, tokens=tokens[:, :4])
    for at in range(4, 7):
        torch.testing.assert_close(step.logits, expected[:, at - 1], atol=1e-5, rtol=1e-4)
        step = network.step(tokens[:, at], step.cache)
    torch.testing.assert_close(step.logits, expected[:, -1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_an_empty_prompt_and_one_beyond_the_context_are_refused(network):
    tokens = torch.zeros(1, 60, dtype=torch.int64)
    assert network.start(room=4, tokens=tokens).logits.shape == (1, 96)
    with pytest.raises(BadText, match="60 tokens of prompt and 5 after it make 65; the context holds 64"):
        network.start(room=5, tokens=tokens)
    with pytest.raises(BadText, match="make 65; the context holds 64"):
        network(tokens, targets=torch.zeros(1, 6, dtype=torch.int64))
    with pytest.raises(BadText, match="empty prompt"):
        network.start(room=5, tokens=tokens[:, :0])


@torch.no_grad()
def test_a_row_of_padding_alone_harms_no_other(network):
    tokens = torch.randint(0, 96, (2, 5))
    mask = torch.tensor([[True] * 5, [False] * 5])
    step = network.start(room=2, tokens=tokens, mask=mask)
    step = network.step(tokens[:, 0], step.cache)
    assert step.logits.isfinite().all()
    alone = network(torch.cat([tokens[:1], tokens[:1, :1]], dim=1)).logits[:, -1]
    torch.testing.assert_close(step.logits[:1], alone, atol=1e-5, rtol=1e-4)


def test_old_files_hold_rotary_tables_which_are_dropped(network):
    theirs = keys(network.cfg).to_theirs(network.state_dict())
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(3)}
    assert keys(network.cfg).to_ours(theirs | table).keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}, "rope_scaling: only None is supported"),
        ("rope_parameters", {"rope_type": "llama3", "rope_theta": 5e5}, "rope_type: only 'default' is supported"),
        ("attention_bias", True, "attention_bias: only False is supported"),
        ("num_key_value_heads", 3, "32 heads of queries cannot share 3 of keys"),
        ("head_dim", 7, "rotary positions need heads of an even width; got 7"),
        ("rms_norm_eps", 0.0, "rms_norm_eps: expected a number above 0"),
    ],
)
def test_what_would_change_numbers_is_refused_by_name(field, value, said):
    with pytest.raises(BadConfig, match=said):
        read_transformers({"model_type": "llama", field: value})
