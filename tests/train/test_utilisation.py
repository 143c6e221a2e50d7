"""The share of a GPU's arithmetic: from the planner's FLOPs and the data sheet's peak."""

from dataclasses import replace

import pytest
import torch

from rebus.plan.hardware import GPUS
from rebus.recipes import recipe
from rebus.train import utilisation
from rebus.train.distributed import Ranks
from rebus.train.setup import resolved
from rebus.train.utilisation import Utilisation
from tests.train.settings import CLIP, MASKS


def test_half_the_peak_is_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilisation, "accelerator_here", lambda: GPUS["h100"])
    two = Ranks(torch.device("cuda"), ranks=2)
    found = Utilisation(resolved(recipe("clip_b32")), two)
    forward = found.example / 3
    assert forward == pytest.approx(14.8e9, rel=0.05)  # FLOPs of an image and its text: 2 · 7.4 G multiply-adds
    assert found.of(0.5 * 2 * 989.4e12 / found.example) == {"mfu": 0.5}


def test_what_has_no_plan_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Utilisation(CLIP, Ranks(torch.device("cpu"))).of(10.0) == {}
    monkeypatch.setattr(utilisation, "accelerator_here", lambda: GPUS["h100"])
    assert Utilisation(replace(MASKS, bf16=True), Ranks(torch.device("cuda"))).of(10.0) == {}
