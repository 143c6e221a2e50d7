"""The text backbones against transformers, on random weights."""

import pytest
import torch

from rebus import catalog
from rebus.generation import generate
from rebus.weights.load_weights import load_into

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

VOCAB, PAD = 61, 3
LENGTHS = (11, 5, 1)


def llama(**fields):
    settings = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "rms_norm_eps": 1e-5} | fields
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=36,
        num_hidden_layers=3,
        intermediate_size=53,
        max_position_embeddings=41,
        bos_token_id=None,
        eos_token_id=None,
        **settings,
    )
    return transformers.LlamaForCausalLM(config)


def gpt2(**fields):
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=36, n_layer=3, n_head=3, n_positions=41, bos_token_id=None, eos_token_id=None, **fields
    )
    return transformers.GPT2LMHeadModel(config)


def mpt(**fields):
    config = transformers.MptConfig(
        vocab_size=VOCAB, d_model=36, n_layers=3, max_seq_len=41, bos_token_id=None, eos_token_id=None, **fields
    )
    return transformers.MptForCausalLM(config)


def gpt_neox(**fields):
    config = transformers.GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=36,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=53,
        max_position_embeddings=41,
        bos_token_id=None,
        eos_token_id=None,
        **fields,
    )
    return transformers.GPTNeoXForCausalLM(config)


def opt():
    config = transformers.OPTConfig(
        vocab_size=VOCAB,
        hidden_size=36,
        num_hidden_layers=3,
        num_attention_heads=3,
        ffn_dim=53,
        max_position_embeddings=41,
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.OPTForCausalLM(config)


CASES = {
    "gpt2": lambda: gpt2(),
    "gpt2, another width and activation": lambda: gpt2(n_inner=53, activation_function="gelu"),
    "llama": lambda: llama(),
    "llama, tied, all heads their own": lambda: llama(tie_word_embeddings=True, num_key_value_heads=6),
    "llama, one shared key": lambda: llama(
        num_key_value_heads=1, rope_parameters={"rope_type": "default", "rope_theta": 77.0}
    ),
    "mpt": lambda: mpt(n_heads=4),
    "mpt, heads that are no power of two": lambda: mpt(n_heads=3),
    "gpt_neox": lambda: gpt_neox(rope_parameters={"partial_rotary_factor": 0.5, "rope_theta": 77.0}),
    "gpt_neox, one after the other": lambda: gpt_neox(
        use_parallel_residual=False, rope_parameters={"partial_rotary_factor": 1.0, "rope_theta": 10_000.0}
    ),
    "opt": lambda: opt(),
}


@pytest.fixture(scope="module", params=CASES)
def pair(request):
    """The reference with weights that all matter, and ours with the same."""
    torch.manual_seed(0)
    reference = CASES[request.param]().eval()
    for parameter in reference.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    system = catalog.system(request.param.split(",")[0])
    layout = system.layouts["transformers"]
    cfg = layout.read_config(reference.config.to_dict())
    network = system.network(cfg).eval()
    load_into(network, layout.keys(cfg).to_ours(reference.state_dict()), device="cpu", dtype=torch.float32)
    return reference, network, layout


def prompts(side):
    """Tokens (3, 11) of uneven lengths, and which are real."""
    tokens = torch.randint(4, VOCAB, (3, max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    mask = mask.flip(1) if side == "left" else mask
    return tokens.masked_fill(~mask, PAD), mask


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_equal_the_references_with_padding_on_either_side(pair, side):
    reference, network, _ = pair
    tokens, mask = prompts(side)
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    wanted = reference(tokens, attention_mask=mask.long(), position_ids=positions).logits
    assert (network(tokens, mask).logits - wanted)[mask].abs().max() < 1e-4
    for row, real in zip(tokens, mask, strict=True):
        alone = reference(row[None, real]).logits
        assert (network(row[None, real]).logits - alone).abs().max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_greedy_decoding_equals_the_references_token_for_token(pair, side):
    reference, network, _ = pair
    tokens, mask = prompts(side)
    found = generate(network, {"tokens": tokens, "mask": mask}, eos_id=None, pad_id=PAD, max_new_tokens=7)
    for row, real, new in zip(tokens, mask, found, strict=True):
        wanted = reference.generate(row[None, real], max_new_tokens=7, do_sample=False, pad_token_id=PAD)
        assert new.tolist() == wanted[0, int(real.sum()) :].tolist()


@torch.no_grad()
def test_the_reference_reads_what_we_write(pair):
    reference, network, layout = pair
    cfg = network.cfg
    assert layout.read_config(layout.write_config(cfg)) == cfg
    written = {name: t.load() for name, t in layout.keys(cfg).to_theirs(network.state_dict()).items()}
    again = type(reference)(type(reference.config)(**layout.write_config(cfg))).eval()
    named = {name.replace("embed_out.", "lm_head."): tensor for name, tensor in written.items()}
    missing, strange = again.load_state_dict(named, strict=False)
    again.tie_weights()
    assert not strange
    assert set(missing) <= {"lm_head.weight"}
    tokens, _ = prompts("left")
    torch.testing.assert_close(again(tokens).logits, reference(tokens).logits)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_targets_after_a_prompt_are_scored_as_one_sequence_and_as_by_steps(pair, side):
    _, network, _ = pair
    tokens, mask = prompts(side)
    targets = torch.randint(4, VOCAB, (3, 5), generator=torch.Generator().manual_seed(2))
    found = network(tokens, mask, targets).logits
    step = network.start(room=5, tokens=tokens, mask=mask)
    assert step.hidden.shape[:2] == tokens.shape
    for at in range(5):
        torch.testing.assert_close(step.logits, found[:, at], atol=1e-5, rtol=1e-4)
        step = network.step(targets[:, at], step.cache)
    for row, (one, real) in enumerate(zip(tokens, mask, strict=True)):
        whole = torch.cat([one[real], targets[row, :-1]])[None]
        alone = network(whole).logits[0, int(real.sum()) - 1 :]
        torch.testing.assert_close(found[row], alone, atol=1e-5, rtol=1e-4)
