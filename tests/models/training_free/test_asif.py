"""The network: any two encoders, several tables, dense and sparse answers alike."""

import json

import pytest
import torch

from rebus.core.capabilities import EmbedsImages, EmbedsText
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig, UsageError
from rebus.models.training_free import asif
from rebus.models.training_free.asif import ASIF, PRESETS, SYSTEM, ASIFConfig, read_config, write_config
from rebus.models.training_free.pairs import Pairs
from rebus.weights.load_weights import load_into
from tests.models.training_free.test_pairs import world


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = ASIF(PRESETS["tiny"]).eval()
    table = network.tables[0]
    table.image, table.text = torch.randn(8, 512).abs(), torch.randn(8, 24)
    return network


@pytest.fixture
def batch():
    torch.manual_seed(1)
    mask = torch.arange(6) < torch.tensor([[6], [2], [4]])
    return {"pixels": torch.rand(2, 3, 40, 33), "tokens": torch.randint(0, 67, (3, 6)), "mask": mask}


def handed(image, text):
    """Encoders that pass on what they are given, so that matrices of embeddings are their own pixels and tokens."""
    return lambda pixels: image[pixels[:, 0, 0, 0].long()], lambda tokens, mask: text[tokens[:, 0]]


def test_gives_unit_vectors_and_their_products_whatever_the_batch(network, batch):
    assert isinstance(network, EmbedsImages)
    assert isinstance(network, EmbedsText)
    with torch.no_grad():
        out = network(**batch)
        alone = torch.cat([network.embed_text(t[m][None]) for t, m in zip(batch["tokens"], batch["mask"], strict=True)])
        sparse = network.score(
            network.image_vectors(batch["pixels"]), network.text_vectors(batch["tokens"], batch["mask"])
        )
    torch.testing.assert_close(out.image.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(out.text, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.logits, sparse, atol=1e-6, rtol=0)


def test_any_encoders_and_several_tables_make_a_weighted_mean():
    image, text, *_ = world(200)
    queries_i, queries_t, *_ = world(7, seed=1)
    tables = [Pairs.of(image[:90], text[:90], k=20, p=4), Pairs.of(image[90:], text[90:], k=30, p=2, weight=3)]
    network = ASIF.of(*handed(queries_i, queries_t), tables, scale=5)
    pixels = torch.arange(7.0)[:, None, None, None].expand(7, 3, 1, 1)
    out = network(pixels, torch.arange(7)[:, None])
    expected = 0.25 * tables[0](queries_i, queries_t) + 0.75 * tables[1](queries_i, queries_t)
    torch.testing.assert_close(out.logits, 5 * expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.image.norm(dim=1), torch.ones(7))
    assert out.image.shape == (7, 200)
    parts = network.explain(pixels[:1], torch.tensor([[0]]), top=None)
    assert sum(part.contribution for part in parts) == pytest.approx(float(expected[0, 0]), abs=1e-6)
    only = network.with_tables(tables[0])
    torch.testing.assert_close(only.score(queries_i, queries_t), tables[0](queries_i, queries_t))
    assert len(network.tables) == 2


def test_a_table_too_large_for_dense_vectors_says_what_to_do(monkeypatch, network, batch):
    monkeypatch.setattr(asif, "MAX_DENSE", 7)
    with pytest.raises(UsageError, match=r"8 pairs are too many .* network\.score"):
        network.embed_image(batch["pixels"])
    with pytest.raises(UsageError, match="no pairs"):
        ASIF(ASIFConfig()).score(torch.ones(1, 2), torch.ones(1, 3))


def test_settings_names_and_weights_go_through_files(network, batch):
    network.tables[0].remove(["c", "f"])
    data = json.loads(json.dumps(write_config(network.cfg)))
    cfg = read_config(data)
    assert cfg == network.cfg
    assert cfg.tables[0].ids == tuple("abdegh")
    assert from_dict(ASIFConfig, to_dict(cfg)) == cfg
    keys = SYSTEM.layouts["transformers"].keys(cfg)
    with torch.device("meta"):
        twin = ASIF(cfg)
    load_into(twin, keys.to_ours(keys.to_theirs(network.state_dict())))
    with torch.no_grad():
        assert torch.equal(twin.eval()(**batch).logits, network(**batch).logits)
    data["tables"][0]["temprature"] = 3
    with pytest.raises(BadConfig, match="temprature"):
        read_config(data)
    with pytest.raises(UsageError, match="encoders were handed"):
        write_config(ASIF.of(abs, abs, []).cfg)


def test_sentences_about_a_label_stay_apart():
    assert ASIF.averages_templates is False
