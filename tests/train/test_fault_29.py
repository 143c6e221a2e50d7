"""Fault 29: a rank dies, SIGTERM. A checkpoint or the one before it, an end within 30 seconds, an exact restart."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import multiprocessing as mp

from rebus.train import TrainConfig, train
from rebus.train.checkpoint import newest
from tests.train.ranks import START, together
from tests.train.settings import CLIP, MASKS


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_fault_29_sigterm_while_running(tmp_path: Path) -> None:
    config = replace(MASKS, steps=60, save_every=50, eval_every=0)
    process = multiprocessing.get_context(START).Process(target=train, args=(config, tmp_path / "run"))
    process.start()
    metrics, until = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode not in (None, 0), "it ended before it was told to, or not at all"
    told = len(losses(tmp_path / "run"))
    assert 0 < told < 60
    assert newest(tmp_path / "run" / "checkpoints") == told
    train(config, tmp_path / "run")
    train(config, tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def _dies(config: TrainConfig, out: Path) -> None:
    """Rank 1 is killed in the middle of its third step."""
    if os.environ["RANK"] == "1":
        from rebus.train import loop

        average, calls = loop.average_replicated, []

        def third(*args: Any) -> None:
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            average(*args)

        loop.average_replicated = third
    train(config, out, _silent)


def _silent(line: Mapping[str, Any]) -> None:
    pass


@pytest.mark.slow
def test_fault_29_a_rank_dies(tmp_path: Path) -> None:
    config = replace(CLIP, save_every=1)
    began = time.monotonic()
    with pytest.raises((mp.ProcessExitedException, mp.ProcessRaisedException)):
        together(2, tmp_path, _dies, config, tmp_path / "run")
    assert time.monotonic() - began < 60
    assert newest(tmp_path / "run" / "checkpoints") in (1, 2)
    train(config, tmp_path / "run")  # on another number of ranks
    train(config, tmp_path / "whole")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    assert len(losses(tmp_path / "run")) == config.steps
