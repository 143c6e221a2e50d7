"""An explanation as one self-contained HTML file: the image and its text, then a row for each anchor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rebus.codec.html_page import STYLE, embedded_image, escaped

_SIDE = 160  # pixels of an image, at most
_STYLE = (
    "body{max-width:60rem}table{border-collapse:collapse}td,th{padding:.4rem .8rem;text-align:left;"
    "border-bottom:1px solid #8886}.number{text-align:right;font-variant-numeric:tabular-nums}img{display:block}"
)
_NUMBERS = ("share", "image", "text", "weight")


def anchor_page(
    image: Path, text: str, score: float, anchors: Sequence[tuple[Any, Path | None]], more: tuple[int, float]
) -> str:
    """`anchors`: those that are shown, each with the file of its image where there is one. `more`: how many others
    there are, and the sum of their shares. Names and captions are text, whatever they hold."""
    head = "".join(f"<th class='number'>{name}</th>" for name in _NUMBERS)
    rows = [_row(one, file) for one, file in anchors]
    if more[0]:
        rows.append(f"<tr><td class='number'>{more[1]:.4f}</td><td colspan='6'>{more[0]:,} more anchors</td></tr>")
    return "\n".join(
        (
            f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escaped(text)}</title>",
            f"<style>{STYLE}{_STYLE}</style></head><body><h1>{score:.4f} {escaped(text)}</h1>",
            embedded_image(image, _SIDE),
            "<p>The contributions of all anchors sum to the score.</p>",
            f"<table><thead><tr>{head}<th></th><th>caption</th><th>anchor</th></tr></thead><tbody>",
            *rows,
            "</tbody></table></body></html>",
        )
    )


def _row(one: Any, file: Path | None) -> str:
    numbers = (
        f"{one.contribution:.4f}",
        f"{one.image_similarity:.3f}",
        f"{one.text_similarity:.3f}",
        f"{one.weight:g}",
    )
    cells = "".join(f"<td class='number'>{number}</td>" for number in numbers)
    seen = "" if file is None else embedded_image(file, _SIDE)
    return f"<tr>{cells}<td>{seen}</td><td>{escaped(one.caption or '')}</td><td>{escaped(one.id)}</td></tr>"
