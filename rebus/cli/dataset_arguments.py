"""A data set on the command line: its path and layout, and resumable work on it."""

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
    parser.add_argument("path", metavar="PATH", type=Path, help="the data set: a folder, or one of its files")
    parser.add_argument("--layout", metavar="NAME", default="auto", help="its layout (default: auto-detected)")
    parser.add_argument("--split", metavar="SPLIT", help="train, val, test, … (default: all)")
    add_root(parser)


def add_root(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--root", metavar="DIR", type=Path, help="folder of its images, if outside the data set's folder"
    )


def add_shards(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard-size", metavar="N", type=positive, default=10_000, help="records per shard (%(default)s)"
    )
    parser.add_argument(
        "--resize", metavar="N", type=positive, help="resize larger images to a shorter side of N pixels"
    )
    parser.add_argument(
        "--quality", metavar="N", type=percent, default=90, help="JPEG quality of resized images (%(default)s)"
    )


def add_writing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="a new folder; an interrupted run resumes in it"
    )
    add_shards(parser)
    parser.add_argument(
        "--max-bad",
        metavar="FRACTION",
        type=share,
        default=0.1,
        help="stop at this fraction of damaged records or files (%(default)s)",
    )
    parser.add_argument("--threads", metavar="N", type=positive, help="images in parallel (default: one per core)")


def open_source(args: argparse.Namespace) -> tuple[str, Reader]:
    """The name of the layout, and a reader. Raises what `open_layout` raises."""
    from rebus.data.layouts import LAYOUTS, open_layout

    name = args.layout
    if name == "auto" and args.path.exists():
        name = next((n for n in LAYOUTS if import_module(LAYOUTS[n]).recognises(args.path)), name)
    return name, open_layout(args.path, name, args.split, args.root)


def converter(args: argparse.Namespace, reader: Reader, layout: str, to: Any, **source: Any) -> Converter:
    """The conversion that writes a reader's records into `--out`."""
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
    """Run it with a progress bar; None where it was interrupted."""
    return going_on(work.units.folder, "records", work.total, lambda: work.done, work.run)


def name_damaged(faults: Sequence[str]) -> None:
    """Report truncated and damaged files."""
    for fault in faults[:_NAMED]:
        note(f"damaged file: {fault}")
    if len(faults) > _NAMED:
        note(f"and {len(faults) - _NAMED:,} more damaged files; --json lists all")


def going_on(
    folder: Path, what: str, total: int, done: Callable[[], int], run: Callable[[Callable[[Any], None]], Any]
) -> Any:
    """`run(report)` with a progress bar of `total`; Ctrl-C prints how to resume; None where it was interrupted. What is
    reported is one item, or how many."""
    before = done()
    if 0 < before < total:
        note(f"{folder}: resuming after {before:,} of {total:,} {what}")
    try:
        with bar(what, total, done=before) as progress:
            return run(lambda outcome: progress.advance(count=outcome if isinstance(outcome, int) else 1))
    except KeyboardInterrupt:
        note(f"interrupted; {done():,} of {total:,} {what} are done and saved. Run the same command to resume")
        return None


def percent(text: str) -> int:
    """A quality, for argparse."""
    value = positive(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100; got {text!r}")
    return value


def share(text: str) -> float:
    """A part of one, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction from 0 to 1; got {text!r}")
    return value
