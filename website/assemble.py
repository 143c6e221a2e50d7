"""Gather the pages of the site: those of docs/, and those generated from the code and the catalogue."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from website import api_pages, help_pages, system_pages
from website.equations import with_equations
from website.flow_figure import with_figures

ROOT = Path(__file__).parents[1]
SOURCE = "https://github.com/rebus-vlm/rebus/blob/main"


def assemble(pages: Path, config: Path) -> Path:
    """Fill the new folder `pages` and write `config`, the root's mkdocs.yml with all pages named; gives the latter."""
    shutil.copytree(ROOT / "docs", pages)
    shutil.copy(ROOT / "README.md", pages / "index.md")
    for name, text in generated():
        target = pages / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for page in sorted(pages.rglob("*.md")):
        text = _relinked(page.read_text(encoding="utf-8"), page.relative_to(pages))
        page.write_text(with_equations(with_figures(text, page)), encoding="utf-8")
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    settings |= {"docs_dir": pages.name, "site_dir": "site"}  # beside the written file
    settings["nav"] = [_named(entry, pages) for entry in settings["nav"]]
    config.write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))
    return config


def generated() -> Iterator[tuple[str, str]]:
    """(path below docs/, Markdown) of every page that is not written by hand, or only in part."""
    yield from system_pages.pages(ROOT)
    yield from help_pages.pages()
    yield from api_pages.pages(ROOT / "rebus")


def _named(entry: Any, pages: Path) -> Any:
    """An entry of the navigation; of a folder, which ends in /, all its pages."""
    if isinstance(entry, list):
        return [_named(one, pages) for one in entry]
    if not isinstance(entry, dict):
        return entry
    (title, value), *_ = entry.items()
    if isinstance(value, list):
        return {title: [_named(one, pages) for one in value]}
    if value.endswith("/"):
        return {title: [str(page.relative_to(pages)) for page in sorted((pages / value).glob("*.md"), key=_place)]}
    return entry


def _place(page: Path) -> tuple[bool, str]:
    """The page of a folder itself first, the others by name."""
    return page.stem != "index", page.stem


def _relinked(text: str, page: Path) -> str:
    """Links of a page that lies in docs/, or of the README, as they are in the site: files that are no page are those
    of the repository."""
    home = Path() if page.name == "index.md" and page.parent == Path() else Path("docs") / page.parent

    def link(found: re.Match[str]) -> str:
        target, anchor = found[2], found[3] or ""
        if "://" in target or target.startswith("mailto:") or not target:
            return found[0]
        path = Path(os.path.normpath(home / target))
        if path == Path("README.md"):
            path = Path("docs/index.md")
        if path.parts[0] == "docs" and path.suffix:
            return f"{found[1]}({os.path.relpath(path, Path('docs') / page.parent)}{anchor})"
        return f"{found[1]}({SOURCE}/{path}{anchor})"

    return re.sub(r"(\])\(([^)#\s]*)(#[^)\s]*)?\)", link, text)
