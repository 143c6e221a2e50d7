"""Next-token loss: per example first, then over the batch."""

import pytest
import torch
from torch.nn import functional as F

from rebus.core.outputs import Predictions
from rebus.objectives import NextTokenLoss, next_token
from rebus.objectives.next_token import hits


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


def test_rows_of_the_batch_go_to_the_network_as_they_are() -> None:
    class Network:
        def __call__(self, **batch: torch.Tensor) -> Predictions:
            assert batch.keys() == {"pixels", "image_mask", "tokens", "targets", "owners"}
            assert batch["owners"].tolist() == [1, 0, 1]
            return Predictions(F.one_hot(batch["targets"].clamp(min=0), 3).float() * 50)

    batch = {
        "pixels": torch.zeros(2, 1, 3, 4, 4),
        "image_mask": torch.ones(2, 1, dtype=torch.bool),
        "owners": torch.tensor([1, 0, 1]),
        "tokens": torch.zeros(3, 2, dtype=torch.long),
        "targets": torch.tensor([[1], [2], [0]]),
        "names": torch.zeros(2, 1),
    }
    assert float(NextTokenLoss()(Network(), batch).parts["whole"]) == 1.0


def test_a_row_without_targets_is_not_right_throughout() -> None:
    targets = torch.tensor([[1, 2], [1, -100], [-100, -100]])
    logits = F.one_hot(torch.tensor([[1, 2], [0, 0], [0, 0]]), 3).float()
    found = hits(logits, targets)
    assert float(found["whole"]) == 0.5
    assert float(found["accuracy"]) == pytest.approx(2 / 3)
    assert float(hits(logits, torch.full_like(targets, -100))["whole"]) == 0.0


def test_z_loss_is_the_square_of_the_log_of_the_sum() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 3, 7), torch.tensor([[1, 2, -100], [3, -100, -100]])
    z = logits.logsumexp(-1).square()
    expected = next_token(logits, targets) + 0.01 * ((z[0, 0] + z[0, 1]) / 2 + z[1, 0]) / 2
    torch.testing.assert_close(next_token(logits, targets, z_loss=0.01), expected)


def test_text_has_its_share_in_rows_that_have_images_too() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 9)
    targets = torch.tensor([[1, 5, 6, 7], [1, 2, -100, -100], [5, 6, 7, 5]])  # codes from 5 on; 8 marks an image
    marked = torch.where(targets >= 5, 8, targets)

    class Network:
        def __call__(self, **batch: torch.Tensor) -> Predictions:
            return Predictions(logits, targets=targets)

    both = 0.2 * next_token(logits[:1, :1], targets[:1, :1]) + 0.8 * next_token(logits[:1, 1:], targets[:1, 1:])
    expected = (both + next_token(logits[1:2], targets[1:2]) + next_token(logits[2:], targets[2:])) / 3
    batch = {"targets": marked}
    torch.testing.assert_close(NextTokenLoss(text_share=0.2)(Network(), batch).total, expected)
    torch.testing.assert_close(NextTokenLoss()(Network(), batch).total, next_token(logits, targets))
