from dataclasses import replace

import pytest
import torch

from rebus.backbones.text.gemma import Gemma, GemmaConfig
from rebus.nn import attention
from rebus.nn.linear import join_products

FIRST = GemmaConfig(width=24, num_layers=3, num_heads=4, head_width=8, mlp_width=32, vocab_size=40)
SECOND = replace(FIRST, generation=2, num_kv_heads=2, query_scale=12.0, score_cap=5.0, logit_cap=3.0)
SIZES = {"first": FIRST, "second": SECOND, "window": replace(SECOND, window=3)}


@pytest.fixture(params=SIZES)
def network(request):
    torch.manual_seed(0)
    gemma = Gemma(SIZES[request.param]).eval()
    for name, weight in gemma.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return gemma


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(network, side):
    tokens = torch.randint(0, 40, (2, 7))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, slice(0, 3) if side == "left" else slice(4, 7)] = False
    alone = network(tokens[:1, mask[0]])
    torch.testing.assert_close(network(tokens, mask)[0, mask[0]], alone[0])


@pytest.mark.parametrize("on_gpu", [False, True])
@torch.no_grad()
def test_word_by_word_with_a_cache_equals_the_whole(network, on_gpu, monkeypatch):
    if on_gpu:  # the way a lone query takes there, and products joined as for a compiled step
        monkeypatch.setattr(attention, "_is_lone_query", lambda queries, _: queries == 1)
        join_products(network)
    tokens = torch.randint(0, 40, (2, 8))
    real = torch.ones(2, 1, dtype=torch.bool)
    cache, found = network.empty_cache(2, 8), []
    for at in range(8):
        x = network.embed(tokens[:, at : at + 1])
        hidden, cache = network.decode_cached(x, real, cache, whole=False)
        found.append(network.logits(hidden))
    torch.testing.assert_close(torch.cat(found, dim=1), network(tokens))


@torch.no_grad()
def test_logits_stay_below_the_cap(network):
    largest = network.logits(torch.randn(3, 24) * 1e4).abs().max()
    cap = network.cfg.logit_cap
    assert largest > 10 if cap is None else 0.9 * cap < largest <= cap


def test_words_are_scaled_by_the_root_of_the_width():
    gemma = Gemma(FIRST)
    torch.testing.assert_close(gemma.embed(torch.tensor([[3]]))[0, 0], gemma.tokens.weight[3] * 24**0.5)


@torch.no_grad()
def test_joined_products_give_the_same(network):
    tokens = torch.randint(0, 40, (2, 5))
    expected = network(tokens)
    join_products(network)
    assert not any(hasattr(block.attn, "q") or hasattr(block.mlp, "gate") for block in network.blocks)
    torch.testing.assert_close(network(tokens), expected)
