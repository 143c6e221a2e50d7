"""A plugin of pytest: each outcome as a line of JSON at once, so that running out of time loses no reason."""

import json
import os
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """Append to the file that `REBUS_GPU_OUTCOMES` names: the test itself, and what failed or was skipped before it."""
    if report.when != "call" and report.passed:
        return
    line: dict[str, Any] = {"name": report.nodeid.partition("::")[2], "outcome": report.outcome}
    line["seconds"] = round(report.duration, 2)
    if not report.passed:
        line["message"] = str(report.longrepr)[-800:]
    with open(os.environ["REBUS_GPU_OUTCOMES"], "a") as file:
        file.write(json.dumps(line) + "\n")
