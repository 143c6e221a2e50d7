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
    # FLOPs of an image of 49 patches and its 77 tokens of text, forward and back, by the sizes of the paper:
    # both towers have 12 blocks of 12 · width² weights
    image = 2 * (49 * 3072 * 768 + 12 * (50 * 12 * 768**2 + 2 * 50**2 * 768) + 768 * 512)
    text = 2 * (12 * (77 * 12 * 512**2 + 2 * 77**2 * 512) + 512 * 512)
    needed = 3 * (image + text) - 2 * 49 * 3072 * 768  # pixels get no gradient
    assert found.of(1000.0) == {"mfu": round(1000 * needed / (2 * 989.4e12), 4)}
    assert found.of(10_000.0)["mfu"] == pytest.approx(10_000 * needed / (2 * 989.4e12), rel=0.001)


def test_what_has_no_plan_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Utilisation(CLIP, Ranks(torch.device("cpu"))).of(10.0) == {}
    monkeypatch.setattr(utilisation, "accelerator_here", lambda: GPUS["h100"])
    assert Utilisation(replace(MASKS, bf16=True), Ranks(torch.device("cuda"))).of(10.0) == {}
