"""What was measured as a Markdown page: hardware, the parts, their figures."""

from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST = 90


def table(result: Mapping[str, Any]) -> str:
    """A line for each part and one for each figure; figures within figures are named `a · b`."""
    hardware, versions = result["hardware"], result["versions"]
    lines = ["# Measured on a GPU" if not result["tiny"] else "# A rehearsal: the figures mean nothing", ""]
    for title, values in (("hardware", hardware), ("versions", versions)):
        lines.append(f"{title}: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    lines += [f"commit: {result['commit']}", "", "| part | ended | seconds |", "| --- | --- | --- |"]
    for part in result["parts"]:
        ended = "well" if part["ok"] else _cell(part.get("error", ""))
        lines.append(f"| {part['name']} | {ended} | {part['seconds']:.0f} |")
    lines += ["", "| part | figure | value |", "| --- | --- | --- |"]
    for part in result["parts"]:
        lines += [f"| {part['name']} | {_cell(name)} | {_value(value)} |" for name, value in _flat(part["figures"])]
    return "\n".join(lines) + "\n"


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} · ")
        elif isinstance(value, list):
            for number, each in enumerate(value, start=1):
                text = (
                    ", ".join(f"{n} {v if isinstance(v, str) else _value(v)}" for n, v in each.items())
                    if isinstance(each, Mapping)
                    else each
                )
                yield f"{prefix}{name} · {number}", text
        else:
            yield prefix + name, value


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _cell(str(value))


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= 2 * _LONGEST else text[: 2 * _LONGEST - 3] + "..."
