"""Convert an image data set to webdataset shards, as img2dataset writes them, or to a folder with captions.jsonl.

Images are copied unchanged unless --resize makes larger ones smaller. Damaged records are skipped and listed in
skipped.jsonl. The same command on the same --out resumes an interrupted run.
"""

import argparse

from rebus.cli.dataset_arguments import add_source, add_writing, carry_out, converter, name_damaged, open_source
from rebus.cli.output import emit, note, say

EXAMPLE = "rebus data convert photos/ --out shards/ --to webdataset --resize 512"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--to", choices=("webdataset", "folder"), default="webdataset", help="(%(default)s)")
    add_writing(parser)


def run(args: argparse.Namespace) -> int:
    from rebus.data.damaged_files import damaged_files

    layout, reader = open_source(args)
    work = converter(args, reader, layout, args.to, work="convert")
    counts = carry_out(work)
    if counts is None:
        return 130
    faults = damaged_files(reader)
    if args.json:
        document = {"out": str(args.out), "layout": layout, "to": args.to, "units": work.count}
        emit({**document, **vars(counts), "damaged_files": faults})
    else:
        pieces = "shards" if args.to == "webdataset" else "folders"
        say(f"{args.out}: {counts.written:,} records in {work.count:,} {pieces}")
    if counts.skipped:
        note(f"{counts.skipped:,} damaged records were skipped: {args.out / 'skipped.jsonl'} lists them")
    name_damaged(faults)
    return 0
