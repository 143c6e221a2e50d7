"""Muon: orthogonal steps, the same as PyTorch's own."""

import warnings

import torch
from torch import nn

from rebus.train.muon import Muon, orthogonal


def test_singular_values_move_close_to_one() -> None:
    torch.manual_seed(0)
    for sides in ((6, 20), (20, 6)):
        x = torch.randn(3, *sides)
        values = torch.linalg.svdvals(orthogonal(x))
        assert values.min() > 0.3
        assert values.max() < 1.3
        together = torch.einsum("nrc,nrc->n", orthogonal(x), x)
        assert (together > 0).all()
    alone = torch.cat([orthogonal(matrix[None]) for matrix in x])
    torch.testing.assert_close(alone, orthogonal(x))


def test_steps_are_those_of_pytorch_but_for_its_bfloat16() -> None:
    torch.manual_seed(0)
    starts = [torch.randn(shape) for shape in ((8, 16), (16, 8), (8, 16), (8, 8))]
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    with warnings.catch_warnings(action="ignore"):
        optimisers = (
            Muon(ours, lr=0.01, weight_decay=0.1),
            torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        )
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for a, b, start in zip(ours, theirs, starts, strict=True):
        assert (a - b).abs().max() < 0.03 * (a - start).abs().max()


def test_parameters_without_a_gradient_stay() -> None:
    moving, still = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
    optimiser = Muon([moving, still])
    moving.grad = torch.ones(2, 3)
    optimiser.step()
    assert torch.equal(still, torch.ones(2, 3))
    assert not torch.equal(moving, torch.ones(2, 3))
