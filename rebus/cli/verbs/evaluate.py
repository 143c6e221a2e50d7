"""Measure a model on a benchmark, on held-out data."""

import argparse
import time

from rebus.cli.arguments import add_placement, positive
from rebus.cli.choosing import open_model
from rebus.cli.output import bold, emit, note, say

EXAMPLE = "rebus eval clip/scenes scenes --json"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="catalogue name, directory or Hub id")
    parser.add_argument("benchmark", metavar="BENCHMARK", help="scenes")
    parser.add_argument("--number", metavar="N", type=positive, default=1000, help="pictures (%(default)s)")
    parser.add_argument("--split", metavar="SPLIT", default="test", help="test, val or novel (%(default)s)")
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    from rebus.core.errors import unknown
    from rebus.evaluate import BENCHMARKS, evaluate

    if args.benchmark not in BENCHMARKS:
        raise unknown("benchmark", args.benchmark, BENCHMARKS, f"Benchmarks: {', '.join(BENCHMARKS)}.")
    model = open_model(args, None)
    began = time.monotonic()
    scores = evaluate(model, args.benchmark, number=args.number, split=args.split)
    if args.json:
        emit({"model": model.card.name, **scores, "seconds": round(time.monotonic() - began, 1)})
        return 0
    say(bold(f"{model.card.name} on {args.benchmark}, {args.number} pictures of {args.split!r}"))
    for name, value in scores.items():
        if isinstance(value, float):
            say(f"  {name:<24}{value:.3f}")
        elif isinstance(value, dict):
            for kind, number in value.items():
                say(f"    {kind:<22}{number:.3f}")
    note(f"measured in {time.monotonic() - began:.0f} s")
    return 0
