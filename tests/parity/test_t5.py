"""T5, mT5, umT5 and UL2's shape against transformers, on random weights."""

import json

import pytest
import torch

from rebus import catalog
from rebus.generation import generate
from rebus.open_checkpoint import open_checkpoint
from rebus.weights.load_weights import load_into
from tests.parity.test_language_models import prompts

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

VOCAB, PAD, END = 61, 0, 1
SYSTEM = catalog.system("t5")
LAYOUT = SYSTEM.layouts["transformers"]


def t5(kind="T5", **fields):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCAB,
        d_model=36,
        d_kv=10,
        d_ff=53,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=9,
        decoder_start_token_id=PAD,
        **fields,
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


CASES = {
    "t5": lambda: t5(),
    "t5 1.1": lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "ul2": lambda: t5(feed_forward_proj="gated-silu", tie_word_embeddings=False),
    "mt5": lambda: t5("MT5"),
    "umt5": lambda: t5("UMT5"),
}


@pytest.fixture(scope="module", params=CASES)
def pair(request):
    """The reference with weights that all matter and, but for the first T5, a head of its own; and ours."""
    torch.manual_seed(0)
    reference = CASES[request.param]().eval()
    if request.param != "t5":
        reference.lm_head.weight = torch.nn.Parameter(torch.randn_like(reference.lm_head.weight))
    if request.param == "umt5":  # the reference divides its scores by √width, which the release did not
        reference.config.tie_word_embeddings = False
    for parameter in reference.parameters():
        # Not more: at 0.2 float32 is 4e-4 from float64 in both libraries, and only some processors round alike.
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    cfg = LAYOUT.read_config(reference.config.to_dict())
    network = SYSTEM.network(cfg).eval()
    load_into(network, LAYOUT.keys(cfg).to_ours(reference.state_dict()), device="cpu", dtype=torch.float32)
    return reference, network


def answers():
    return torch.randint(2, VOCAB, (3, 23), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_equal_the_references_with_padding_on_either_side(pair, side):
    reference, network = pair
    tokens, mask = prompts(side)
    wanted = reference(tokens, attention_mask=mask.long(), labels=answers()).logits
    torch.testing.assert_close(network(tokens, mask, answers()).logits, wanted, atol=1e-4, rtol=0)
    assert wanted.abs().max() > 0.5
    for row, real, target in zip(tokens, mask, answers(), strict=True):
        alone = reference(row[None, real], labels=target[None]).logits
        found = network(row[None, real], targets=target[None]).logits
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=0)


@torch.no_grad()
def test_bfloat16_stays_close(pair):
    _, network = pair
    tokens, mask = prompts("right")
    wanted = network(tokens, mask, answers()).logits
    found = type(network)(network.cfg).bfloat16()
    found.load_state_dict(network.state_dict())
    error = (found(tokens, mask, answers()).logits.float() - wanted).abs().mean()
    assert error < 0.1 * wanted.std()


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_equals_the_references_token_for_token(pair, beams):
    reference, network = pair
    tokens, mask = prompts("left")
    options = {"strategy": "beam", "num_beams": beams} if beams > 1 else {}
    found = generate(network, {"tokens": tokens, "mask": mask}, eos_id=END, pad_id=PAD, max_new_tokens=9, **options)
    wanted = reference.generate(
        tokens, attention_mask=mask.long(), max_new_tokens=9, num_beams=beams, do_sample=False, length_penalty=1.0
    )[:, 1:]
    ends = wanted == END
    wanted[ends.cumsum(1) > ends] = PAD  # its beam search fills up with the end token where the padding has number 0
    assert found.tolist() == wanted.tolist()
    assert len({tuple(row) for row in found.tolist()}) > 1


@torch.no_grad()
def test_each_library_reads_what_the_other_writes(pair, tmp_path):
    reference, network = pair
    written = {name: t.load() for name, t in LAYOUT.keys(network.cfg).to_theirs(network.state_dict()).items()}
    config = LAYOUT.write_config(network.cfg)
    assert LAYOUT.read_config(config) == network.cfg
    again = type(reference)(type(reference.config)(**config)).eval()
    if not network.cfg.tied:
        again.lm_head.weight = torch.nn.Parameter(torch.empty_like(again.lm_head.weight))
    missing, strange = again.load_state_dict(written, strict=False)
    again.tie_weights()
    if not network.cfg.tied:
        again.lm_head.weight.data.copy_(written["lm_head.weight"])
    assert not strange
    assert set(missing) <= {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}

    reference.save_pretrained(tmp_path)
    opened = open_checkpoint(tmp_path)
    assert opened.config == network.cfg
    ours = SYSTEM.network(opened.config).eval()
    load_into(ours, opened.tensors, device="cpu", dtype=torch.float32)
    tokens, _ = prompts("left")
    torch.testing.assert_close(ours(tokens, None, answers()).logits, network(tokens, None, answers()).logits)


def test_a_head_that_the_reference_tied_is_read_from_the_embeddings(tmp_path):
    torch.manual_seed(0)
    reference = t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False).eval()
    reference.save_pretrained(tmp_path)
    opened = open_checkpoint(tmp_path)
    network = SYSTEM.network(opened.config).eval()
    load_into(network, opened.tensors, device="cpu", dtype=torch.float32)
    tokens, _ = prompts("left")
    with torch.no_grad():
        wanted = reference(tokens, labels=answers()).logits
        torch.testing.assert_close(network(tokens, None, answers()).logits, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("both_ways", [True, False])
def test_buckets_equal_the_references(both_ways):
    from transformers.models.t5.modeling_t5 import T5Attention

    from rebus.backbones.text.t5 import RelativePositions, T5Config

    distance = torch.arange(-300, 301)[None]
    table = RelativePositions(T5Config(), both_ways=both_ways)
    wanted = T5Attention._relative_position_bucket(distance, both_ways, 32, 128)
    assert torch.equal(table.buckets(distance), wanted)


def test_an_older_file_with_copies_and_a_dead_table_is_read(pair):
    _, network = pair
    theirs = LAYOUT.keys(network.cfg).to_theirs(network.state_dict())
    theirs |= {
        "encoder.embed_tokens.weight": theirs["shared.weight"],
        "decoder.embed_tokens.weight": theirs["shared.weight"],
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": theirs["shared.weight"],
    }
    assert LAYOUT.keys(network.cfg).to_ours(theirs).keys() == network.state_dict().keys()


def test_the_configuration_of_a_released_file_is_read():
    """Of google/flan-t5-small, as released."""
    data = json.loads(
        """{"architectures": ["T5ForConditionalGeneration"], "d_ff": 1024, "d_kv": 64, "d_model": 512,
        "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0, "is_encoder_decoder": true, "layer_norm_epsilon": 1e-06, "model_type": "t5",
        "n_positions": 512, "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8, "output_past": true,
        "pad_token_id": 0, "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
        "tie_word_embeddings": false, "transformers_version": "4.23.1", "use_cache": true, "vocab_size": 32128}"""
    )
    assert LAYOUT.read_config(data) == SYSTEM.presets["v1_1_small"]
