"""Many ranks train as one does: the same losses, and checkpoints that any number of them opens."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rebus.core.errors import UsageError
from rebus.objectives import NextTokenLoss
from rebus.train import LoRA, Optim, TrainConfig, train
from rebus.train.config import Devices
from rebus.weights.checkpoint_files import open_weights
from tests.train.ranks import together
from tests.train.settings import CLIP, MASKS, PALIGEMMA, SIGLIP


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def same_weights(a: Path, b: Path, tolerance: float = 2e-3) -> None:
    ours, theirs = open_weights(a / "final"), open_weights(b / "final")
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name].load().float(), theirs[name].load().float(), rtol=0, atol=tolerance)


ONE_KEY_HEAD = replace(PALIGEMMA.model, text=replace(PALIGEMMA.model.text, num_kv_heads=1))  # type: ignore
SLOW = Optim(lr=3e-4, warmup=2)  # at larger steps, losses that are scaled by ten part with any rounding
RUNS = {
    "softmax, sharded": (replace(CLIP, ema=0.9), Devices()),
    "softmax in parts, replicated": (replace(CLIP, accumulate=2), Devices(shard=1)),
    "sigmoid, recomputed": (SIGLIP, Devices(recompute=True)),
    "writer, sharded": (replace(PALIGEMMA, eval_every=2, eval_batches=1), Devices()),
    "writer, split": (PALIGEMMA, Devices(tensor_parallel=2)),
    "writer with one head of keys, split": (replace(PALIGEMMA, model=ONE_KEY_HEAD), Devices(tensor_parallel=2)),
    "softmax, split": (CLIP, Devices(tensor_parallel=2)),
    "lamb, sharded": (replace(CLIP, optim=Optim(kind="lamb", lr=0.01, warmup=2)), Devices()),
    "lamb, split": (replace(PALIGEMMA, optim=Optim(kind="lamb", lr=0.01, warmup=2)), Devices(tensor_parallel=2)),
    "sgd, sharded": (replace(CLIP, optim=Optim(kind="sgd", lr=0.1, warmup=2)), Devices()),
    "bfloat16, sharded": (replace(PALIGEMMA, bf16=True), Devices()),
    "softmax in bfloat16, sharded": (replace(CLIP, bf16=True, optim=SLOW), Devices()),
    "sigmoid in bfloat16 in parts, recomputed": (
        replace(SIGLIP, bf16=True, accumulate=2, optim=SLOW),
        Devices(recompute=True),
    ),
}


def train_all(out: Path) -> None:
    for name, (config, devices) in RUNS.items():
        train(replace(config, devices=devices), out / name)


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    together(2, tmp_path, train_all, tmp_path / "two")
    for name, (config, _) in RUNS.items():
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        train(config, one)
        near = 1e-5 if not config.bf16 else 2e-2 if isinstance(config.objective, NextTokenLoss) else 5e-2
        assert losses(two) == pytest.approx(losses(one), abs=near), name
        assert len(losses(two)) == config.steps
        same_weights(one, two, 2e-2 if config.bf16 else 2e-3)
        if config.eval_every:
            last = [json.loads((out / "metrics.jsonl").read_text().splitlines()[-1]) for out in (one, two)]
            assert last[1]["val_loss"] == pytest.approx(last[0]["val_loss"], abs=1e-5)


@pytest.mark.slow
def test_four_ranks_of_which_pairs_split_matrices_train_as_one(tmp_path: Path) -> None:
    for name, config in (("softmax", CLIP), ("sigmoid", SIGLIP)):
        train(config, tmp_path / name)
        split = replace(config, devices=Devices(tensor_parallel=2))
        together(4, tmp_path, train, split, tmp_path / f"{name}, split")
        assert losses(tmp_path / f"{name}, split") == pytest.approx(losses(tmp_path / name), abs=1e-5)
        same_weights(tmp_path / f"{name}, split", tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("before", [1, 4])
def test_two_ranks_go_on_from_what_one_or_four_saved(before: int, tmp_path: Path) -> None:
    short = replace(SIGLIP, steps=2, optim=replace(SIGLIP.optim, schedule="constant"), ema=0.9)
    longer = replace(short, steps=4)
    train(longer, tmp_path / "whole")
    if before == 1:
        train(short, tmp_path / "run")
    else:
        together(before, tmp_path, train, short, tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**settings, "steps": 4}))
    together(2, tmp_path, train, longer, tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    assert len(losses(tmp_path / "run")) == 4
    same_weights(tmp_path / "run", tmp_path / "whole")


def refused(config: TrainConfig, out: Path, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train(config, out)


def test_what_ranks_cannot_share_is_refused(tmp_path: Path) -> None:
    odd: list[tuple[Any, str]] = [
        (replace(CLIP, batch_size=7), "7 does not divide .* on each of 2 ranks"),
        (replace(MASKS, devices=Devices(tensor_parallel=2)), "this network has none"),
        (MASKS, "the objective 'codebook' needs the whole batch on one rank"),
        (replace(CLIP, devices=Devices(tensor_parallel=2), lora=LoRA(parts=("text",))), "attn.q has LoRA"),
        (replace(CLIP, devices=Devices(tensor_parallel=3)), "2 ranks do not divide"),
        (replace(CLIP, devices=Devices(shard=3)), "devices.shard=3 does not divide the 2 ranks"),
    ]
    together(2, tmp_path, all_refused, odd, tmp_path)


def all_refused(cases: list[tuple[TrainConfig, str]], out: Path) -> None:
    for i, (config, said) in enumerate(cases):
        refused(config, out / str(i), said)


def test_recomputing_changes_no_loss(tmp_path: Path) -> None:
    train(PALIGEMMA, tmp_path / "kept")
    train(replace(PALIGEMMA, devices=Devices(recompute=True)), tmp_path / "again")
    assert losses(tmp_path / "kept") == losses(tmp_path / "again")
    train(replace(MASKS, devices=Devices(recompute=True), steps=2), tmp_path / "no blocks")
