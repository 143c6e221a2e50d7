"""What the benchmarks share: contestants take turns in one process, medians are compared, ratios are printed."""

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

CLOCKS = {"wall": time.perf_counter, "thread": time.thread_time}


def options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Adds --threads, --rounds, --clock and --json, reads the command line and sets the threads."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant after one to warm up")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="thread: the processor's time of one thread, for a busy machine; sets --threads 1",
    )
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    chosen.threads = 1 if chosen.clock == "thread" else chosen.threads
    torch.set_num_threads(chosen.threads)
    return chosen


def take_turns(contestants: Mapping[str, Callable[[], Any]], rounds: int, clock: str) -> dict[str, list[float]]:
    """Seconds of each turn; the first round does not count."""
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            start = now()
            run()
            if turn:
                seconds[name].append(now() - start)
    return seconds


def summary(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, fastest and slowest, in milliseconds."""
    return {
        name: {
            "median_ms": round(statistics.median(values) * 1e3, 2),
            "min_ms": round(min(values) * 1e3, 2),
            "max_ms": round(max(values) * 1e3, 2),
        }
        for name, values in seconds.items()
    }


def ratios(seconds: Mapping[str, list[float]], references: list[str]) -> dict[str, dict[str, float]]:
    """How many times as fast as each reference every other contestant is, by medians."""
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        reference: {name: round(middle[reference] / value, 2) for name, value in middle.items() if name != reference}
        for reference in references
    }


def about(chosen: argparse.Namespace) -> dict[str, Any]:
    """Hardware, versions and commit, without which a figure says nothing."""
    name = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    ).stdout.strip()
    return {"processor": name, "torch": torch.__version__, "commit": commit, **vars(chosen)}


def report(result: Mapping[str, Any], as_json: bool) -> None:
    """A line a contestant and a line a ratio, or one JSON document."""
    if as_json:
        print(json.dumps(result, indent=1))
        return
    print(result["case"])
    for name, times in result["times"].items():
        print(f"  {name:28} {times['median_ms']:10.1f} ms   ({times['min_ms']:.1f} to {times['max_ms']:.1f})")
    for reference, others in result["ratios"].items():
        print(f"  × {reference}: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in others.items()))
    for name, value in result.get("extra", {}).items():
        print(f"  {name}: {value}")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
