"""The most similar images for each text, with their scores, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rebus.codec.html_page import STYLE, embedded_image, escaped, link_from

_SIDE = 220  # pixels of an image, at most
_GRID = (
    "body{max-width:80rem}main{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:1rem}"
    "figure{margin:0}img{display:block;max-width:100%}figcaption{font-size:.85rem;overflow-wrap:anywhere}"
    "b{font-variant-numeric:tabular-nums}"
)


def hit_page(page: Path, best: Mapping[str, Sequence[Mapping[str, Any]]], column: str) -> str:
    """`best`: of each text its images with their scores, best first. `column`: what the scores are."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>matches</title>",
        f"<style>{STYLE}{_GRID}</style></head><body>",
    ]
    for text, hits in best.items():
        parts.append(f"<h1>{escaped(text)}</h1><p>{len(hits):,} images, best first, with their {column}</p><main>")
        parts += [_figure(page, Path(hit["image"]), hit["score"]) for hit in hits]
        parts.append("</main>")
    return "\n".join([*parts, "</body></html>"])


def _figure(page: Path, file: Path, score: float) -> str:
    image = f"<a href='{link_from(page, file)}'>{embedded_image(file, _SIDE)}</a>"
    return f"<figure>{image}<figcaption><b>{score:.3f}</b> {escaped(str(file))}</figcaption></figure>"
