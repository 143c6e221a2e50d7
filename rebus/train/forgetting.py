"""What a fine-tuning broke: losses and scores before and after, on the new data and on what must not be forgotten."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.strict_json import to_json
from rebus.train.task_scores import MEANINGS

Scores = Mapping[str, Mapping[str, float]]  # data → measure → value
BEFORE, REPORT = "before.json", "report.json"
_MEANINGS = {"loss": "what the objective gives on held-out data, lower is better", **MEANINGS}


def write_before(out: Path, scores: Scores) -> None:
    _write(out / BEFORE, to_json(scores, indent=2))


def was_measured(out: Path) -> bool:
    return (out / BEFORE).is_file()


def write_report(out: Path, after: Scores) -> dict[str, Any]:
    """`report.json` and `report.md` in the run's folder; gives what is in the first."""
    before = json.loads((out / BEFORE).read_text())
    now = json.loads(to_json(after))
    found = {name: {"before": before[name], "after": now[name]} for name in now if name in before}
    _write(out / REPORT, to_json(found, indent=2) + "\n")
    rows = ["# Before and after", "", "| data | measure | before | after |", "| --- | --- | --- | --- |"]
    for name, both in found.items():
        for measure, value in both["after"].items():
            rows.append(f"| {name} | {measure} | {shown(both['before'][measure])} | {shown(value)} |")
    terms = dict.fromkeys(measure for both in found.values() for measure in both["after"])
    rows += ["", *(f"- {measure}: {_MEANINGS[measure]}" for measure in terms if measure in _MEANINGS)]
    _write(out / "report.md", "\n".join(rows) + "\n")
    return found


def shown(value: float | None) -> str:
    """A loss for people; None is what was not finite."""
    return "not finite" if value is None else f"{value:.4f}"


def _write(path: Path, text: str) -> None:
    write_bytes_atomically(path, text.encode())
