"""Contrastive search against the reference implementation (SimCTG's, transcribed) over transformers' GPT-2.

The transcription keeps the reference's steps and its caches: the candidates of a step go through the model together,
each with the cache of the prefix repeated, and what the winner left is the next step's state. Its tensors are named as
there. Su et al., "A Contrastive Framework for Neural Text Generation", 2022.
"""

import copy

import pytest
import torch

from rebus.backbones.text import gpt2
from rebus.generation import generate
from rebus.weights.load_weights import load_into

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


def ranking(context_hidden, next_hidden, next_top_k_probs, alpha):
    """context_hidden (k, length, width), next_hidden (k, 1, width), probabilities (k,) → which candidate."""
    norm_context_hidden = context_hidden / context_hidden.norm(dim=2, keepdim=True)
    norm_next_hidden = next_hidden / next_hidden.norm(dim=2, keepdim=True)
    cosine_matrix = torch.matmul(norm_context_hidden, norm_next_hidden.transpose(1, 2)).squeeze(-1)
    scores, _ = torch.max(cosine_matrix, dim=-1)
    return torch.argmax((1.0 - alpha) * next_top_k_probs - alpha * scores)


@torch.no_grad()
def contrastive_search(model, prompt, beam_width, alpha, decoding_len):
    """prompt (1, length) → the new tokens."""
    output = model(prompt, use_cache=True, output_hidden_states=True)
    past, last_hidden, logits = output.past_key_values, output.hidden_states[-1], output.logits[:, -1]
    generated = []
    for _ in range(decoding_len):
        next_probs = torch.softmax(logits, dim=-1)
        top_k_probs, top_k_ids = torch.topk(next_probs, beam_width, dim=-1)
        repeated = copy.deepcopy(past)
        repeated.batch_repeat_interleave(beam_width)
        output = model(top_k_ids.view(-1, 1), past_key_values=repeated, use_cache=True, output_hidden_states=True)
        next_hidden = output.hidden_states[-1]
        context_hidden = last_hidden.expand(beam_width, -1, -1)
        selected = ranking(context_hidden, next_hidden, top_k_probs.view(-1), alpha)
        past = output.past_key_values
        past.batch_select_indices(selected.view(1))
        logits = output.logits[selected, -1][None]
        last_hidden = torch.cat([last_hidden, next_hidden[selected][None]], dim=1)
        generated.append(int(top_k_ids[0, selected]))
    return generated


@pytest.mark.parametrize(("k", "alpha"), [(4, 0.6), (9, 0.4), (5, 0.9)])
def test_contrastive_search_equals_the_references_token_for_token(k, alpha):
    torch.manual_seed(k)
    config = transformers.GPT2Config(
        vocab_size=61, n_embd=36, n_layer=2, n_head=3, n_positions=41, bos_token_id=None, eos_token_id=None
    )
    reference = transformers.GPT2LMHeadModel(config).eval()
    for parameter in reference.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.15)
    network = gpt2.GPT2(gpt2.read_transformers(config.to_dict())).eval()
    load_into(network, gpt2.keys(network.cfg).to_ours(reference.state_dict()), device="cpu", dtype=torch.float32)
    lengths = (7, 3, 1)
    tokens = torch.randint(0, 61, (3, 7))
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    options = {"max_new_tokens": 15, "strategy": "contrastive", "k": k, "alpha": alpha, "eos_id": None, "pad_id": 0}
    wanted = [
        contrastive_search(reference, row[None, :n], k, alpha, 15) for row, n in zip(tokens, lengths, strict=True)
    ]
    assert len({tuple(row) for row in wanted}) == 3
    found = generate(network, {"tokens": tokens.masked_fill(~mask, 0), "mask": mask}, **options)
    assert found.tolist() == wanted
    greedy = generate(network, {"tokens": tokens[:1]}, max_new_tokens=15, eos_id=None, pad_id=0)
    assert greedy[0].tolist() != wanted[0]
