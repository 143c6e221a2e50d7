"""What was measured as a Markdown page: hardware, the parts, their figures, the busiest kernels."""

from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST = 180
_KERNEL = 70


def table(result: Mapping[str, Any]) -> str:
    """A line for each part and one for each figure; figures within figures are named `a · b`. Lists of kernels are
    tables of their own."""
    lines = ["# Measured on a GPU" if not result["tiny"] else "# A rehearsal: the figures mean nothing", ""]
    for title in ("hardware", "versions"):
        lines += [f"{title}: " + ", ".join(f"{name} {value}" for name, value in result[title].items()), ""]
    if result.get("commit"):
        lines += [f"commit: {result['commit']}", ""]
    lines += ["| part | ended | seconds |", "| --- | --- | --- |"]
    for part in result["parts"]:
        ended = "well" if part["ok"] else _cell(part.get("error", ""))
        lines.append(f"| {part['name']} | {ended} | {part['seconds']:.0f} |")
    lines += ["", "| part | figure | value |", "| --- | --- | --- |"]
    for part in result["parts"]:
        for name, value in _flat(part["figures"]):
            if not isinstance(value, list):
                lines.append(f"| {part['name']} | {_cell(name)} | {_value(name, value)} |")
    for part in result["parts"]:
        for name, value in _flat(part["figures"]):
            if isinstance(value, list):
                lines += ["", f"## {part['name']}: {name}", "", *_kernels(value)]
    return "\n".join(lines) + "\n"


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} · ")
        else:
            yield prefix + name, value


def _kernels(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "| kernel | calls | µs a call | share of the time |"
    yield "| --- | --- | --- | --- |"
    for row in rows:
        kernel, calls = row["kernel"], row["calls"]
        name = kernel if len(kernel) <= _KERNEL else kernel[: _KERNEL - 3] + "..."
        yield f"| {_cell(name)} | {calls} | {row['microseconds'] / calls:.1f} | {row['share']:.1%} |"


def _value(name: str, value: Any) -> str:
    """Three digits or whole numbers; shares in percent."""
    if isinstance(value, float):
        if "share" in name:
            return f"{value:.1%}"
        return f"{value:,.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _cell(str(value))


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
