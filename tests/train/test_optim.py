"""Optimisers: LAMB as the paper writes it, SGD, and rates by part."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rebus.core.errors import UnknownName, UsageError
from rebus.recipes import recipe
from rebus.train import Optim, TrainConfig, override, train
from rebus.train.lamb import LAMB
from rebus.train.optim import make_optimisers, rates_of, set_rate
from tests.train.settings import CLIP


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"image": nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), "text": nn.Linear(4, 2)}).double()


def lamb(x: Tensor, grads: list[Tensor], lr: float, decay: float) -> Tensor:
    """Algorithm 2, line by line."""
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for t, g in enumerate(grads, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        r = (m / (1 - 0.9**t)) / ((v / (1 - 0.98**t)).sqrt() + 1e-6) + decay * x
        x = x - lr * x.norm() / r.norm() * r
    return x


def test_lamb_is_the_papers() -> None:
    torch.manual_seed(0)
    for shape in ((5, 3), (4, 3, 2, 2)):
        parameter = nn.Parameter(torch.randn(shape, dtype=torch.float64))
        start, grads = parameter.detach().clone(), [torch.randn(shape, dtype=torch.float64) for _ in range(4)]
        optimiser = LAMB([parameter], lr=0.1, betas=(0.9, 0.98), weight_decay=0.3)
        for grad in grads:
            parameter.grad = grad
            optimiser.step()
        torch.testing.assert_close(parameter.detach(), lamb(start, grads, 0.1, 0.3), rtol=1e-12, atol=1e-12)


def test_lamb_moves_vectors_as_adam_does_and_leaves_no_zeros() -> None:
    ours, theirs = (nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(2))
    zeros = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimisers = (
        LAMB([ours, zeros], lr=0.1, betas=(0.9, 0.98)),
        torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.98), eps=1e-6),
    )
    for step in range(3):
        ours.grad = theirs.grad = torch.arange(4.0).double() - step
        zeros.grad = torch.ones(2, 2).double()
        for optimiser in optimisers:
            optimiser.step()
    torch.testing.assert_close(ours, theirs)
    assert (zeros < 0).all()


def moved(optim: Optim) -> dict[str, Tensor]:
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimisers = make_optimisers(model, optim)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rate(optimisers, 0.1)
    for optimiser in optimisers:
        optimiser.step()
    return {name: p.detach() - before[name] for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", ["adamw", "lamb", "sgd"])
def test_parts_learn_at_their_own_rates(kind: str) -> None:
    optim = Optim(kind=kind)  # type: ignore[arg-type]
    plain = moved(optim)
    parts = moved(replace(optim, rates=(("image.1", 0.5), ("image", 0.1))))  # the smaller part counts
    for name, move in plain.items():
        times = 0.5 if name.startswith("image.1") else 0.1 if name.startswith("image") else 1.0
        torch.testing.assert_close(parts[name], times * move)


def test_only_matrices_decay_whatever_the_rates() -> None:
    model = network()
    for optim in (Optim(weight_decay=0.2), Optim(kind="sgd", weight_decay=0.2, rates=(("text", 2.0),))):
        for group in make_optimisers(model, optim)[0].param_groups:
            assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}


def test_settings_that_do_not_fit_are_refused() -> None:
    model = network()
    with pytest.raises(UnknownName, match='no part of the network "imag"; did you mean "image"'):
        rates_of(model, (("imag", 0.1),))
    with pytest.raises(UsageError, match=r"text at 0 times the rate; .* freeze"):
        rates_of(model, (("text", 0.0),))
    for optim, said in (
        (Optim(nesterov=True), "for optim.kind=sgd; this is adamw"),
        (Optim(kind="lamb", momentum=0.5), "for optim.kind=sgd; this is lamb"),
        (Optim(kind="sgd", matrices="muon"), "goes with optim.kind=adamw"),
        (Optim(kind="sgd", nesterov=True, momentum=0.0), "needs optim.momentum above 0"),
    ):
        with pytest.raises(UsageError, match=said):
            make_optimisers(model, optim)


def test_an_optimiser_is_a_setting() -> None:
    config = override(
        recipe("clip_scenes"),
        ["optim.nesterov=true", "optim.kind=sgd", 'optim.rates=[["image", 0.1]]', "optim.matrices=adam"],
    )
    assert config.optim.kind == "sgd"
    assert config.optim.nesterov
    assert config.optim.rates == (("image", 0.1),)
    assert config.optim.lr == recipe("clip_scenes").optim.lr
    with pytest.raises(UsageError, match="'lamb', 'sgd'; got 'adagrad'"):
        override(config, ["optim.kind=adagrad"])


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "config",
    [
        replace(CLIP, optim=Optim(kind="sgd", lr=0.1, nesterov=True, warmup=2, rates=(("text.blocks", 0.5),))),
        replace(CLIP, optim=Optim(kind="lamb", lr=0.01, warmup=2)),
        replace(CLIP, optim=Optim(kind="sgd", momentum=0.0, lr=0.1, warmup=2)),
    ],
    ids=["sgd", "lamb", "plain"],
)
def test_resumed_equals_uninterrupted(config: TrainConfig, tmp_path: Path) -> None:
    short = replace(config, steps=2, optim=replace(config.optim, schedule="constant"))
    longer = replace(short, steps=4)
    train(longer, tmp_path / "straight")
    train(short, tmp_path / "parts")
    settings = json.loads((tmp_path / "parts" / "config.json").read_text())
    (tmp_path / "parts" / "config.json").write_text(json.dumps({**settings, "steps": 4}))
    train(longer, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "straight")
    assert len(losses(tmp_path / "parts")) == 4
