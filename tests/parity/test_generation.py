"""Decoding against transformers' `generate`, on a tiny random GPT-2 behind our protocol."""

import copy

import pytest
import torch
from torch import nn

from rebus.core.outputs import Step
from rebus.generation import Guidance, generate, score
from rebus.generation.sampling import shape

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")

VOCAB, EOS, PAD = 40, 1, 3  # not 0: transformers takes a pad of 0 for none and fills beams with the end token


class Cache:
    def __init__(self, keys, mask):
        self.keys, self.mask = keys, mask

    def select(self, rows):
        keys = copy.deepcopy(self.keys)
        keys.reorder_cache(rows)
        return Cache(keys, self.mask[rows])


class Wrapped(nn.Module):
    """transformers' GPT-2 as a `WritesText`; shows the states of the whole prompt."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def _step(self, tokens, keys, mask):
        position = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        out = self.model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=position,
            past_key_values=keys,
            use_cache=True,
            output_hidden_states=True,
        )
        return out, Cache(out.past_key_values, mask)

    def start(self, *, room, tokens, mask=None):
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        out, cache = self._step(tokens, None, mask)
        return Step(out.logits[:, -1], out.hidden_states[-1], cache)

    def step(self, token, cache):
        mask = torch.cat([cache.mask, torch.ones_like(token, dtype=torch.bool)[:, None]], dim=1)
        out, cache = self._step(token[:, None], cache.keys, mask)
        return Step(out.logits[:, -1], out.hidden_states[-1][:, -1], cache)


@pytest.fixture(scope="module", params=[0, 1])
def model(request):
    torch.manual_seed(request.param)
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=EOS,
        initializer_range=0.6,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def prompts():
    tokens = torch.randint(2, VOCAB, (5, 6), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, :2] = mask[3, :4] = False
    return tokens.masked_fill(~mask, PAD), mask


def theirs(model, prompts, **options):
    tokens, mask = prompts
    out = model.generate(
        input_ids=tokens, attention_mask=mask.long(), pad_token_id=PAD, eos_token_id=EOS, use_cache=True, **options
    )
    return out[:, tokens.shape[1] :]


def ours(model, prompts, **options):
    return generate(Wrapped(model), {"tokens": prompts[0], "mask": prompts[1]}, eos_id=EOS, pad_id=PAD, **options)


@pytest.mark.parametrize("no_repeat_ngram_size", [0, 2, 3])
def test_greedy(model, prompts, no_repeat_ngram_size):
    options = {"max_new_tokens": 16, "no_repeat_ngram_size": no_repeat_ngram_size}
    assert torch.equal(ours(model, prompts, **options), theirs(model, prompts, do_sample=False, **options))


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("num_beams", [2, 5])
def test_beam(model, prompts, num_beams, length_penalty, early_stopping):
    options = {
        "max_new_tokens": 12,
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "early_stopping": early_stopping,
    }
    expected = theirs(model, prompts, do_sample=False, **options)
    assert torch.equal(ours(model, prompts, strategy="beam", **options), expected)


@pytest.mark.parametrize("no_repeat_ngram_size", [2, 3])
def test_beam_without_repeats(model, prompts, no_repeat_ngram_size):
    """Not for n = 1: transformers counts padding as words there, and so forbids the padding token in padded rows."""
    options = {"max_new_tokens": 12, "num_beams": 3, "no_repeat_ngram_size": no_repeat_ngram_size}
    expected = theirs(model, prompts, do_sample=False, **options)
    assert torch.equal(ours(model, prompts, strategy="beam", **options), expected)


def test_beam_with_allowed_tokens(model, prompts):
    def ids(row, tokens):
        return [EOS, *range(2 + row, 30)] if len(tokens) % 2 else list(range(5, VOCAB))

    length = prompts[0].shape[1]
    options = {"max_new_tokens": 10, "num_beams": 3}
    expected = theirs(
        model, prompts, do_sample=False, prefix_allowed_tokens_fn=lambda row, t: ids(row, t[length:]), **options
    )
    assert torch.equal(ours(model, prompts, strategy="beam", allowed=ids, **options), expected)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_guidance(model, prompts, scale):
    """Their unconditional branch knows no padding: one row without any."""
    row = (prompts[0][:1], prompts[1][:1])
    second = torch.tensor([[7, 9]])
    expected = theirs(model, row, do_sample=False, max_new_tokens=10, guidance_scale=scale, negative_prompt_ids=second)
    found = ours(model, row, max_new_tokens=10, guidance=Guidance(scale=scale, batch={"tokens": second}))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "temperature, top_k, top_p", [(1.0, 5, 1.0), (0.7, None, 0.8), (1.7, 12, 0.6), (2.0, 99, 0.95)]
)
def test_filters_of_sampling(temperature, top_k, top_p):
    scores = torch.randn(7, VOCAB, generator=torch.Generator().manual_seed(1)) * 3
    expected = scores / temperature
    if top_k is not None:
        expected = transformers.TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = transformers.TopPLogitsWarper(top_p)(None, expected)
    torch.testing.assert_close(shape(scores, temperature=temperature, top_k=top_k, top_p=top_p), expected)


def test_score_equals_the_full_forward(model, prompts):
    targets = torch.randint(2, VOCAB, (5, 7), generator=torch.Generator().manual_seed(2))
    targets[2, 4:] = -100
    tokens, mask = prompts
    found = score(Wrapped(model), {"tokens": tokens, "mask": mask}, targets)
    for row in range(5):
        prompt, target = tokens[row][mask[row]], targets[row][targets[row] != -100]
        with torch.no_grad():
            logits = model(torch.cat([prompt, target])[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert found.length[row] == len(target)
        torch.testing.assert_close(found.total[row], logits.gather(1, target[:, None]).sum(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_contrastive_search_equals_the_paper_in_float64(model, prompts, alpha):
    """transformers 5 moved contrastive search out; this is eq. 5 of Su et al. 2022, without a cache."""
    k, room = 4, 6
    exact = copy.deepcopy(model).double()
    found = generate(
        Wrapped(exact),
        {"tokens": prompts[0], "mask": prompts[1]},
        eos_id=EOS,
        pad_id=PAD,
        strategy="contrastive",
        k=k,
        alpha=alpha,
        max_new_tokens=room,
    )
    for row in range(3):
        tokens = prompts[0][row][prompts[1][row]]
        start = len(tokens)
        while len(tokens) < start + room and (len(tokens) == start or tokens[-1] != EOS):
            with torch.no_grad():
                out = exact(tokens[None], output_hidden_states=True)
                p, candidates = out.logits[0, -1].softmax(-1).topk(k)
                longer = torch.cat([tokens.expand(k, -1), candidates[:, None]], dim=1)
                states = exact(longer, output_hidden_states=True).hidden_states[-1]
            unit = states / states.norm(dim=-1, keepdim=True)
            penalty = (unit[:, :-1] @ unit[:, -1:, :].mT).squeeze(-1).amax(dim=1)
            best = ((1 - alpha) * p - alpha * penalty).argmax()
            tokens = torch.cat([tokens, candidates[best : best + 1]])
        expected = tokens[start:].tolist()
        assert found[row, : len(expected)].tolist() == expected
