"""`python -m benchmarks.gpu`: what it says without a GPU, and a rehearsal of all its parts on a processor."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import PARTS
from benchmarks.gpu.measuring import shares
from benchmarks.gpu.setting import Figures, Setting, write_json
from benchmarks.gpu.table import table

ROOT = Path(__file__).parents[2]


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_without_a_gpu_it_says_so_in_a_line(tmp_path):
    done = command("--out", tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "CUDA" in done.stderr


def test_a_part_that_does_not_exist_is_told_with_those_that_do(tmp_path):
    done = command("--out", tmp_path, "--only", "train,dance")
    assert done.returncode == 2
    assert "no part dance; there are: tests, train" in done.stderr


def test_a_figure_that_fails_does_not_cost_the_next(tmp_path):
    figures = Figures(tmp_path / "part.json")
    figures["before"] = float("nan")
    assert not figures.attempt("bad", lambda: 1 / 0)
    assert figures.attempt("good", lambda: 2)
    found = json.loads((tmp_path / "part.json").read_text())
    assert found == {"before": None, "bad": {"error": "ZeroDivisionError: division by zero"}, "good": 2}


def test_a_figure_for_which_no_time_is_left_says_so(tmp_path):
    figures = Figures(tmp_path / "part.json")
    setting = Setting(torch.device("cpu"), True, tmp_path, ends=time.monotonic() + 30)
    assert not figures.attempt_within(40, setting, "long", lambda: 1)
    assert figures.attempt_within(10, setting, "short", lambda: 2)
    assert figures.found["long"].startswith("left out: ")
    assert figures.found["short"] == 2


def test_shares_of_both_peaks():
    known = {"sheet_flops": 1000.0, "measured_flops": 800.0}
    assert shares(400.0, known, "flops") == {"share_of_sheet": 0.4, "share_of_measured": 0.5}
    assert shares(400.0, {**known, "sheet_flops": None}, "flops")["share_of_sheet"] is None


def test_the_table_has_a_line_for_each_part_and_figure(tmp_path):
    parts = [
        {
            "name": "a",
            "ok": True,
            "seconds": 1.0,
            "figures": {
                "x": {"y": 1.5, "share_of_sheet": 0.4567, "rate": 3055.89, "flops": 9.894e14},
                "busiest kernels": [{"kernel": "k|1", "calls": 2, "share": 0.25, "microseconds": 9.0}],
            },
        },
        {"name": "b", "ok": False, "seconds": 2.0, "figures": {}, "error": "stopped\nafter 2 s"},
    ]
    text = table({"hardware": {"gpu": "G"}, "versions": {}, "tiny": False, "parts": parts})
    for line in (
        "| a | well | 1 |",
        "| b | stopped after 2 s | 2 |",
        "| a | x · y | 1.5 |",
        "| a | x · share_of_sheet | 45.7% |",
        "| a | x · rate | 3,056 |",
        "| a | x · flops | 9.89e+14 |",
        "## a: busiest kernels",
        "| k\\|1 | 2 | 4.5 | 25.0% |",
    ):
        assert f"\n{line}\n" in text
    assert "commit" not in text
    write_json(tmp_path / "parts.json", parts)


@pytest.mark.slow
@pytest.mark.parametrize("part", [part.name for part in PARTS])
def test_rehearsal(part, tmp_path):
    if torch.cuda.is_available() and part == "tests":
        pytest.skip("they run by themselves here")
    done = command("--out", tmp_path, "--device", "cpu", "--tiny", "--only", part, OMP_NUM_THREADS="1")
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert done.returncode == 0, done.stdout[-3000:]
    (found,) = result["parts"]
    assert found["ok"]
    assert found["name"] == part
    assert found["figures"]
    wrong = {name: value for name, value in found["figures"].items() if isinstance(value, dict) and "error" in value}
    assert not wrong
    assert (tmp_path / "gpu.md").read_text().startswith("# A rehearsal")
