"""The contrastive token loss: a plain transcription, and what it does to a language model's states."""

import pytest
import torch
from torch.nn import functional as F

from rebus.backbones.text import gpt2
from rebus.core.errors import UsageError
from rebus.core.outputs import Predictions
from rebus.objectives import ContrastiveTokenLoss, contrastive_tokens
from rebus.objectives.accumulate import Learner, backward


def plainly(logits, hidden, targets, margin):
    """SimCTG, eqs. 2 and 3, token by token and pair by pair."""
    likelihoods, pairs = [], []
    for row, (states, wanted) in enumerate(zip(hidden, targets.tolist(), strict=True)):
        length = sum(target >= 0 for target in wanted)
        likelihoods += [-logits[row, at].log_softmax(-1)[wanted[at]] for at in range(length)]
        for i in range(length):
            for j in range(length):
                if i != j:
                    alike = F.cosine_similarity(states[i], states[j], dim=0)
                    own = F.cosine_similarity(states[i], states[i], dim=0)
                    pairs.append((margin - own + alike).clamp(min=0))
    return torch.stack(likelihoods).mean() + torch.stack(pairs).mean()


def test_the_loss_is_that_of_the_paper():
    torch.manual_seed(0)
    logits, hidden = torch.randn(3, 5, 7), torch.randn(3, 5, 4)
    targets = torch.tensor([[1, 2, 3, 4, 5], [6, 0, -100, -100, -100], [2, -100, -100, -100, -100]])
    for margin in (0.2, 0.5, 1.0):
        losses = ContrastiveTokenLoss(margin=margin)(lambda **_: Predictions(logits, hidden), {"targets": targets})
        torch.testing.assert_close(losses.total, plainly(logits, hidden, targets, margin))
        torch.testing.assert_close(losses.total, losses.parts["next_token"] + losses.parts["apart"])


def test_padding_and_lone_tokens_are_no_pairs():
    hidden = torch.randn(2, 3, 4)
    lone = torch.tensor([[True, False, False], [True, False, False]])
    assert float(contrastive_tokens(hidden, lone)) == 0
    two = torch.tensor([[True, True, False], [True, False, False]])
    same = contrastive_tokens(hidden[:1, :2], torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(contrastive_tokens(hidden, two), same)


def test_states_of_a_language_model_are_moved_apart():
    torch.manual_seed(0)
    network = gpt2.GPT2(gpt2.PRESETS["tiny"])
    torch.nn.init.constant_(network.norm.bias, 2.0)  # all of them point the same way
    batch = {"tokens": torch.full((4, 1), 95), "targets": torch.randint(3, 90, (4, 8))}
    batch["targets"][1, 5:] = -100
    learner = Learner(ContrastiveTokenLoss(), network)
    first = learner(batch).parts
    backward(learner, [batch])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 1e-3 * parameter.grad
    now = learner(batch).parts
    assert now["apart"] < first["apart"]
    assert now["next_token"] < first["next_token"]


def test_a_network_that_shows_no_states_is_refused_and_so_is_a_divided_batch():
    network = torch.nn.Linear(1, 1)
    network.forward = lambda **_: Predictions(torch.randn(2, 3, 5))
    batch = {"targets": torch.ones(2, 3, dtype=torch.int64)}
    with pytest.raises(UsageError, match="is for language models"):
        ContrastiveTokenLoss()(network, batch)
    with pytest.raises(UsageError, match="accumulate must be 1"):
        backward(Learner(ContrastiveTokenLoss(), network), [batch, batch])
