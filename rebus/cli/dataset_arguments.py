"""A data set on the command line: where it lies, how it is laid out, and work on it that goes on after an end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus.cli.arguments import positive
from rebus.cli.output import bar, note

if TYPE_CHECKING:
    from rebus.data.converting import Converter, Counts
    from rebus.data.record import Reader

_NAMED = 10  # damaged files that are said


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="the data set: a folder, or a file of it")
    parser.add_argument("--layout", metavar="NAME", default="auto", help="how it is laid out (default: recognised)")
    parser.add_argument("--split", metavar="SPLIT", help="train, val, test, … (default: all)")
    add_root(parser)


def add_root(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--root", metavar="DIR", type=Path, help="where its images lie, if it points out of its folder")


def add_shards(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shard-size", metavar="N", type=positive, default=10_000, help="records each (%(default)s)")
    parser.add_argument("--resize", metavar="N", type=positive, help="pixels of the shorter side of larger images")
    parser.add_argument("--quality", metavar="N", type=percent, default=90, help="of JPEGs made smaller (%(default)s)")


def add_writing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="a folder of its own; the same goes on")
    add_shards(parser)
    parser.add_argument(
        "--max-bad",
        metavar="SHARE",
        type=share,
        default=0.1,
        help="of damaged records or files to stop at (%(default)s)",
    )
    parser.add_argument("--threads", metavar="N", type=positive, help="images at a time (default: one a core)")


def open_source(args: argparse.Namespace) -> tuple[str, Reader]:
    """The name of the layout, and a reader. Raises what `open_layout` raises."""
    from rebus.data.layouts import LAYOUTS, open_layout

    name = args.layout
    if name == "auto" and args.path.exists():
        name = next((n for n in LAYOUTS if import_module(LAYOUTS[n]).recognises(args.path)), name)
    return name, open_layout(args.path, name, args.split, args.root)


def converter(args: argparse.Namespace, reader: Reader, layout: str, to: Any, **source: Any) -> Converter:
    """What writes a reader's records into `--out`."""
    import os

    from rebus.data.converting import Conversion, Converter
    from rebus.data.resize_images import Fitting

    settings = Conversion(
        to=to,
        shard_size=args.shard_size,
        fitting=Fitting(resize=args.resize, quality=args.quality),
        most_damaged=args.max_bad,
        threads=args.threads or os.cpu_count() or 1,
    )
    plan = {**source, "source": str(args.path.resolve()), "layout": layout, "split": args.split}
    if args.root is not None:
        plan["root"] = str(args.root.resolve())
    return Converter(reader, args.out, plan, settings)


def carry_out(work: Converter) -> Counts | None:
    """Do it under a bar; None where it was interrupted."""
    return going_on(work.units.folder, "records", work.total, lambda: work.done, work.run)


def name_damaged(faults: Sequence[str]) -> None:
    """Say which files could not be read to their end."""
    for fault in faults[:_NAMED]:
        note(f"damaged file: {fault}")
    if len(faults) > _NAMED:
        note(f"and {len(faults) - _NAMED:,} more damaged files; --json names them all")


def going_on(
    folder: Path, what: str, total: int, done: Callable[[], int], run: Callable[[Callable[[Any], None]], Any]
) -> Any:
    """`run(report)` under a bar of `total`, saying how to go on after Ctrl-C; None where it was interrupted. What is
    reported is one item, or how many."""
    before = done()
    if 0 < before < total:
        note(f"{folder}: going on after {before:,} of {total:,} {what}")
    try:
        with bar(what, total, done=before) as progress:
            return run(lambda outcome: progress.advance(count=outcome if isinstance(outcome, int) else 1))
    except KeyboardInterrupt:
        note(f"interrupted; {done():,} of {total:,} {what} are done and kept. The same command goes on from there")
        return None


def percent(text: str) -> int:
    """A quality, for argparse."""
    value = positive(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"wants 1 to 100; got {text!r}")
    return value


def share(text: str) -> float:
    """A part of one, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"wants a share from 0 to 1; got {text!r}")
    return value
