"""Run folders that somebody else made or changed: what the checkpoint itself says counts, and damage is one line."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rebus.core.errors import BadCheckpoint, UsageError
from rebus.train import checkpoint, train
from rebus.train.checkpoint import newest, steps
from rebus.train.run_directory import check_claim, cut
from tests.train.settings import MASKS

SHORT = replace(MASKS, steps=2, save_every=1, eval_every=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints of steps 1 and 2."""
    out = tmp_path_factory.mktemp("run")
    train(SHORT, out)
    return out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def test_a_folder_is_of_the_step_that_its_state_says(run: Path) -> None:
    folder = run / "checkpoints"
    shutil.copytree(folder / "step_00000001", folder / "step_99999999")
    shutil.copytree(folder / "step_00000001", folder / "step_²")
    (folder / "step_00000002").rename(folder / "step_2")
    assert steps(folder) == [1]
    assert newest(folder) == 1


def test_a_step_after_the_end_of_the_run_is_refused(run: Path) -> None:
    path = (run / "checkpoints" / "step_00000002").rename(run / "checkpoints" / "step_00000009")
    state = json.loads((path / checkpoint.STATE).read_text())
    (path / checkpoint.STATE).write_text(json.dumps(state | {"step": 9}))
    with pytest.raises(BadCheckpoint, match="a checkpoint of step 9; the run has 2"):
        train(SHORT, run)


STATES = {
    "list": "[]",
    "number": "3",
    "no files": '{"step": 2}',
    "files are a list": '{"step": 2, "files": ["a"]}',
    "entries are numbers": '{"step": 2, "files": {"a": 3}}',
    "outside": '{"step": 2, "files": {"../../config.json": {"bytes": 1}}}',
    "step is a text": '{"step": "2", "files": {"state.json": {"bytes": 1}}}',
    "digits": '{"step": 2, "n": ' + "9" * 5000 + "}",
    "deep": "[" * 100_000,
    "not UTF-8": "\xff\xfe",
}


@pytest.mark.parametrize("text", STATES.values(), ids=STATES.keys())
def test_a_state_of_any_wrong_shape_is_no_checkpoint(text: str, run: Path) -> None:
    (run / "checkpoints" / "step_00000002" / checkpoint.STATE).write_bytes(text.encode("latin-1"))
    assert newest(run / "checkpoints") == 1


@pytest.mark.parametrize("garbage", [b"garbage", b"\x08" + bytes(7) + b"[1,2,3] ", b""])
def test_a_shard_of_garbage_whose_hash_was_made_to_fit(garbage: bytes, run: Path) -> None:
    path = run / "checkpoints" / "step_00000002"
    state = json.loads((path / checkpoint.STATE).read_text())
    for name, entry in state["files"].items():
        (path / name).write_bytes(garbage)
        entry |= {"bytes": len(garbage), "sha256": hashlib.sha256(garbage).hexdigest()}
    (path / checkpoint.STATE).write_text(json.dumps(state))
    with pytest.raises(BadCheckpoint, match=r"step_00000002: damaged .* Remove this folder"):
        train(SHORT, run)


def test_facts_that_lack_what_a_run_goes_on_from(run: Path) -> None:
    path = run / "checkpoints" / "step_00000002" / checkpoint.STATE
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"guard": [1]}))
    with pytest.raises(BadCheckpoint, match=r"state\.json of step 2 is damaged"):
        train(SHORT, run)


def test_metrics_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    good = b'{"step": 1, "loss": 0.5}\n'
    file.write_bytes(good + b"\xff\xfe\n" + b"[]\n" + b'{"step": ' + b"9" * 5000 + b"}\n" + b'{"step": 2}\n{"st')
    cut(file, 1)
    assert file.read_bytes() == good


@pytest.mark.parametrize("text", ["[]", '{"steps": ' + "9" * 5000 + "}", "\xff", "[" * 100_000])
def test_settings_that_are_damaged_are_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="was started with other settings"):
        check_claim(SHORT, tmp_path)
