"""Search results as one HTML file: thumbnails with their scores and names."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rebus.codec.html_page import embedded_image, escaped

if TYPE_CHECKING:
    from rebus.index.search import Hit

_SIDE = 320
_STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem}ol{list-style:none;padding:0;"
    "display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr))}figure{margin:0}"
    "img{width:100%;height:12rem;object-fit:contain;background:#8882}figcaption{overflow-wrap:anywhere}"
)


def search_page(title: str, root: str, hits: "Sequence[Hit]", progress: Callable[[], None] = lambda: None) -> str:
    """Names and captions are text, whatever they hold; the page refers to the files and holds small copies."""
    cells = []
    for hit in hits:
        path = Path(hit.path)
        said = f"{hit.score:.3f} {Path(hit.path).name}" + (f" · {hit.caption}" if hit.caption else "")
        try:
            link = f"<a href='{escaped(path.as_uri())}'>{embedded_image(path, _SIDE)}</a>"
        except ValueError:  # a name that no address can spell
            link = embedded_image(path, _SIDE)
        cells.append(f"<li><figure>{link}<figcaption>{escaped(said)}</figcaption></figure></li>")
        progress()
    return "\n".join(
        (
            f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escaped(title)}</title>",
            f"<style>{_STYLE}</style></head><body><h1>{escaped(title)}</h1>",
            f"<p>{len(hits):,} images of {escaped(root)}</p><ol>",
            *cells,
            "</ol></body></html>",
        )
    )
