"""Walk a built site: links that lead nowhere, and what a browser would ask other hosts for."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

_LOADED = {
    "img": ("src", "srcset"),
    "script": ("src",),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "use": ("href",),
}
_LINKS_LOADED = ("stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest")


class _Page(HTMLParser):
    """Links, what is loaded, and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "link" and any(kind in given.get("rel", "").split() for kind in _LINKS_LOADED):
            self.loads.append(given.get("href", ""))
        self.loads += [given[name] for name in _LOADED.get(tag, ()) if given.get(name)]


def faults(site: Path) -> list[str]:
    """One line for each broken link and each foreign request of all pages; empty for a sound site."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = [fault for path, page in pages.items() for fault in _of_page(site, path, page, pages)]
    for sheet in sorted(site.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        if "url(http" in text or "@import" in text:
            found.append(f"{sheet.relative_to(site)}: loads from elsewhere")
    return found


def _of_page(site: Path, path: Path, page: _Page, pages: dict[Path, _Page]) -> Iterator[str]:
    here = path.relative_to(site)
    for address in page.loads:
        if urlsplit(address).scheme in ("http", "https") or address.startswith("//"):
            yield f"{here}: loads {address}"
        elif not address.startswith("data:") and not _file(site, path, address).is_file():
            yield f"{here}: loads {address}, which is not there"
    for address in page.links:
        if urlsplit(address).scheme or address.startswith("//"):
            continue  # another host, which nobody visits here
        target, anchor = urldefrag(address)
        file = _file(site, path, target) if target else path
        if not file.is_file():
            yield f"{here}: links to {address}, which is not there"
        elif anchor and file in pages and unquote(anchor) not in pages[file].anchors:
            yield f"{here}: links to {address}, which has no such place"


def _file(site: Path, page: Path, address: str) -> Path:
    path = unquote(urlsplit(address).path)
    file = site / path.lstrip("/") if path.startswith("/") else page.parent / path
    file = file.resolve()
    return file / "index.html" if file.is_dir() else file
