"""The loop: what it leaves on disk, exact resumption, refusals."""

import json
import multiprocessing
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rebus
from rebus.backbones.vision.mask_vqvae import load_npz
from rebus.core.errors import BadCheckpoint, RebusError, UnknownName, UsageError
from rebus.models.contrastive.clip import KEYS
from rebus.objectives import CodebookLoss, SigmoidLoss
from rebus.recipes import recipe
from rebus.train import LoRA, Optim, Stopped, TrainConfig, loop, train
from rebus.train.ema import Average, averaged
from rebus.train.optim import rate_at
from rebus.train.warm_start import build, grid_waves, starts_whole
from rebus.weights.checkpoint_files import open_weights
from tests.train.settings import CLIP, MASKS


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


class Killed(Exception):
    pass


def killed_at(step: int) -> Any:
    def report(line: Mapping[str, Any]) -> None:
        if line["step"] == step:
            raise Killed

    return report


@pytest.mark.parametrize("config", [MASKS, CLIP, replace(CLIP, ema=0.9)], ids=["adam", "muon", "average"])
def test_resumed_equals_uninterrupted(config: TrainConfig, tmp_path: Path) -> None:
    train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, tmp_path / "parts", killed_at(3))  # one step after the last checkpoint
    assert (tmp_path / "parts" / "checkpoints" / "step_00000002").is_dir()
    train(config, tmp_path / "parts")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert len(losses(tmp_path / "whole")) == config.steps
    for file in (tmp_path / "whole" / "final").iterdir():
        assert file.read_bytes() == (tmp_path / "parts" / "final" / file.name).read_bytes()


def test_bfloat16_is_left_to_processors_that_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    found = {}
    for name, has_it, bf16 in (("float32", True, False), ("native", True, True), ("without", False, True)):
        monkeypatch.setattr(loop, "multiplies_bfloat16", lambda has_it=has_it: has_it)
        train(replace(CLIP, steps=2, bf16=bf16), tmp_path / name)
        found[name] = losses(tmp_path / name)
        assert ("bf16=true is ignored" in caplog.text) == (name == "without")
    assert found["without"] == found["float32"]
    assert found["native"] != found["float32"]


def test_threads_are_those_of_pytorch_unless_told(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    try:
        torch.set_num_threads(2)
        for threads in (None, 1):
            train(
                replace(MASKS, steps=1, threads=threads),
                tmp_path / f"{threads}",
                lambda _: seen.append(torch.get_num_threads()),
            )
    finally:
        torch.set_num_threads(before)
    assert seen == [2, 1]


def test_a_worker_process_changes_nothing(tmp_path: Path) -> None:
    train(replace(MASKS, steps=2), tmp_path / "inline")
    train(replace(MASKS, steps=2, workers=1), tmp_path / "ahead")
    assert losses(tmp_path / "inline") == losses(tmp_path / "ahead")


def test_parts_of_a_batch_train_as_the_whole_does(tmp_path: Path) -> None:
    train(CLIP, tmp_path / "whole")
    train(replace(CLIP, accumulate=4), tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    with pytest.raises(UsageError, match="does not divide into 3 equal parts"):
        train(replace(CLIP, accumulate=3), tmp_path / "three")
    with pytest.raises(UsageError, match="does not divide into 0 equal parts"):
        train(replace(CLIP, accumulate=0), tmp_path / "none")


def test_what_a_run_leaves(tmp_path: Path) -> None:
    final = train(MASKS, tmp_path / "run")
    assert final == tmp_path / "run" / "final"
    assert load_npz(final / "vae-oid.npz").cfg == MASKS.model
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["step_00000004", "step_00000006"]
    assert not list((tmp_path / "run").rglob("*.pkl"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "val_loss" in lines[2]
    assert lines[0]["lr"] == pytest.approx(5e-3)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["optim"]["lr"] == 1e-2


def test_a_two_tower_run_ends_in_hub_layout(tmp_path: Path) -> None:
    final = train(replace(CLIP, steps=2), tmp_path / "run")
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= {
        p.name for p in final.iterdir()
    }
    assert json.loads((final / "config.json").read_text())["model_type"] == "clip"


def test_other_settings_on_the_same_directory_are_refused(tmp_path: Path) -> None:
    train(replace(MASKS, steps=2), tmp_path / "run")
    with pytest.raises(UsageError, match=r"optim\.lr was 0\.01 and is 0\.5"):
        train(replace(MASKS, steps=2, optim=replace(MASKS.optim, lr=0.5)), tmp_path / "run")


def test_a_half_written_checkpoint_is_not_used(tmp_path: Path) -> None:
    train(MASKS, tmp_path / "run")
    draft = tmp_path / "run" / "checkpoints" / "step_00000099"
    draft.mkdir()
    (draft / "weights.safetensors").write_bytes(b"half")
    train(MASKS, tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 6


def test_fault_28_a_run_without_a_finite_loss_is_given_up(tmp_path: Path) -> None:
    class Broken(CodebookLoss):
        def __call__(self, network: Any, batch: Any) -> Any:
            found = super().__call__(network, batch)
            return found._replace(total=found.total * torch.nan)

    with pytest.raises(RebusError, match="no finite loss in steps 1 to 20"):
        train(replace(MASKS, objective=Broken(), steps=30, eval_every=0, save_every=50), tmp_path / "run")
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["loss"] is None


def test_the_rate_rises_and_falls() -> None:
    cosine = Optim(lr=1.0, warmup=10, final=0.1)
    assert rate_at(cosine, 5, 100) == pytest.approx(0.5)
    assert rate_at(cosine, 10, 100) == 1.0
    assert rate_at(cosine, 55, 100) == pytest.approx(0.55)
    assert rate_at(cosine, 100, 100) == pytest.approx(0.1)
    straight = Optim(lr=1.0, warmup=10, final=0.0, schedule="linear")
    assert [rate_at(straight, step, 110) for step in (10, 60, 110)] == pytest.approx([1.0, 0.5, 0.0])
    roots = Optim(lr=1.0, warmup=10, final=0.0, schedule="rsqrt")
    assert [rate_at(roots, step, 10_000) for step in (10, 40, 1000)] == pytest.approx([1.0, 0.5, 0.1])
    flat = Optim(lr=1.0, warmup=10, final=0.0, schedule="constant", cooldown=20)
    assert rate_at(flat, 80, 100) == rate_at(flat, 80, 10_000) == 1.0
    assert rate_at(flat, 91, 100) == pytest.approx(0.5)
    twice = Optim(lr=1.0, warmup=10, schedule="constant", cooldown=20, again=50)
    assert [rate_at(twice, step, 200) for step in (5, 50, 55, 60, 61)] == [0.5, 1.0, 0.5, 1.0, 1.0]


def test_the_average_is_what_is_kept(tmp_path: Path) -> None:
    towers = [torch.nn.Linear(2, 2) for _ in range(2)]
    average = Average(towers[0], 0.5)
    start = towers[0].weight.detach().clone()
    with torch.no_grad():
        towers[0].weight.add_(1.0)
    average.update()  # the first step leaves a tenth of the start
    torch.testing.assert_close(average.values["weight"], start + 0.9)
    with averaged(average):
        torch.testing.assert_close(towers[0].weight.detach(), start + 0.9)
    torch.testing.assert_close(towers[0].weight.detach(), start + 1.0)
    plain, mean = (train(replace(CLIP, ema=e), tmp_path / str(e)) for e in (0.0, 0.9))
    assert losses(tmp_path / "0.0") == losses(tmp_path / "0.9")
    assert (plain / "model.safetensors").read_bytes() != (mean / "model.safetensors").read_bytes()


def test_waves_over_the_picture_tell_rows_and_columns_apart() -> None:
    waves = grid_waves(3, 4, 16)
    assert waves.shape == (12, 16)
    assert torch.allclose(waves.norm(dim=1), torch.ones(12))
    alike = waves @ waves.T
    assert (alike - torch.eye(12)).max() < 0.95
    assert torch.allclose(waves[0, :8], waves[4, :8])  # the same column
    assert torch.allclose(waves[0, 8:], waves[3, 8:])  # the same row


def test_a_run_starts_from_a_checkpoint_of_its_system(tmp_path: Path) -> None:
    final = train(replace(CLIP, steps=1), tmp_path / "run")
    again = build(replace(CLIP, start_from=str(final), seed=5)).network
    there = KEYS.to_ours(open_weights(final))
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor.half(), there[name].load())
    set_before = replace(CLIP, start_from=str(final), position_waves=5.0, objective=SigmoidLoss(bias=-3.0))
    assert starts_whole(set_before)
    train(replace(set_before, steps=1), tmp_path / "on")  # the bias, which CLIP has not, is not set anew
    assert torch.equal(
        build(set_before).network.get_parameter("image.positions"), again.get_parameter("image.positions")
    )
    wider = replace(CLIP.model, image=replace(CLIP.model.image, mlp_width=8))  # type: ignore[union-attr, type-var]
    with pytest.raises(BadCheckpoint, match="the network has another size"):
        build(replace(CLIP, start_from=str(final), model=wider))


def test_a_tower_starts_from_another_systems_checkpoint() -> None:
    config = recipe("paligemma_scenes")
    network = build(replace(config, start_from="siglip/scenes", position_waves=0.0)).network
    theirs = rebus.load("siglip/scenes").network.state_dict()
    tower = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("image.")}
    assert len(tower) > 20
    for name, tensor in tower.items():
        assert torch.equal(tensor, theirs[name])
    image = replace(config.model.image, mlp_width=8)  # type: ignore[union-attr]
    other = replace(config.model, image=image)  # type: ignore[type-var]
    with pytest.raises(BadCheckpoint, match="the image encoder has another size"):
        build(replace(config, start_from="siglip/scenes", model=other))


def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:
    config = replace(CLIP, freeze=("image", "text.tokens"), steps=2)
    before = {k: v.clone() for k, v in build_seeded(config).state_dict().items()}
    final = train(config, tmp_path / "run")
    after = KEYS.to_ours(open_weights(final))
    moved = {k for k, v in before.items() if not torch.equal(v.half(), after[k].load())}
    assert moved
    assert not any(name.startswith(("image.", "text.tokens.")) for name in moved)
    with pytest.raises(UnknownName, match='no part of the network "imag"; did you mean "image"'):
        build(replace(CLIP, freeze=("imag",)))
    with pytest.raises(UsageError, match="leaves nothing to train"):
        build(replace(CLIP, freeze=("image", "text", "image_proj", "text_proj", "log_scale")))


def test_thin_matrices_train_and_end_in_the_weights(tmp_path: Path) -> None:
    config = replace(CLIP, lora=LoRA(parts=("text",), rank=2), ema=0.9)
    before = {k: v.clone() for k, v in build_seeded(CLIP).state_dict().items()}
    with pytest.raises(Killed):
        train(config, tmp_path / "run", killed_at(3))
    after = KEYS.to_ours(open_weights(train(config, tmp_path / "run")))
    moved = {k for k, v in before.items() if not torch.equal(v.half(), after[k].load())}
    assert moved
    assert all(name.startswith("text.") and name.endswith(".weight") for name in moved)
    train(config, tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def build_seeded(config: TrainConfig) -> torch.nn.Module:
    torch.manual_seed(config.seed)
    return build(config).network


def test_a_longer_run_equals_one_that_was_long_from_the_beginning(tmp_path: Path) -> None:
    constant = replace(MASKS, optim=replace(MASKS.optim, schedule="constant"), eval_every=0)
    train(replace(constant, steps=6), tmp_path / "whole")
    train(replace(constant, steps=3), tmp_path / "longer")
    train(replace(constant, steps=6), tmp_path / "longer")
    assert losses(tmp_path / "longer") == losses(tmp_path / "whole")
    assert json.loads((tmp_path / "longer" / "config.json").read_text())["steps"] == 6
    with pytest.raises(UsageError, match="steps was 6 and is 5, and step 6 is done"):
        train(replace(constant, steps=5), tmp_path / "longer")


def test_a_run_whose_rates_depend_on_its_length_is_not_made_longer(tmp_path: Path) -> None:
    train(replace(MASKS, steps=3, eval_every=0), tmp_path / "run")
    with pytest.raises(UsageError, match="learning rate of step 3"):
        train(replace(MASKS, steps=6, eval_every=0), tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_writes_a_checkpoint(tmp_path: Path, number: int) -> None:
    def tell(line: dict) -> None:
        if line["step"] == 2:  # a terminal, systemd and Slurm tell every process of the run
            workers = [child.pid for child in multiprocessing.active_children()]
            assert workers
            for pid in [*workers, os.getpid()]:
                os.kill(pid, number)

    settings = replace(MASKS, save_every=100, eval_every=0, workers=1)
    with pytest.raises(Stopped):
        train(settings, tmp_path / "run", tell)
    assert (tmp_path / "run" / "checkpoints" / "step_00000003").is_dir()
    train(settings, tmp_path / "whole")
    train(settings, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
