import pytest
import torch

from rebus.core.errors import NotFinite, UsageError
from rebus.generation import score, score_choices
from tests.generation.tiny_writer import PROMPTS, TinyWriter

CHOICES = torch.tensor(
    [
        [3, 4, 5, 1],
        [3, 4, 1, -100],
        [3, 4, 6, 1],
        [9, 1, -100, -100],
        [1, -100, -100, -100],
        [3, 4, 5, 1],
    ]
)


def full_forward(network, tokens, targets):
    logits = network(tokens=tokens, targets=targets).logits.log_softmax(-1)
    return (logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0] * (targets != -100)).sum(1)


@pytest.mark.parametrize("rows_at_once", [1, 4, 64])
def test_score_equals_the_full_forward(rows_at_once):
    network = TinyWriter()
    found = score(network, {"tokens": PROMPTS}, CHOICES, rows_at_once=rows_at_once)
    torch.testing.assert_close(found.total, full_forward(network, PROMPTS, CHOICES), atol=1e-5, rtol=0)
    assert found.length.tolist() == [4, 3, 4, 2, 1, 4]


@pytest.mark.parametrize("rows_at_once", [1, 5, 64])
def test_choices_are_scored_after_every_prompt(rows_at_once):
    network = TinyWriter()
    found = score_choices(network, {"tokens": PROMPTS[:3]}, CHOICES, rows_at_once=rows_at_once)
    for row, prompt in enumerate(PROMPTS[:3]):
        expected = full_forward(network, prompt.expand(len(CHOICES), -1), CHOICES)
        torch.testing.assert_close(found.total[row], expected, atol=1e-5, rtol=0)


def test_the_prompt_is_read_once_and_common_beginnings_are_shared():
    network = TinyWriter()
    score_choices(network, {"tokens": PROMPTS[:1]}, CHOICES)
    assert network.starts == 1
    assert network.rows_stepped == 2 + 1 + 2  # {3, 9}, {3 4}, {3 4 5, 3 4 6}


def test_probabilities_of_all_texts_sum_to_one():
    every_token = torch.arange(13)[:, None]
    total = score_choices(TinyWriter(), {"tokens": PROMPTS}, every_token).total
    torch.testing.assert_close(total.exp().sum(1), torch.ones(6))


def test_a_gap_in_the_targets_is_refused():
    with pytest.raises(UsageError, match="on the right only"):
        score(TinyWriter(), {"tokens": PROMPTS[:1]}, torch.tensor([[3, -100, 4]]))


def test_targets_want_one_row_a_prompt():
    with pytest.raises(UsageError, match="targets expects 6 rows, one per prompt; got 2"):
        score(TinyWriter(), {"tokens": PROMPTS}, CHOICES[:2])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_likelihood_that_is_not_a_number_is_refused(value):
    network = TinyWriter()
    with torch.no_grad():
        network.head.bias[5] = value
    with pytest.raises(NotFinite, match=r"likelihood.*float32"):
        score(network, {"tokens": PROMPTS}, CHOICES)
    with pytest.raises(NotFinite, match=r"likelihood.*float32"):
        score_choices(network, {"tokens": PROMPTS}, CHOICES)
