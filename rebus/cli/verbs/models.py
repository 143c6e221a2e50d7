"""List the models: name, size, tasks, licence, and where the weights are."""

import argparse

from rebus import catalog
from rebus.cli.choose_model import cached_names, where
from rebus.cli.output import emit, note, say, short_count, table
from rebus.core.errors import unknown

EXAMPLE = "rebus models --task caption"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", metavar="FAMILY", help="only this family, such as contrastive")
    parser.add_argument("--task", metavar="TASK", help="only models with this task, such as caption")
    parser.add_argument("--released", action="store_true", help="only models whose weights were published")


def run(args: argparse.Namespace) -> int:
    every = list(catalog.cards())
    families, tasks = {c.family for c in every}, {task for c in every for task in c.tasks}
    if args.family is not None and args.family not in families:
        raise unknown("family", args.family, families, see=f"Families: {', '.join(sorted(families))}.")
    if args.task is not None and args.task not in tasks:
        raise unknown("task", args.task, tasks, see=f"Tasks: {', '.join(sorted(tasks))}.")
    cards = catalog.list_models(args.family, args.task, True if args.released else None)
    cached = cached_names()
    if args.json:
        emit(
            [
                {
                    "name": c.name,
                    "family": c.family,
                    "parameters": c.parameters,
                    "tasks": sorted(c.tasks),
                    "domain": c.domain,
                    "license": c.license,
                    "released": c.released,
                    "weights": where(c, cached),
                    "repo": c.repo,
                }
                for c in cards
            ]
        )
        return 0
    rows = [
        (
            c.name,
            short_count(c.parameters) if c.parameters else "its parts'",
            " ".join(sorted(_shown(c.tasks))),
            c.license.partition(" (")[0],
            where(c, cached),
        )
        for c in cards
    ]
    for line in table(("name", "size", "tasks", "licence", "weights"), rows, right=(1,)):
        say(line)
    note(f"{len(rows)} models; rebus info NAME shows the card of one")
    return 0


def _shown(tasks: frozenset[str]) -> set[str]:
    """Without what goes without saying: whoever captions streams, whoever matches embeds."""
    return {task.replace("embed_images", "embed") for task in tasks if task not in ("stream", "embed_texts")}
