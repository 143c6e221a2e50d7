"""Captions both ways and sets of labels, against plain transcriptions."""

import torch

from rebus.core.labels import IGNORED, reversed_rows
from rebus.core.outputs import Predictions
from rebus.objectives.both_ways import BothWaysLoss, LabelSetLoss, label_set, token_mean


def test_rows_are_read_from_their_end_whichever_side_is_padded():
    tokens = torch.tensor([[7, 1, 5], [1, 6, 7], [8, 8, 1]])  # padded with anything
    mask = torch.tensor([[False, True, True], [True, True, False], [False, False, True]])
    targets = torch.tensor([[8, 2], [9, 2], [2, IGNORED]])
    inputs, real, wanted = reversed_rows(tokens, mask, targets)
    assert [row[r].tolist() for row, r in zip(inputs, real)] == [[2, 8, 5, 1], [2, 9, 6, 1], [2, 1]]
    assert wanted.tolist() == [
        [8, 5, 1, IGNORED], [9, 6, 1, IGNORED], [1, IGNORED, IGNORED, IGNORED],
    ]  # fmt: skip


def test_every_token_of_the_batch_counts_the_same():
    logits = torch.randn(2, 4, 11, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, 3, 4], [5, IGNORED, IGNORED, IGNORED]])
    chance = logits.double().softmax(-1)
    wanted = -sum(chance[b, s, targets[b, s]].log() for b, s in ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0))) / 5
    torch.testing.assert_close(token_mean(logits, targets).double(), wanted, atol=1e-6, rtol=0)
    assert token_mean(logits, torch.full_like(targets, IGNORED)) == 0


def test_labels_share_the_mass_of_their_row():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([[0, 3, 3], [2, IGNORED, IGNORED], [IGNORED] * 3])
    chance = logits.double().softmax(-1).log()
    wanted = -((chance[0, 0] + chance[0, 3]) / 2 + chance[1, 2]) / 2  # the row without labels counts nothing
    found = label_set(logits, labels)
    torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=0)
    found.backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[2] == 0).all()
    loss = LabelSetLoss()(lambda pixels: Predictions(pixels[:, None]), {"pixels": logits, "targets": labels})
    assert loss.total == found


def test_unknown_words_are_not_learned():
    logits = torch.randn(1, 3, 7, generator=torch.Generator().manual_seed(0))
    batch = {"pixels": torch.zeros(1), "tokens": torch.tensor([[1]]), "targets": torch.tensor([[4, 0, 2]])}
    out = Predictions(logits, backward=logits.flip(1))
    learned = BothWaysLoss()(lambda **_: out, batch)
    torch.testing.assert_close(learned.parts["forward"], token_mean(logits, torch.tensor([[4, IGNORED, 2]])))
    torch.testing.assert_close(learned.parts["backward"], token_mean(logits.flip(1), torch.tensor([[IGNORED, 4, 1]])))
    assert BothWaysLoss().examples(batch) == 2
    everything = BothWaysLoss(unknown=None)(lambda **_: out, batch)
    torch.testing.assert_close(everything.parts["forward"], token_mean(logits, batch["targets"]))
