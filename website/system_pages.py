"""The page of a system: what is written in docs/systems, and below it what the catalogue, the recipes and the
reproductions say. A new system needs its text there, and nothing here."""

import re
from collections.abc import Iterator
from pathlib import Path

from rebus import catalog
from rebus.catalog.terms import terms_of
from rebus.core.card import ModelCard
from rebus.recipes import RECIPES
from rebus.reproduce import CLAIMS


def pages(root: Path) -> Iterator[tuple[str, str]]:
    """systems/index.md and a page for each row of the catalogue. Raises `FileNotFoundError` for one without a text."""
    lines = ["# Systems", "", "| system | family | idea |", "| --- | --- | --- |"]
    for name, row in catalog.SYSTEMS.items():
        lines.append(f"| [{name}]({name}.md) | [{row.family}](../families/{row.family}.md) | {row.idea} |")
    yield "systems/index.md", "\n".join([*lines, ""])
    for name in catalog.SYSTEMS:
        written = (root / "docs" / "systems" / f"{name}.md").read_text(encoding="utf-8").rstrip()
        yield (
            f"systems/{name}.md",
            "\n".join([written, "", *_catalogued(name), *_code(root, name), *_claim(root, name)]),
        )


def _catalogued(name: str) -> Iterator[str]:
    row = catalog.SYSTEMS[name]
    cards = [card for card in catalog.cards() if card.system == name]
    yield from ("## In the catalogue", "")
    yield from (
        f"- Idea: {row.idea}.",
        f"- Paper: {row.paper}.",
        f"- Family: [{row.family}](../families/{row.family}.md).",
    )
    yield f"- Tasks: {', '.join(f'`{task}`' for task in sorted(row.tasks))}."
    yield from (f"- A score: {row.score}.", f"- Known limits: {row.limits}.", "")
    yield from ("| name | parameters | weights | licence | commercial use |", "| --- | ---: | --- | --- | --- |")
    for card in cards:
        count = f"{card.parameters:,}" if card.parameters else "those of its parts"
        yield f"| `{card.name}` | {count} | {_where(card)} | {card.license} | {terms_of(card).commercial} |"
    yield ""


def _where(card: ModelCard) -> str:
    if card.bundled:
        return "in the package"
    if card.extra is not None:
        return f"extra `{card.extra}`"
    if card.repo is not None:
        return f"`{card.repo}`"
    if card.parts:
        return ", ".join(f"`{part}`" for part in card.parts.values())
    return "an archive of its authors" if card.released else "never released"


def _code(root: Path, name: str) -> Iterator[str]:
    module = catalog.SYSTEMS[name].module
    file = Path(*module.split(".")).with_suffix(".py")
    page = module.rpartition(".")[0]
    yield from ("## Code map", "", "| what | where |", "| --- | --- |")
    yield f"| network, configurations, layouts, prompts | [`{file}`](../../{file}), [reference](../api/{page}.md) |"
    tests = sorted(root.glob(f"tests/**/test_{name}*.py"))
    if tests:
        yield f"| tests | {', '.join(f'[`{t.relative_to(root)}`](../../{t.relative_to(root)})' for t in tests)} |"
    recipes = [recipe for recipe in RECIPES if recipe.split("_")[0] == name]
    if recipes:
        yield f"| recipes | {', '.join(f'`rebus train {recipe}`' for recipe in recipes)} |"
    if name in CLAIMS:
        claim = f"rebus/reproduce/{name}.py"
        yield f"| claim | [`{claim}`](../../{claim}), `rebus reproduce {name}` |"
    yield ""


def _claim(root: Path, name: str) -> Iterator[str]:
    if name not in CLAIMS:
        return
    yield from ("## Does its claim hold here?", "", f"{CLAIMS[name]}. `rebus reproduce {name}` measures it.", "")
    rows = _measured((root / "docs" / "reproductions.md").read_text(encoding="utf-8"), name)
    if not rows:
        yield from ("It was not run at its full size yet.", "")
        return
    yield from ("| the paper | here: mean ± spread | |", "| --- | --- | --- |", *rows, "")
    yield from ("[How this is measured](../reproductions.md)", "")
    figure = f"figures/reproduce-{name}.png"
    if (root / "docs" / figure).exists():
        yield from (f"![Figures of the reproduction of {name}, by seed and setting](../{figure})", "")


def _measured(text: str, name: str) -> list[str]:
    """Rows of a claim in the table of reproductions, which names it in its first row, without name and minutes."""
    found, inside = [], False
    for line in text.splitlines():
        if not line.startswith("| "):
            inside = False
            continue
        cells = [cell.strip() for cell in line[1:].rstrip().removesuffix("|").split("|")]
        named = re.match(r"`(\w+)`", cells[0])
        inside = (named[1] == name) if named else inside and not cells[0]
        if inside and len(cells) >= 5:
            found.append(f"| {cells[1]} | {cells[2]} | {cells[-1]} |")
    return found
