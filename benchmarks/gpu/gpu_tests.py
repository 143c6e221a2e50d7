"""The tests marked `gpu`, by pytest where it is installed."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.setting import Figures, Setting

ROOT = Path(__file__).parents[2]


def run(setting: Setting, figures: Figures) -> None:
    """Raises `RuntimeError` where pytest is missing, a test failed or time ran out; what ended is told all the same."""
    if importlib.util.find_spec("pytest") is None:
        raise RuntimeError("pytest is not installed here: the tests marked gpu were not run")
    # Others need what a bare machine lacks, and would fail to be collected.
    files = sorted(p for p in (ROOT / "tests").rglob("test_*.py") if re.search(r"mark\.gpu\b", p.read_text()))
    outcomes = setting.out / "gpu-tests.jsonl"
    outcomes.unlink(missing_ok=True)
    plugins = ["-p", "no:cacheprovider", "-p", "benchmarks.gpu.pytest_outcomes"]
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", *plugins]
    command += ["-o", "addopts=", "-o", "filterwarnings=default", "--tb=short", *map(str, files)]
    environment = {**os.environ, "REBUS_NO_SHAPE_CHECKS": "1", "PYTHONPATH": str(ROOT)}
    environment["REBUS_GPU_OUTCOMES"] = str(outcomes)
    if setting.tiny:  # collected, not run
        command += ["--collect-only", "-qq"]
    log = setting.out / "gpu-tests.log"
    with log.open("w") as file:
        try:
            code = subprocess.run(
                command, stdout=file, stderr=file, check=False, cwd=ROOT, env=environment, timeout=setting.left - 5
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    said = log.read_text()
    if setting.tiny:
        figures["collected"] = said.count("::")
        if code != 0:
            raise RuntimeError(said[-2000:])
        return
    results = _results(outcomes)
    for name, result in results.items():
        figures[name] = result
    if code is None:
        raise RuntimeError(f"no time left; the last line was: {said.strip().splitlines()[-1]}")
    failed = [name for name, result in results.items() if result["outcome"] == "failed"]
    if failed or code:
        raise RuntimeError(f"failed: {', '.join(failed) or said[-2000:]}")


def _results(outcomes: Path) -> dict[str, dict[str, Any]]:
    """Outcome, seconds and, where there is one, the message of each test by name."""
    lines = outcomes.read_text().splitlines() if outcomes.is_file() else []
    return {found.pop("name"): found for found in map(json.loads, lines)}
