import math

import pytest
import torch

from rebus.core.labels import IGNORED
from rebus.core.outputs import Reading
from rebus.objectives import Learner, MaskedLMLoss, backward, make_blanks, masked_lm, matching, split


def test_blanks_are_asked_as_often_and_filled_as_the_paper_says() -> None:
    tokens = torch.arange(10, 110).repeat(400, 1)
    allowed = torch.ones_like(tokens, dtype=torch.bool)
    allowed[:, :20] = False
    generator = torch.Generator().manual_seed(0)
    made = make_blanks(tokens, allowed, mask_id=3, vocab_size=200, generator=generator)
    asked = made.targets != -100
    assert not asked[:, :20].any()
    assert torch.equal(made.targets[asked], tokens[asked])
    assert torch.equal(made.tokens[~asked], tokens[~asked])
    assert float(asked[:, 20:].float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float((made.tokens == 3)[asked].float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((made.tokens == tokens)[asked].float().mean()) == pytest.approx(0.1, abs=0.02)
    again = make_blanks(tokens, allowed, mask_id=3, vocab_size=200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.tokens, made.tokens)


def test_only_asked_tokens_count_each_the_same() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 3, 5), torch.tensor([[1, -100, 2], [-100, -100, 4]])
    rows = [(0, 0, 1), (0, 2, 2), (1, 2, 4)]
    expected = sum(-float(logits[b, i].log_softmax(0)[t]) for b, i, t in rows) / 3
    assert float(masked_lm(logits, targets)) == pytest.approx(expected, rel=1e-6)
    assert float(masked_lm(logits, torch.full((2, 3), -100))) == 0.0


def test_matching_reads_the_second_logit_as_fits() -> None:
    logits = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    right = matching(logits, torch.tensor([True, False]))
    assert float(right) == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-3))) / 2, rel=1e-6)
    assert matching(logits, torch.tensor([False, True])) > right


def test_the_gradients_of_a_batch_in_parts_are_those_of_the_whole():
    """The two means are over different things: parts have as many rows, and other numbers of asked words."""

    class Reader(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.pairs = torch.nn.Embedding(11, 11), torch.nn.Embedding(11, 2)

        def forward(self, tokens, types):
            return Reading(self.words(tokens) + types[..., None], self.pairs(tokens).mean(dim=1))

    torch.manual_seed(0)
    network = Reader().double()
    tokens = torch.randint(0, 11, (12, 5))
    asked = torch.rand(12, 5) < torch.linspace(0, 0.9, 12)[:, None]
    batch = {
        "tokens": tokens,
        "types": torch.zeros_like(tokens),
        "blanks": torch.where(asked, tokens.flip(0), IGNORED),
        "fits": torch.rand(12) < 0.3,
    }

    def found(parts, **settings):
        network.zero_grad()
        losses = backward(Learner(MaskedLMLoss(**settings), network), split(batch, parts))
        return losses, [p.grad.clone() for p in network.parameters() if p.grad is not None]

    for settings in ({}, {"match": 0.3}, {"match": 0.0}):
        whole, expected = found(1, **settings)
        for parts in (2, 4):
            losses, gradients = found(parts, **settings)
            torch.testing.assert_close(losses.total, whole.total)
            torch.testing.assert_close(dict(losses.parts), dict(whole.parts))
            torch.testing.assert_close(gradients, expected)
        assert float(whole.total) == pytest.approx(float(MaskedLMLoss(**settings)(network, batch).total.detach()))
