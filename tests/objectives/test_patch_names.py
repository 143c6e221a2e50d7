"""Naming patches: who knows everything has nearly no loss, and the tower learns with or without words."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from rebus.core.labels import IGNORED
from rebus.core.outputs import Predictions
from rebus.objectives import SeeAndSpeakLoss, patch_names

KINDS = (7, 8, 3, 3, 5)


def truth() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    names = torch.stack([torch.randint(k, (2, 4)) for k in KINDS], dim=-1)
    return {"names": names, "present": torch.tensor([[True, False, True, True]] * 2), "boxes": torch.rand(2, 4, 4)}


def perfect(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    scores = [50.0 * F.one_hot(batch["names"][..., i], k) for i, k in enumerate(KINDS)]
    return torch.cat([*scores, 50.0 * (2.0 * batch["present"] - 1)[..., None], batch["boxes"]], dim=-1)


def test_knowing_everything_costs_nothing() -> None:
    batch = truth()
    loss = patch_names(perfect(batch), batch["names"], batch["present"], batch["boxes"], KINDS)
    assert float(loss) < 1e-6


def test_patches_without_an_object_need_no_names() -> None:
    batch = truth()
    scores = perfect(batch)
    scores[:, 1, : sum(KINDS)] = torch.randn(2, sum(KINDS))
    scores[:, 1, -4:] = 9.0
    assert float(patch_names(scores, batch["names"], batch["present"], batch["boxes"], KINDS)) < 1e-6


def test_what_a_thing_has_not_is_not_asked_of_it() -> None:
    batch = truth()
    batch["names"][0, :, 1] = IGNORED
    scores = perfect({**batch, "names": batch["names"].clamp(min=0)})
    scores[0, :, 7:15] = torch.randn(4, 8)
    assert float(patch_names(scores, batch["names"], batch["present"], batch["boxes"], KINDS)) < 1e-6
    batch["names"][..., 1] = IGNORED  # nothing here has it
    assert float(patch_names(scores, batch["names"], batch["present"], batch["boxes"], KINDS)) < 1e-6
    scores[0, 0, :7] = -scores[0, 0, :7]  # one of six is wrong
    loss = patch_names(scores, batch["names"], batch["present"], batch["boxes"], KINDS)
    assert abs(float(loss) - 50 / 6) < 0.5


class Writer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Module()
        self.image.cfg = SimpleNamespace(width=6)
        self.positions = nn.Parameter(torch.zeros(4, 6))
        self.image_proj = nn.Linear(6, 5)

    def look(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(2).mean(2)[:, :1, None].expand(-1, 4, 6) + self.positions

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return self.image_proj(features)

    def forward(
        self, *, tokens: torch.Tensor, seen: torch.Tensor, owners: torch.Tensor, **_: torch.Tensor
    ) -> Predictions:
        assert (len(seen), owners.tolist()) == (2, [0, 0, 1, 1])
        return Predictions(seen[owners][:, :2])


def test_the_tower_learns_with_and_without_words() -> None:
    writer, objective, batch = Writer(), SeeAndSpeakLoss(), truth() | {"pixels": torch.randn(2, 3, 2, 2)}
    objective.extend(writer)
    alone = objective(writer, batch)
    alone.total.backward()
    assert writer.image_proj.weight.grad is None
    assert writer.get_parameter("patch_head.weight").grad is not None
    words = {"tokens": torch.zeros(4, 3, dtype=torch.long), "mask": torch.ones(4, 3, dtype=torch.bool)}
    words |= {"targets": torch.tensor([[1, 2], [3, -100], [0, 1], [2, 2]]), "owners": torch.tensor([0, 0, 1, 1])}
    both = objective(writer, batch | words)
    both.total.backward()
    assert writer.image_proj.weight.grad is not None
    assert float(both.total.detach()) > float(objective.share * alone.total.detach())
