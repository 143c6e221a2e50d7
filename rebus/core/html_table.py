"""Answers as HTML tables, which notebooks show: every text is escaped."""

import html
import math
from collections.abc import Iterable, Sequence


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a row of titles; numbers with a fraction have three digits after it, NaN is empty."""
    titles = "".join(f"<th style='text-align:left'>{cell(title)}</th>" for title in head)
    lines = ("<tr>" + "".join(f"<td style='text-align:left'>{cell(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else ""
    return html.escape(str(value).encode("utf-8", "replace").decode())
