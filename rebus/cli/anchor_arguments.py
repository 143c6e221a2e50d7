"""Options of the commands that edit anchors: the model's folder, and where the edited model is written."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus import catalog
from rebus.cli.arguments import add_placement
from rebus.cli.choose_model import open_model
from rebus.cli.output import emit, say
from rebus.core.errors import UsageError

if TYPE_CHECKING:
    from rebus.api import Model


def add_edited(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the model's folder, or a catalogue name with --out")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write the edited model there (default: in place)")
    add_placement(parser)


def edit(args: argparse.Namespace, change: Callable[[Model], dict[str, Any]]) -> int:
    """Load the model, `change` it, write it atomically; returns what `change` returns."""
    from rebus.recipes.asif import check_free, save_edited

    if args.out is not None:
        check_free(args.out)
    elif args.model in catalog.ROWS or args.model in catalog.bundled():
        raise UsageError(f"{args.model} is not edited in place: give --out with a folder for the edited model")
    if args.quantize:
        raise UsageError("a quantized model cannot be saved: drop --quantize")
    model = open_model(args, None)
    facts = change(model)
    folder = save_edited(model, args.model, args.out or args.model)
    network: Any = model.network
    anchors = sum(len(table) for table in network.pairs())
    if args.json:
        emit({"folder": str(folder), "anchors": anchors, **facts})
    else:
        listed = ", ".join(f"{name} {value}" for name, value in facts.items() if not isinstance(value, list))
        say(f"{folder}: {listed + '; ' if listed else ''}{anchors:,} anchors")
    return 0
