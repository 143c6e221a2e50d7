import pytest
import torch
from torch.nn import functional as F

from rebus.core.outputs import Choices, Reading
from rebus.objectives import AnswerLoss, MaskedLMLoss, masked_lm, matching, soft_answers


def test_one_right_answer_is_cross_entropy():
    torch.manual_seed(0)
    logits, right = torch.randn(5, 7), torch.tensor([0, 3, 6, 2, 2])
    torch.testing.assert_close(soft_answers(logits, F.one_hot(right, 7)), F.cross_entropy(logits, right))


def test_scores_need_not_sum_to_one_and_nothing_right_costs_nothing():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.1, 2.0]])
    scores = torch.tensor([[0.3, 0.0, 1.0], [0.0, 0.0, 0.0]])
    log_p = logits[0].log_softmax(0)
    wanted = (0.3 * (torch.tensor(0.3).log() - log_p[0]) + 1.0 * (0 - log_p[2])) / 2
    torch.testing.assert_close(soft_answers(logits, scores), wanted)


def test_equals_the_reference_of_phrases():
    """A uniform target over the matching regions, zeros for a phrase without one; the mean is over images."""
    torch.manual_seed(0)
    logits, scores = torch.randn(2, 3, 4), torch.zeros(2, 3, 4)
    scores[0, 0, :2], scores[1, 2, 3] = 0.5, 1.0
    wanted = torch.nn.KLDivLoss(reduction="batchmean")(logits.log_softmax(-1), scores)
    torch.testing.assert_close(soft_answers(logits, scores), wanted)


def test_the_objective_keeps_its_labels_from_the_network():
    seen = {}

    def network(**batch):
        seen.update(batch)
        return Choices(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))

    batch = {"tokens": torch.ones(2, 3), "scores": torch.tensor([[0.0, 0.6], [0.0, 1.0]])}
    losses = AnswerLoss()(network, batch)
    assert set(seen) == {"tokens"}
    assert float(losses.parts["accuracy"]) == pytest.approx(0.3)  # what the picked answers are worth
    assert AnswerLoss().examples(batch) == 2


def test_blanks_and_matching_add_up():
    torch.manual_seed(0)
    tokens, fits = torch.randn(2, 4, 9), torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    blanks = torch.tensor([[-100, 3, -100, 5], [-100] * 4])
    batch = {"tokens": torch.ones(2, 4), "blanks": blanks, "fits": torch.tensor([True, True])}
    network = lambda **given: Reading(tokens, fits)  # noqa: E731
    both = MaskedLMLoss()(network, batch)
    words = masked_lm(tokens, blanks)
    torch.testing.assert_close(both.total, words + matching(fits, batch["fits"]))
    assert float(both.parts["matched"]) == 0.5
    torch.testing.assert_close(MaskedLMLoss(match=0.0)(network, batch).total, words)
