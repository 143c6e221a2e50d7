"""Figures of how data flows, drawn as SVG from a few lines of text that read well by themselves.

    ```flow CLIP
    image → [image encoder] → image vector → cosines
    text → [text encoder] → text vector → cosines
    ```

[…] is a network that is trained, (…) one that is frozen, anything else data. A box that is named twice is one box.
"""

import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

_FLOW = re.compile(r"^```flow (.+?)\n(.*?)^```[^\S\n]*$", re.M | re.S)
_LETTER, _HEIGHT, _GAP = 7.6, 34, 36  # pixels
_WIDEST = 740  # of a figure that goes from left to right; a longer one goes down the page
_KINDS = {"[": "trained", "(": "frozen"}
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1b1f24;text-anchor:middle}rect{fill:#fff;stroke:#8a939d}"
    "rect.trained{fill:#ffe9c7;stroke:#b36b00}rect.frozen{fill:#dcecff;stroke:#2267b5;stroke-dasharray:5 3}"
    "path{fill:none;stroke:#57606a;stroke-width:1.4}"
)


def with_figures(text: str, page: Path) -> str:
    """Each flow of a page as an image beside it, with the flow in words as its alternative text."""

    def draw(found: re.Match[str]) -> str:
        title, flow = found[1].strip(), found[2]
        name = f"{page.stem}-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}.svg"
        (page.parent / name).write_text(svg(title, flow), encoding="utf-8")
        return f"![{alternative(title, flow)}]({name})\n\n*{title}. Orange is trained, blue and dashed is frozen.*"

    return _FLOW.sub(draw, text)


def alternative(title: str, flow: str) -> str:
    """The flow in words."""
    chains = ["; ".join(" to ".join(_bare(name) for name in chain) for chain in _chains(flow))]
    return f"Data flow of {title}: {chains[0]}.".replace("]", "").replace("[", "")


def svg(title: str, flow: str) -> str:
    """The figure. How far a box is from a beginning follows from the longest way there; each line is a lane
    of its own."""
    chains = _chains(flow)
    boxes = list(dict.fromkeys(name for chain in chains for name in chain))
    arrows = list(dict.fromkeys(pair for chain in chains for pair in pairwise(chain)))
    column = _columns(boxes, arrows)
    row: dict[str, int] = {}
    for number, chain in enumerate(chains):
        for name in chain:
            row.setdefault(name, number)
    wide = {name: _LETTER * len(_bare(name)) + 22 for name in boxes}
    down = sum(max(wide[n] for n in boxes if column[n] == at) + _GAP for at in set(column.values())) > _WIDEST
    step, lane = (row, column) if down else (column, row)  # across the page, and down it
    widths = [max((wide[n] for n in boxes if step[n] == at), default=0) for at in range(max(step.values()) + 1)]
    left = [10 + sum(widths[:at]) + (_GAP if not down else 20) * at for at in range(len(widths))]
    pitch = _HEIGHT + (_GAP if down else 20)
    middle = {n: (left[step[n]] + widths[step[n]] / 2, 10 + _HEIGHT / 2 + pitch * lane[n]) for n in boxes}
    width, height = left[-1] + widths[-1] + 10, 20 + _HEIGHT + pitch * max(lane.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img"><title>{escape(alternative(title, flow))}</title><style>{_STYLE}</style>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" style="fill:#57606a;stroke:none"/></marker></defs>'
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" style="fill:#fbfcfd;stroke:none"/>'
    ]
    for start, end in arrows:
        (x, y), (to_x, to_y) = middle[start], middle[end]
        if down:
            y, to_y = y + _HEIGHT / 2, to_y - _HEIGHT / 2
            turn = to_y - _GAP  # straight on in its own lane until the last gap
            curve = f"V{turn:.0f}C{x:.0f} {to_y - 8:.0f} {to_x:.0f} {turn + 8:.0f} {to_x:.0f} {to_y - 2:.0f}"
        else:
            x, to_x = x + widths[step[start]] / 2, to_x - widths[step[end]] / 2
            turn = to_x - _GAP
            curve = f"H{turn:.0f}C{to_x - 8:.0f} {y:.0f} {turn + 8:.0f} {to_y:.0f} {to_x - 2:.0f} {to_y:.0f}"
        parts.append(f'<path d="M{x:.0f} {y:.0f}{curve}" marker-end="url(#tip)"/>')
    for name in boxes:
        (x, y), size = middle[name], widths[step[name]] if not down else wide[name]
        kind = _KINDS.get(name[0], "data")
        parts.append(
            f'<rect class="{kind}" x="{x - size / 2:.0f}" y="{y - _HEIGHT / 2:.0f}" width="{size:.0f}" '
            f'height="{_HEIGHT}" rx="6"/><text x="{x:.0f}" y="{y + 4.5:.0f}">{escape(_bare(name))}</text>'
        )
    return "".join([*parts, "</svg>\n"])


def _columns(boxes: Sequence[str], arrows: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Of each box. Raises `ValueError` where the flow comes back to where it was."""
    column = dict.fromkeys(boxes, 0)
    for _ in boxes:
        for start, end in arrows:
            column[end] = max(column[end], column[start] + 1)
    if max(column.values()) >= len(boxes):
        raise ValueError(f"a flow that goes round: {', '.join(boxes)}")
    return column


def _chains(flow: str) -> list[list[str]]:
    return [[name.strip() for name in line.split("→")] for line in flow.splitlines() if line.strip()]


def _bare(name: str) -> str:
    return name[1:-1] if name[0] in _KINDS else name
