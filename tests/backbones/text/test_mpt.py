"""MPT: sizes, ALiBi, and the norm of queries and keys that only MPT-1B has."""

import json
import math

import pytest
import torch

from rebus.backbones.text.mpt import MPT, PRESETS, SYSTEM, alibi_slopes, mosaic_keys, read_mosaic, write_mosaic
from rebus.core.errors import BadConfig
from rebus.open_checkpoint import open_checkpoint
from rebus.save_checkpoint import save_checkpoint


@pytest.mark.parametrize("preset, size", [("1b", 1_311_442_944), ("7b", 6_649_286_656)])
def test_published_size(preset, size):
    with torch.device("meta"):
        network = MPT(PRESETS[preset])
    assert sum(p.numel() for p in network.parameters()) == size


def test_slopes_halve_from_head_to_head():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(3, 4).tolist() == [2.0**-2, 2.0**-4, 2.0**-1]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = MPT(PRESETS["tiny_qk_norm"]).eval()
    for parameter in network.parameters():
        parameter.data.normal_(std=0.3)
    return network


@torch.no_grad()
def test_queries_and_keys_are_normalised_over_all_heads_together(network):
    """The first layer, written out."""
    tokens, block, norm = torch.arange(3, 10)[None], network.blocks[0], torch.nn.functional.layer_norm
    x = network.tokens(tokens)
    normed = norm(x, (24,), block.norm1.weight)
    q, k, v = (getattr(block.attn, n)(normed) for n in "qkv")
    q, k = (
        torch.nn.functional.layer_norm(y, (24,), n.norm.weight)
        for y, n in ((q, block.attn.q_norm), (k, block.attn.k_norm))
    )
    out = []
    for h in range(4):
        at = slice(6 * h, 6 * h + 6)
        scores = q[0, :, at] @ k[0, :, at].T / math.sqrt(6)
        for i in range(7):
            for j in range(7):
                scores[i, j] += 2.0 ** (-2 * (h + 1)) * (j - i) if j <= i else -math.inf
        out.append(scores.softmax(-1) @ v[0, :, at])
    x = x + block.attn.out(torch.cat(out, -1))[None]
    x = x + block.mlp.down(
        torch.nn.functional.gelu(block.mlp.up(torch.nn.functional.layer_norm(x, (24,), block.norm2.weight)))
    )
    laid = network.lay_out(network.embed(tokens), torch.ones_like(tokens, dtype=torch.bool))
    torch.testing.assert_close(laid.blocks[0](laid.x), x)


def test_a_checkpoint_of_the_earlier_layout_is_known_by_its_type(network, tmp_path):
    folder = save_checkpoint(tmp_path / "mpt", SYSTEM.layouts["mosaic"], network.cfg, network.state_dict())
    data = json.loads((folder / "config.json").read_text())
    assert data["model_type"] == "mosaic_gpt"
    opened = open_checkpoint(folder)
    assert (opened.layout.name, opened.config) == ("mosaic", network.cfg)
    names = mosaic_keys(network.cfg).to_theirs(network.state_dict())
    assert {"transformer.blocks.0.attn.q_ln.weight", "transformer.blocks.0.mlp.mlp_up.weight"} <= names.keys()
    assert SYSTEM.layout_for(network.cfg).name == "mosaic"


@pytest.mark.parametrize("field, value", [("attn_clip_qkv", 6.0), ("alibi", False), ("no_bias", False), ("n_hedas", 3)])
def test_what_would_change_numbers_is_refused_by_name(field, value, network):
    assert read_mosaic(write_mosaic(network.cfg)) == network.cfg
    with pytest.raises(BadConfig, match=field):
        read_mosaic(write_mosaic(network.cfg) | {field: value})
