"""BatchNorm in a run: over ranks, in parts, frozen, and where something goes wrong."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rebus.core.errors import UsageError
from rebus.nn.batch_norm import batch_norms
from rebus.objectives import Losses, SoftmaxLoss
from rebus.train import TrainConfig
from rebus.train.config import Devices
from rebus.train.distributed import join_ranks
from rebus.train.loop import Run
from tests.train.ranks import together
from tests.train.settings import CLIP, RESNET


def go(config: TrainConfig, out: Path) -> nn.Module:
    """All steps of a run, and its last checkpoint."""
    with join_ranks(config.devices) as place:
        torch.set_num_threads(1)
        run = Run(config, place, out)
        run.go_on_or_begin()
        for _ in run.steps([False]):
            pass
        run.saver.finish()
        return run.network


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def norms(out: Path) -> dict[str, Tensor]:
    """The gains and running statistics of the last checkpoint."""
    shards = (out / "checkpoints" / f"step_{RESNET.steps:08d}").glob("*.safetensors")
    found = {name: value for shard in shards for name, value in load_file(shard).items()}
    return {k: v for k, v in found.items() if k.startswith("network.image.") and ".norm" in k}


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float = 1e-4) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=name)


RUNS = {
    "synchronised": RESNET,
    "recomputed": replace(RESNET, devices=Devices(recompute=True)),
    "frozen, in parts": replace(RESNET, batch_norm="frozen", accumulate=2),
    "ghost": replace(RESNET, batch_norm="ghost"),
    "bfloat16": replace(RESNET, bf16=True),
}


def go_all(out: Path) -> None:
    for name, config in RUNS.items():
        network = go(config, out / name)
        if name == "ghost":  # every rank goes on from the same running statistics
            own = torch.cat([n.running_mean for n in batch_norms(network).values()])  # type: ignore[misc]
            everyone = [torch.empty_like(own) for _ in range(2)]
            torch.distributed.all_gather(everyone, own)
            assert torch.equal(*everyone)


def test_two_ranks_take_the_statistics_of_the_whole_batch(tmp_path: Path) -> None:
    together(2, tmp_path, go_all, tmp_path / "two")
    go(RESNET, tmp_path / "one")
    for name in ("synchronised", "recomputed"):
        assert losses(tmp_path / "two" / name) == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
        same(norms(tmp_path / "two" / name), norms(tmp_path / "one"))
    # Fifteen small layers of BatchNorm after each other enlarge what bfloat16 rounds, more with each step.
    assert losses(tmp_path / "two" / "bfloat16")[:2] == pytest.approx(losses(tmp_path / "one")[:2], abs=5e-2)
    go(replace(RESNET, batch_norm="frozen"), tmp_path / "frozen")
    assert losses(tmp_path / "two" / "frozen, in parts") == pytest.approx(losses(tmp_path / "frozen"), abs=1e-5)
    same(norms(tmp_path / "two" / "frozen, in parts"), norms(tmp_path / "frozen"))
    assert losses(tmp_path / "two" / "ghost")[0] != pytest.approx(losses(tmp_path / "one")[0], abs=1e-3)


def test_parts_of_a_batch_want_a_decision(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"accumulate=2: BatchNorm .* batch_norm=frozen .* batch_norm=ghost"):
        go(replace(RESNET, accumulate=2), tmp_path / "parts")
    go(replace(RESNET, accumulate=2, batch_norm="ghost"), tmp_path / "ghost")
    assert len(losses(tmp_path / "ghost")) == RESNET.steps
    go(RESNET, tmp_path / "whole")
    assert losses(tmp_path / "ghost")[0] != pytest.approx(losses(tmp_path / "whole")[0], abs=1e-3)


def test_the_setting_is_nothing_to_networks_without_batch_norm(tmp_path: Path) -> None:
    for setting in ("synchronised", "ghost", "frozen"):
        go(replace(CLIP, steps=2, batch_norm=setting), tmp_path / setting)  # type: ignore[arg-type]
    assert losses(tmp_path / "synchronised") == losses(tmp_path / "ghost") == losses(tmp_path / "frozen")


def test_recomputing_takes_in_a_batch_once(tmp_path: Path) -> None:
    go(RESNET, tmp_path / "kept")
    go(replace(RESNET, devices=Devices(recompute=True)), tmp_path / "again")
    assert losses(tmp_path / "kept") == losses(tmp_path / "again")
    same(norms(tmp_path / "kept"), norms(tmp_path / "again"), 0)
    assert {int(v) for k, v in norms(tmp_path / "again").items() if k.endswith("tracked")} == {RESNET.steps}


def test_frozen_parts_keep_their_statistics(tmp_path: Path) -> None:
    """Also where the gains of the layers alone are frozen: `freeze` leaves a part as it is."""
    network = go(replace(RESNET, freeze=("image",), accumulate=2), tmp_path / "run")
    for norm in batch_norms(network).values():
        assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))  # type: ignore[arg-type]
    learning = go(replace(RESNET, batch_norm="frozen"), tmp_path / "gains")
    gains = [norm.weight for name, norm in batch_norms(learning).items() if "stem" in name]
    assert all(not torch.equal(gain, torch.ones_like(gain)) for gain in gains)


def test_a_step_that_is_left_out_leaves_no_trace(tmp_path: Path) -> None:
    class Once(SoftmaxLoss):
        """The third batch is damaged."""

        def __call__(self, network: Any, batch: Any) -> Losses:
            calls.append(1)
            if len(calls) == 3:
                batch = {**batch, "pixels": batch["pixels"] * torch.nan}
            return super().__call__(network, batch)

    calls: list[int] = []
    network = go(replace(RESNET, objective=Once()), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("skipped") for line in lines] == [None, None, 1, None]
    for norm in batch_norms(network).values():
        assert norm.running_mean is not None
        assert norm.running_mean.isfinite().all()
        assert int(norm.num_batches_tracked) == RESNET.steps - 1  # type: ignore[arg-type]
