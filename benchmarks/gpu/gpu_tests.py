"""The tests marked `gpu`, by pytest where it is installed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.setting import Figures, Setting

ROOT = Path(__file__).parents[2]


def run(setting: Setting, figures: Figures) -> None:
    """Raises `RuntimeError` where pytest is missing, or a test failed."""
    if importlib.util.find_spec("pytest") is None:
        raise RuntimeError("pytest is not installed here: the tests marked gpu were not run")
    # Others need what a bare machine lacks, and would fail to be collected.
    files = sorted(p for p in (ROOT / "tests").rglob("test_*.py") if re.search(r"mark\.gpu\b", p.read_text()))
    report = setting.out / "gpu-tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-o", "addopts=", "-o", "filterwarnings=default", "--tb=short", *map(str, files)]
    environment = {**os.environ, "REBUS_NO_SHAPE_CHECKS": "1", "PYTHONPATH": str(ROOT)}
    if setting.tiny:  # collected, not run
        command.append("--collect-only")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    (setting.out / "gpu-tests.log").write_text(done.stdout + done.stderr)
    if setting.tiny:
        figures["collected"] = done.stdout.count("::")
        if done.returncode:
            raise RuntimeError(done.stdout[-1500:] + done.stderr[-500:])
        return
    results = _results(report)
    for name, result in results.items():
        figures[name] = result
    failed = [name for name, result in results.items() if result["outcome"] == "failed"]
    if failed or done.returncode:
        raise RuntimeError(f"failed: {', '.join(failed) or done.stdout[-1500:] + done.stderr[-500:]}")


def _results(report: Path) -> dict[str, dict[str, Any]]:
    """Outcome, seconds and, where there is one, the message of each test by name."""
    if not report.is_file():
        return {}
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
        result: dict[str, Any] = {"outcome": "passed", "seconds": float(case.get("time", 0))}
        if bad:
            result["outcome"] = "skipped" if bad[0].tag == "skipped" else "failed"
            result["message"] = ((bad[0].get("message") or "") + "\n" + (bad[0].text or "")[-800:]).strip()
        found[str(case.get("name"))] = result
    return found
