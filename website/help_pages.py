"""A page for every command: its help, as `rebus VERB --help` prints it."""

from collections.abc import Iterator
from importlib import import_module

from rebus.cli.app import GROUPS, VERBS, overview, parser_for


def pages() -> Iterator[tuple[str, str]]:
    """commands/index.md with the overview, and a page a verb with its parts."""
    lines = ["# Commands", "", "```text", overview(), "```", ""]
    for title, verbs in GROUPS.items():
        lines += [f"**{title}**", "", *(f"- [`rebus {verb}`]({verb}.md): {VERBS[verb][1]}" for verb in verbs), ""]
    yield "commands/index.md", "\n".join(lines)
    for verb in VERBS:
        yield f"commands/{verb}.md", _page(verb)


def _page(verb: str) -> str:
    module = import_module(f"rebus.cli.verbs.{VERBS[verb][0]}")
    parts = [[verb], *([verb, part] for part in getattr(module, "PARTS", {}))]
    lines = [f"# rebus {verb}", ""]
    for words in parts:
        if len(words) > 1:
            lines += [f"## rebus {' '.join(words)}", ""]
        lines += ["```text", parser_for(words)[1].format_help().rstrip(), "```", ""]
    return "\n".join(lines)
