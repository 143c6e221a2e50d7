"""BatchNorm over several ranks is that of all rows together, with exact gradients."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from rebus.nn.batch_norm import SynchronisedBatchNorm, batch_norms, statistics_held
from tests.train.ranks import together

ROWS = (1, 4)  # on each rank
KINDS = {
    "images": (lambda: nn.BatchNorm2d(3), (3, 2, 2)),
    "rows": (lambda: nn.BatchNorm1d(3, affine=False), (3,)),
    "sequences, plain mean": (lambda: nn.BatchNorm1d(3, momentum=None), (3, 5)),
}


def setting(kind: str) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    make, shape = KINDS[kind]
    norm = make().double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm, [torch.randn(n, *shape, dtype=torch.float64) + 2 for n in ROWS]


def loss(y: Tensor) -> Tensor:
    return (y**3).sum()


def found(norm: nn.Module, rows: Tensor, number: int) -> dict[str, Tensor]:
    """What two steps give: outputs, gradients, running statistics."""
    rows = rows.clone().requires_grad_()
    norm(rows.detach() * 2)
    y = norm(rows)
    (number * loss(y)).backward()  # as objectives do: the mean over the ranks is the gradient of the whole
    assert rows.grad is not None
    grads = {name: p.grad for name, p in norm.named_parameters() if p.grad is not None}
    norm.eval()
    return {
        "y": y.detach(),
        "rows": rows.grad / number,
        "seen": norm(rows).detach(),
        **grads,
        **dict(norm.named_buffers()),
    }


def test_two_ranks_normalise_as_one(tmp_path: Path) -> None:
    together(len(ROWS), tmp_path, save_each, tmp_path)
    for kind in KINDS:
        norm, rows = setting(kind)
        whole = found(norm, torch.cat(rows), 1)
        parts = [torch.load(tmp_path / f"{kind}{rank}.pt") for rank in range(len(ROWS))]
        for name, wanted in whole.items():
            got = [part[name] for part in parts]
            if name in ("y", "rows", "seen"):
                torch.testing.assert_close(torch.cat(got), wanted, rtol=1e-10, atol=1e-10)
            elif name in ("weight", "bias"):
                torch.testing.assert_close((got[0] + got[1]) / 2, wanted, rtol=1e-10, atol=1e-10)
            else:
                torch.testing.assert_close(got, [wanted, wanted], rtol=1e-10, atol=1e-10)


def save_each(folder: Path) -> None:
    rank = dist.get_rank()
    for kind in KINDS:
        norm: Any = setting(kind)[0]
        own = norm.state_dict().keys()
        norm = SynchronisedBatchNorm(norm)
        assert norm.state_dict().keys() == own
        torch.save(found(norm, setting(kind)[1][rank], len(ROWS)), folder / f"{kind}{rank}.pt")


def test_what_is_seen_twice_is_counted_once() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(2, 3, 4, 4)
    with statistics_held(network):
        held = network(x)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network(x), held)
    assert int(network.state_dict()["0.num_batches_tracked"]) == 1
    assert list(batch_norms(network)) == ["0"]
