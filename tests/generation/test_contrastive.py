import pytest
import torch

from rebus.core.errors import UsageError
from rebus.generation import generate
from tests.generation.tiny_writer import EOS, PAD, PROMPTS, TinyWriter


def contrastive(network, tokens, **options):
    options = {"max_new_tokens": 8, "strategy": "contrastive"} | options
    return generate(network, {"tokens": tokens}, eos_id=EOS, pad_id=PAD, **options)


def transcribed(network, prompt, k, alpha, length, min_p=0.0):
    """Eq. 5 of the paper in float64, each candidate read from the start, by hand."""
    tokens = prompt.tolist()
    states = [network.start(room=9, tokens=prompt[None]).hidden[0]]
    for _ in range(length):
        probability = network.start(room=9, tokens=torch.tensor([tokens])).logits[0].softmax(-1)
        best, best_score, best_state = None, float("-inf"), None
        for v in probability.topk(k).indices.tolist():
            if probability[v] < min_p * probability.max():
                continue
            state = network.start(room=9, tokens=torch.tensor([[*tokens, v]])).hidden[0]
            likeness = max(torch.cosine_similarity(state, seen, dim=0).item() for seen in states)
            score = (1 - alpha) * probability[v].item() - alpha * likeness
            if score > best_score:
                best, best_score, best_state = v, score, state
        tokens.append(best)
        states.append(best_state)
        if best == EOS:
            break
    return tokens[len(prompt) :]


@pytest.mark.parametrize("seed", range(4))
def test_alpha_zero_is_greedy(seed):
    network = TinyWriter(seed)
    greedy = generate(network, {"tokens": PROMPTS}, eos_id=EOS, pad_id=PAD, max_new_tokens=8)
    assert torch.equal(contrastive(network, PROMPTS, alpha=0.0), greedy)


def test_k_one_is_greedy():
    network = TinyWriter()
    greedy = generate(network, {"tokens": PROMPTS}, eos_id=EOS, pad_id=PAD, max_new_tokens=8)
    assert torch.equal(contrastive(network, PROMPTS, k=1, alpha=0.6), greedy)


@pytest.mark.parametrize(("alpha", "min_p"), [(0.2, 0.0), (0.6, 0.0), (1.0, 0.0), (0.6, 0.7), (1.0, 0.5)])
def test_equals_the_formula_of_the_paper(alpha, min_p):
    network = TinyWriter(5).double()
    found = contrastive(network, PROMPTS, k=4, alpha=alpha, min_p=min_p)
    assert min_p == 0 or not torch.equal(found, contrastive(network, PROMPTS, k=4, alpha=alpha))
    for row, prompt in zip(found.tolist(), PROMPTS, strict=True):
        expected = transcribed(network, prompt, 4, alpha, 8, min_p)
        assert row[: len(expected)] == expected


def test_the_network_is_stepped_once_a_token():
    network = TinyWriter()
    tokens = generate(
        network, {"tokens": PROMPTS}, eos_id=None, pad_id=PAD, max_new_tokens=5, strategy="contrastive", k=3
    )
    assert tokens.shape == (6, 5)
    assert network.rows_stepped == 5 * 3 * len(PROMPTS)


def test_min_p_of_one_leaves_the_most_probable_token():
    network = TinyWriter()
    greedy = generate(network, {"tokens": PROMPTS}, eos_id=EOS, pad_id=PAD, max_new_tokens=8)
    assert torch.equal(contrastive(network, PROMPTS, k=5, alpha=1.0, min_p=1.0), greedy)
    with pytest.raises(UsageError, match="min_p must be between 0 and 1"):
        contrastive(network, PROMPTS, min_p=1.5)


def test_prompt_states_count_where_the_network_shows_them():
    class Open(TinyWriter):
        def start(self, **batch):
            step = super().start(**batch)
            tokens = batch["tokens"]
            states = [super(Open, self).start(room=1, tokens=tokens[:, : n + 1]).hidden for n in range(tokens.shape[1])]
            return step._replace(hidden=torch.stack(states, dim=1))

    closed, opened = (contrastive(cls(5), PROMPTS, k=5, alpha=0.9) for cls in (TinyWriter, Open))
    assert not torch.equal(closed, opened)
    mask = torch.tensor([[False, False, True]] * 6)  # what is not real is not context: the last state is left
    tokens = torch.cat([torch.zeros(6, 2, dtype=torch.int64), PROMPTS[:, -1:]], dim=1)
    a = contrastive(TinyWriter(5), PROMPTS[:, -1:], k=5, alpha=0.9)
    b = generate(
        Masked(5), {"tokens": tokens, "mask": mask}, eos_id=EOS, pad_id=PAD, max_new_tokens=8,
        strategy="contrastive", k=5, alpha=0.9,
    )  # fmt: skip
    assert torch.equal(a, b)


class Masked(TinyWriter):
    """Shows a state at every position, nonsense at the padded ones."""

    def start(self, **batch):
        step = super().start(**batch)
        hidden = step.hidden[:, None].expand(-1, batch["tokens"].shape[1], -1).clone()
        hidden[:, :-1] *= -1
        return step._replace(hidden=hidden)
