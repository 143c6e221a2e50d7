"""BERT: rows stand alone, padding on either side changes nothing, names and settings go both ways."""

import pytest
import torch

from rebus.backbones.text.bert import BERT, PRESETS, keys, read_transformers, write_transformers
from rebus.core.errors import BadCheckpoint, BadConfig, BadText


@pytest.fixture
def network():
    torch.manual_seed(0)
    return BERT(PRESETS["tiny"]).eval()


def test_a_batch_and_padding_on_either_side_change_nothing(network):
    short, long = torch.tensor([[5, 9, 2]]), torch.randint(0, 67, (1, 7))
    right = torch.cat([torch.nn.functional.pad(short, (0, 4), value=1), long])
    left = torch.cat([torch.nn.functional.pad(short, (4, 0), value=1), long])
    row = torch.ones(7, dtype=torch.bool)
    with torch.no_grad():
        alone = torch.cat([network.embed_text(short), network.embed_text(long)])
        on_right = network.embed_text(right, torch.stack([torch.arange(7) < 3, row]))
        on_left = network.embed_text(left, torch.stack([torch.arange(7) >= 4, row]))
    torch.testing.assert_close(on_right, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(on_left, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(2))


def test_a_row_of_padding_alone_is_finite(network):
    with torch.no_grad():
        vector = network.embed_text(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.bool))
    assert vector.abs().sum() == 0


def test_a_text_beyond_the_context_is_refused(network):
    with pytest.raises(BadText, match="22 tokens is longer than the context of 21"):
        network(torch.zeros(1, 22, dtype=torch.int64))


def test_the_pooler_reads_the_first_real_token():
    network = BERT(PRESETS["minilm_l6"]).eval()
    x, mask = torch.randn(2, 3, 384), torch.tensor([[False, True, True], [True, True, False]])
    expected = torch.tanh(network.pooler(torch.stack([x[0, 1], x[1, 0]])))
    torch.testing.assert_close(network.pool(x, mask), expected)


@pytest.mark.parametrize("pooler", [False, True])
def test_names_cover_every_tensor_once(pooler):
    from dataclasses import replace

    cfg = replace(PRESETS["tiny"], pooler=pooler)
    names = BERT(cfg).state_dict()
    theirs = keys(cfg).to_theirs(names)
    assert len(theirs) == len(names)
    back = keys(cfg).to_ours({"bert." + k: v for k, v in theirs.items()} | {"cls.predictions.bias": names["norm.bias"]})
    assert back.keys() == names.keys()


def test_old_names_of_norms_are_read():
    cfg = PRESETS["tiny"]
    theirs = keys(cfg).to_theirs(BERT(cfg).state_dict())
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in theirs.items()
    }
    assert old.keys() != theirs.keys()
    assert keys(cfg).to_ours(old).keys() == BERT(cfg).state_dict().keys()


def test_an_unexpected_name_is_reported():
    with pytest.raises(BadCheckpoint, match="qwery"):
        keys(PRESETS["tiny"]).ours_name("encoder.layer.0.attention.self.qwery.weight")


def test_settings_go_both_ways_and_others_are_refused():
    cfg = PRESETS["tiny"]
    assert read_transformers(write_transformers(cfg)) == cfg
    with pytest.raises(BadConfig, match="position_embedding_type"):
        read_transformers({**write_transformers(cfg), "position_embedding_type": "relative_key"})
    with pytest.raises(BadConfig, match="hidden_sise"):
        read_transformers({**write_transformers(cfg), "hidden_sise": 3})


def test_the_released_sizes():
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in BERT(PRESETS[name]).parameters()) for name in ("base", "minilm_l6")}
    assert sizes == {"base": 109_482_240, "minilm_l6": 22_713_216}
