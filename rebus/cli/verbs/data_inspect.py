"""Show the contents of a data set: layout, records, fields, damaged records, and a contact sheet of examples.

Counts are of the whole data set, everything else of a random sample (--seed). Image sizes are read from the file
headers.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from rebus.cli.arguments import positive
from rebus.cli.dataset_arguments import add_source, open_source
from rebus.cli.output import bold, emit, note, say, table
from rebus.cli.output_files import check_image
from rebus.core.atomic_write import write_bytes_atomically

EXAMPLE = "rebus data inspect coco/ --split val --out sheet.jpg"
_NAMED = 10  # damaged records that are shown
_FACTS = 12


def arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument(
        "--sample", metavar="N", type=positive, default=1000, help="records in the sample (%(default)s)"
    )
    parser.add_argument(
        "--number", metavar="N", type=positive, default=24, help="examples on the contact sheet (%(default)s)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="random seed of the sample (%(default)s)")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="write a contact sheet of examples with texts and boxes"
    )


def run(args: argparse.Namespace) -> int:
    if args.out is not None:
        check_image(args.out)
    layout, reader = open_source(args)
    from rebus.data.inspecting import inspect

    seen = inspect(reader, sample=args.sample, examples=args.number, seed=abs(args.seed))
    if args.out is not None:
        from rebus.cli.contact_sheet import contact_sheet
        from rebus.tasks.draw import encoded

        write_bytes_atomically(args.out, encoded(contact_sheet(seen.examples), args.out.suffix))
    if args.json:
        out = {} if args.out is None else {"out": str(args.out)}
        emit({"path": str(args.path), "layout": layout, "split": args.split, **seen.to_json(), **out})
        return 0
    say(bold(f"{args.path}: {layout}, {seen.records:,} records in {seen.blocks:,} blocks"))
    whole = seen.sampled == seen.records
    say(f"{'all' if whole else 'a sample of'} {seen.sampled:,} records, {len(seen.damaged):,} of them damaged")
    good = max(1, seen.sampled - len(seen.damaged))
    fields = [*seen.fields.items(), *list(seen.facts.items())[:_FACTS]]
    say()
    for line in table(("has", "records"), [(name, f"{number / good:.0%}") for name, number in fields], right=(1,)):
        say(line)
    if len(seen.facts) > _FACTS:
        say(f"and {len(seen.facts) - _FACTS:,} more columns")
    measured: Mapping[str, Mapping[str, float]] = {
        "words of a caption": seen.caption_words,
        "captions of an image": seen.captions_each,
        "width in pixels": seen.widths,
        "height in pixels": seen.heights,
    }
    rows = [(name, *(f"{value:,.0f}" for value in values.values())) for name, values in measured.items() if values]
    if rows:
        say()
        head = ("", "least", "5 %", "25 %", "median", "75 %", "95 %", "most")
        for line in table(head, rows, right=tuple(range(1, 8))):
            say(line)
    if seen.labels:
        say()
        of = f" of {seen.known_labels:,}" if seen.known_labels else ""
        say(f"labels{of}: " + ", ".join(f"{name} ({number:,})" for name, number in seen.labels))
    for fault in seen.faults[:_NAMED]:
        note(fault)
    for key, reason in seen.damaged[:_NAMED]:
        note(f"{key}: {reason}")
    if len(seen.damaged) > _NAMED:
        note(f"and {len(seen.damaged) - _NAMED:,} more damaged records; --json lists all")
    if args.out is not None:
        say(f"{args.out}")
    else:
        note("--out sheet.jpg writes a contact sheet of examples with texts and boxes")
    return 0
