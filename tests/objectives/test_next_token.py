"""Next-token loss: per example first, then over the batch."""

import pytest
import torch
from torch.nn import functional as F

from rebus.core.outputs import Predictions
from rebus.objectives import NextTokenLoss, next_token


def test_each_example_counts_the_same() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 7)
    targets = torch.tensor([[1, -100, -100, -100], [2, 3, 4, 5]])
    first = F.cross_entropy(logits[0, :1], targets[0, :1])
    second = F.cross_entropy(logits[1], targets[1])
    assert float(next_token(logits, targets)) == pytest.approx(float((first + second) / 2), rel=1e-6)


def test_rows_without_targets_count_nothing() -> None:
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[1, 2, -100], [-100, -100, -100]])
    assert float(next_token(logits, targets)) == pytest.approx(float(next_token(logits[:1], targets[:1])))


def test_smoothing_spreads_over_the_whole_vocabulary() -> None:
    logits, targets = torch.randn(1, 1, 5), torch.tensor([[2]])
    logs = logits[0, 0].log_softmax(-1)
    expected = -(0.7 * logs[2] + 0.3 * logs.mean())
    assert float(next_token(logits, targets, 0.3)) == pytest.approx(float(expected), rel=1e-5)


def test_pictures_with_several_prompts_are_seen_once() -> None:
    seen_rows = []

    class Writer:
        def see(self, pixels: torch.Tensor) -> torch.Tensor:
            seen_rows.append(len(pixels))
            return pixels[:, None]

        def __call__(self, *, seen: torch.Tensor, tokens: torch.Tensor, targets: torch.Tensor) -> Predictions:
            assert seen[:, 0].tolist() == [[0.0], [0.0], [1.0], [1.0]]
            return Predictions(F.one_hot(targets, 3).float() * 50)

    batch = {
        "pixels": torch.tensor([[0.0], [1.0]]),
        "tokens": torch.zeros(4, 2, dtype=torch.long),
        "targets": torch.tensor([[1], [2], [0], [1]]),
    }
    losses = NextTokenLoss()(Writer(), batch)
    assert seen_rows == [2]
    assert float(losses.parts["whole"]) == 1.0


def test_z_loss_is_the_square_of_the_log_of_the_sum() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 3, 7), torch.tensor([[1, 2, -100], [3, -100, -100]])
    z = logits.logsumexp(-1).square()
    expected = next_token(logits, targets) + 0.01 * ((z[0, 0] + z[0, 1]) / 2 + z[1, 0]) / 2
    torch.testing.assert_close(next_token(logits, targets, z_loss=0.01), expected)
