"""List the models: name, size, tasks, licence, and where the weights are. Filters go together."""

import argparse

from rebus import catalog
from rebus.catalog.terms import COMMERCIAL, terms_of
from rebus.cli.choose_model import cached_names, where
from rebus.cli.output import emit, note, say, short_count, table
from rebus.cli.verdict import fits
from rebus.core.card import PHOTOS, SHAPES, ModelCard
from rebus.core.errors import unknown

EXAMPLE = "rebus models --task caption --commercial yes --fits"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", metavar="FAMILY", help="only this family, such as contrastive")
    parser.add_argument("--task", metavar="TASK", help="only models with this task, such as caption")
    parser.add_argument("--released", action="store_true", help="only models whose weights were published")
    parser.add_argument("--here", action="store_true", help="only models that need no download")
    parser.add_argument("--ready", action="store_true", help="no bases that want fine-tuning first")
    parser.add_argument("--open", action="store_true", help="no gated weights")
    parser.add_argument("--commercial", choices=COMMERCIAL, help="only licences that say so about commercial use")
    parser.add_argument("--license", metavar="TEXT", help="only licences with this in their name, such as MIT")
    parser.add_argument("--domain", choices=(PHOTOS, SHAPES), help="only models of photos, or of synthetic shapes")
    parser.add_argument("--largest", metavar="N", type=_count, help="at most so many parameters, such as 500M or 3B")
    parser.add_argument(
        "--fits",
        metavar="GB",
        type=_gigabytes,
        nargs="?",
        const=0,
        help="weights in float32 fit so much memory (this machine's)",
    )


def run(args: argparse.Namespace) -> int:
    every = list(catalog.cards())
    families, tasks = {c.family for c in every}, {task for c in every for task in c.tasks}
    if args.family is not None and args.family not in families:
        raise unknown("family", args.family, families, see=f"Families: {', '.join(sorted(families))}.")
    if args.task is not None and args.task not in tasks:
        raise unknown("task", args.task, tasks, see=f"Tasks: {', '.join(sorted(tasks))}.")
    cached = cached_names()
    cards = [
        card
        for card in catalog.list_models(args.family, args.task, True if args.released else None)
        if _wanted(card, args, where(card, cached))
    ]
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
                    "commercial": terms_of(c).commercial,
                    "gated": terms_of(c).gated,
                    "ready": c.ready,
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


def _wanted(card: ModelCard, args: argparse.Namespace, weights: str) -> bool:
    """Whether a card passes the filters that the catalogue itself does not have."""
    terms = terms_of(card)
    return (
        (not args.here or weights in ("bundled", "installed", "cached"))
        and (not args.ready or card.ready)
        and (not args.open or not terms.gated)
        and (args.commercial is None or terms.commercial == args.commercial)
        and (args.license is None or args.license.casefold() in card.license.casefold())
        and (args.domain is None or card.domain == args.domain)
        and (args.largest is None or card.parameters <= args.largest)
        and (args.fits is None or fits(card, args.fits or None))
    )


def _count(text: str) -> int:
    units = {"k": 10**3, "m": 10**6, "b": 10**9}
    number, unit = (text[:-1], units[text[-1].lower()]) if text[-1:].lower() in units else (text, 1)
    try:
        value = int(float(number) * unit)
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number such as 500M or 3B; got {text!r}")
    return value


def _gigabytes(text: str) -> int:
    try:
        value = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected gigabytes above 0; got {text!r}")
    return value


def _shown(tasks: frozenset[str]) -> set[str]:
    """Without what goes without saying: whoever captions streams, whoever matches embeds."""
    return {task.replace("embed_images", "embed") for task in tasks if task not in ("stream", "embed_texts")}
