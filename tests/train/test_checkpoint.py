"""Killed at any moment, a run goes on as if nothing had happened; half a checkpoint is none."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rebus.core.errors import BadCheckpoint, CannotWrite, UsageError
from rebus.core.folder_lock import locked
from rebus.train import checkpoint, train
from rebus.train.checkpoint import Saver, State, load, newest, steps
from tests.data.dying import Dead, killed_at
from tests.train.ranks import START
from tests.train.settings import CLIP, MASKS

KILLS = 20
LONG = replace(MASKS, steps=240, save_every=4, eval_every=7)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_twenty_kills_change_no_loss(tmp_path: Path) -> None:
    start = multiprocessing.get_context(START)
    chance = random.Random(0)
    train(LONG, tmp_path / "whole")
    kills = 0
    out = tmp_path / "killed"
    while kills < KILLS:
        process = start.Process(target=train, args=(LONG, out))
        process.start()
        before = size(out)
        while process.is_alive() and size(out) == before and kills % 4:  # every fourth dies while it starts
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.35))
        assert process.is_alive(), "the run is too short to be killed 20 times"
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    train(LONG, out)
    assert losses(out) == losses(tmp_path / "whole")
    assert len(losses(out)) == LONG.steps
    for file in (tmp_path / "whole" / "final").iterdir():
        assert file.read_bytes() == (out / "final" / file.name).read_bytes()


def size(out: Path) -> int:
    file = out / "metrics.jsonl"
    return file.stat().st_size if file.exists() else 0


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints of steps 2 and 4."""
    out = tmp_path_factory.mktemp("run")
    train(replace(CLIP, ema=0.9), out)
    return out


def test_half_a_checkpoint_is_none(two: Path, tmp_path: Path) -> None:
    files = sorted(p.name for p in (two / "checkpoints" / "step_00000004").iterdir())
    assert checkpoint.STATE in files
    assert len(files) == 2
    for name in files:
        length = (two / "checkpoints" / "step_00000004" / name).stat().st_size
        for cut in sorted({0, 1, 7, 8, 9, 100, length // 3, length // 2, length - 9, length - 1}):
            folder = shutil.copytree(two / "checkpoints", tmp_path / f"{name}_{cut}")
            with (folder / "step_00000004" / name).open("r+b") as file:
                file.truncate(cut)
            assert newest(folder) == 2, f"{name} cut at {cut}"
        folder = shutil.copytree(two / "checkpoints", tmp_path / f"{name}_gone")
        (folder / "step_00000004" / name).unlink()
        assert newest(folder) == 2


def test_a_single_changed_bit_is_found(two: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shutil.copytree(two / "checkpoints", tmp_path / "checkpoints")
    file = next(p for p in (folder / "step_00000004").iterdir() if p.suffix == ".safetensors")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert steps(folder) == [2, 4]
    assert newest(folder) == 2
    assert "is damaged" in caplog.text


def test_nothing_in_a_checkpoint_is_a_pickle(two: Path) -> None:
    endings = {p.suffix for p in (two / "checkpoints").rglob("*") if p.is_file()}
    assert endings == {".safetensors", ".json"}


def test_drafts_of_a_killed_run_are_swept(two: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(two / "checkpoints", tmp_path / "checkpoints")
    (folder / ".draft_00000006").mkdir()
    (folder / ".draft_00000006" / "half.safetensors").write_bytes(b"half")
    assert newest(folder) == 4
    assert not list(folder.glob(".draft_*"))


def test_a_checkpoint_of_other_settings_is_refused(two: Path) -> None:
    network = torch.nn.Linear(3, 3)
    state = State(network, [torch.optim.AdamW(network.parameters())], None)
    with pytest.raises(BadCheckpoint, match="not of this configuration"):
        load(two / "checkpoints", 4, state)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Linear(3, 3)
    state = State(network, [], None)
    saver = Saver(tmp_path, keep=2, leads=True)
    saver.save(1, state, {})
    saver.finish()

    def full(draft: Path, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "place_folder", full)
    saver.save(2, state, {})
    with pytest.raises(CannotWrite, match="step 2 does not fit on the disk"):
        saver.finish()
    assert newest(tmp_path) == 1
    assert not list(tmp_path.glob(".draft_*"))


def _train_with_small_files(out: Path, limit: int) -> None:
    """In a process of its own: no file can grow beyond `limit` bytes, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        train(CLIP, out)
    except CannotWrite as error:
        (out / "said.txt").write_text(str(error))


def test_fault_25_a_full_disk_while_training_is_one_line(tmp_path: Path) -> None:
    """Through PyTorch's own writer, whose exception is no `Exception`."""
    process = multiprocessing.get_context(START).Process(
        target=_train_with_small_files, args=(tmp_path / "run", 40_000)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert "step 2 does not fit on the disk" in (tmp_path / "run" / "said.txt").read_text()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    train(CLIP, tmp_path / "run")  # with room, the same goes on
    assert len(losses(tmp_path / "run")) == CLIP.steps


def test_fault_36_two_trainings_on_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with locked(out):
        draft = out / "checkpoints" / ".draft_00000002"
        draft.mkdir(parents=True)
        with pytest.raises(UsageError, match="another process is at work in it"):
            train(CLIP, out)
        assert draft.is_dir()  # of the run that is alive
        assert not (out / "config.json").exists()
    train(CLIP, out)
    assert newest(out / "checkpoints") == CLIP.steps
    assert not draft.exists()
    with locked(out):  # given back
        pass


def test_dead_at_any_step_of_writing_one_whole_checkpoint_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = torch.nn.Linear(3, 3)
    deaths = 0
    while True:
        folder = tmp_path / str(deaths)
        saver = Saver(folder, keep=1, leads=True)
        for step in (1, 2):
            torch.nn.init.constant_(network.weight, step)
            saver.save(step, State(network, [], None), {})
            assert saver._pending is not None
            saver._pending[0].result()  # PyTorch's own part
            if step == 1:
                saver.finish()
        try:
            with killed_at(deaths + 1, monkeypatch):
                saver.finish()
            break
        except Dead:
            pass
        found = newest(folder)
        assert found in (1, 2)
        load(folder, found, State(network, [], None))
        assert network.weight[0, 0] == found
        deaths += 1
    assert deaths == 6  # the flush of both files and of both folders, the renaming, the removal of what is old


def test_weights_are_those_of_the_step_that_asked(tmp_path: Path) -> None:
    """They are written while the next steps change them."""
    network = torch.nn.Linear(64, 64)
    before = network.weight.detach().clone()
    saver = Saver(tmp_path, keep=2, leads=True)
    saver.save(1, State(network, [], None), {"guard": 1})
    with torch.no_grad():
        network.weight.zero_()
    saver.finish()
    assert load(tmp_path, 1, State(network, [], None))["guard"] == 1
    assert torch.equal(network.weight, before)
