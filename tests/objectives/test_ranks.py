"""Losses over several processes equal those of one: value and gradients, for batches of unequal size."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn import functional as F

from rebus.core.outputs import Embeddings
from rebus.objectives import Contrast, sigmoid_contrastive, softmax_contrastive

PICTURES = (3, 5, 2, 4)  # on each rank
CAPTIONS = (1, 2, 1, 3)  # of each image on each rank


def data() -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    torch.manual_seed(0)
    images = [torch.randn(n, 6, dtype=torch.float64) for n in PICTURES]
    texts = [torch.randn(n * c, 6, dtype=torch.float64) for n, c in zip(PICTURES, CAPTIONS, strict=True)]
    owners = [torch.arange(n).repeat_interleave(c) for n, c in zip(PICTURES, CAPTIONS, strict=True)]
    groups = [torch.tensor([[3], [7], [9]]), torch.arange(5)[:, None], torch.tensor([[7], [9]]), torch.full((4, 1), 9)]
    return images, texts, owners, groups


def weights() -> list[Tensor]:
    torch.manual_seed(1)
    drawn = [torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)]
    return [part.requires_grad_() for part in (*drawn, torch.tensor(1.2).double(), torch.tensor(-0.7).double())]


def losses(image: Tensor, text: Tensor, owners: Tensor, groups: Tensor, w: list[Tensor]) -> list[Contrast]:
    """Both losses over all captions, with and without rows that are the same; the softmax over one caption each."""
    seen, read = F.normalize(image @ w[0], dim=1), F.normalize(text @ w[1], dim=1)
    first = torch.tensor([int((owners == i).nonzero()[0, 0]) for i in range(len(image))])
    one, all_texts = Embeddings(seen, read[first], w[2].exp()), Embeddings(seen, read, w[2].exp(), w[3])
    return [
        softmax_contrastive(one),
        softmax_contrastive(one, 0.1, groups=groups),
        softmax_contrastive(all_texts, owners=owners),
        sigmoid_contrastive(all_texts, owners, chunk=2),
        sigmoid_contrastive(all_texts, owners, 2, groups),
    ]


def found(parts: list[Contrast], w: list[Tensor]) -> list[Tensor]:
    """Values, accuracies, and the gradients of all losses."""
    grads: list[Tensor] = []
    for part in parts:
        grads += [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(w, torch.autograd.grad(part.loss, w, retain_graph=True, allow_unused=True), strict=True)
        ]
    return [part.loss.detach() for part in parts] + [part.accuracy.double() for part in parts] + grads


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=len(PICTURES))
    images, texts, owners, groups = data()
    w = weights()
    results = found(losses(images[rank], texts[rank], owners[rank], groups[rank], w), w)
    for grad in results[10:]:
        dist.all_reduce(grad)
        grad /= len(PICTURES)  # as DDP does
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_four_ranks_equal_one(tmp_path: Path) -> None:
    mp.spawn(run, (str(tmp_path),), nprocs=len(PICTURES))
    images, texts, owners, groups = data()
    starts = [sum(PICTURES[:rank]) for rank in range(len(PICTURES))]
    together = torch.cat([own + start for own, start in zip(owners, starts, strict=True)])
    w = weights()
    expected = found(losses(torch.cat(images), torch.cat(texts), together, torch.cat(groups), w), w)
    for rank in range(len(PICTURES)):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for ours, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
