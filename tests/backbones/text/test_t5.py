"""T5 alone: its sizes, its distances, and what it answers whatever lies around a prompt."""

import pytest
import torch

import rebus.nn.attention
from rebus import catalog
from rebus.backbones.text import t5
from rebus.core.errors import BadConfig

SYSTEM = catalog.system("t5")
READ = SYSTEM.layouts["transformers"].read_config


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("small", 60_506_624),
        ("3b", 2_851_598_336),
        ("11b", 11_307_321_344),
        ("v1_1_small", 76_961_152),
        ("v1_1_xl", 2_849_757_184),
        ("mt5_small", 300_176_768),
    ],
)
def test_presets_have_the_published_numbers_of_parameters(preset, parameters):
    with torch.device("meta"):
        network = SYSTEM.network(SYSTEM.presets[preset])
    assert sum(p.numel() for p in network.parameters()) == parameters


@torch.no_grad()
def test_a_bias_that_is_not_held_whole_gives_the_same(monkeypatch):
    torch.manual_seed(0)
    network = SYSTEM.network(SYSTEM.presets["tiny_gated"]).eval()
    tokens, targets = torch.randint(2, 96, (2, 17)), torch.randint(2, 96, (2, 9))
    mask = torch.arange(17) < torch.tensor([[17], [6]])
    wanted = network(tokens, mask, targets).logits
    monkeypatch.setattr(t5, "_MOST_SCORES", 0)
    monkeypatch.setattr(rebus.nn.attention, "_QUERIES_AT_A_TIME", 4)
    assert callable(network.encoder.relative[0](torch.arange(3), torch.arange(3)))
    torch.testing.assert_close(network(tokens, mask, targets).logits, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_in_the_middle_of_a_prompt_changes_nothing():
    torch.manual_seed(0)
    network = SYSTEM.network(SYSTEM.presets["tiny"]).eval()
    tokens, targets = torch.randint(2, 96, (1, 7)), torch.randint(2, 96, (1, 5))
    real = torch.tensor([[True, True, False, False, True, False, True]])
    wanted = network(tokens[real][None], None, targets).logits
    torch.testing.assert_close(network(tokens, real, targets).logits, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("preset", ["tiny", "tiny_gated"])
def test_products_that_are_joined_for_inference_give_the_same(preset):
    from rebus.nn.linear import join_products

    torch.manual_seed(0)
    network = SYSTEM.network(SYSTEM.presets[preset]).eval()
    tokens, targets = torch.randint(2, 96, (2, 7)), torch.randint(2, 96, (2, 5))
    wanted, names = network(tokens, None, targets).logits, set(network.state_dict())
    join_products(network)
    torch.testing.assert_close(network(tokens, None, targets).logits, wanted, atol=1e-5, rtol=0)
    assert set(network.state_dict()) == names


@pytest.mark.parametrize(
    "fields", [{"feed_forward_proj": "gated-tanh"}, {"relative_attention_num_buckets": 6}, {"pad_token_id": 3}]
)
def test_a_configuration_that_we_do_not_have_is_refused_by_name(fields):
    with pytest.raises(BadConfig, match=next(iter(fields)).split("_")[-1]):
        READ({"model_type": "t5", **fields})
