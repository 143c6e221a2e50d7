"""Download the images listed in Parquet files or tables (columns url and text, as in COYO-700M and LAION) into shards.
A column of lists, as in OBELICS, has one image per URL; with --out obelics/images the reader finds them.

Only http and https, only public addresses, each file within --max-bytes and --max-seconds. Truncated images are
dropped, duplicates are kept once. journal.jsonl records the outcome of every row. The same command on the same --out
resumes an interrupted run.
"""

import argparse
import re
from pathlib import Path

from rebus.cli.arguments import positive
from rebus.cli.dataset_arguments import add_shards, going_on
from rebus.cli.output import emit, note, say, table

EXAMPLE = "rebus data download coyo/*.parquet --out images/ --threads 64 --resize 512"
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tables", metavar="TABLE", type=Path, nargs="+", help="Parquet, CSV, TSV, JSONL files, or folders of them"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="a new folder; an interrupted run resumes in it"
    )
    parser.add_argument("--url", metavar="COLUMN", help="column of URLs, or of lists of them (url)")
    parser.add_argument("--text", metavar="COLUMN", help="column of texts (text)")
    add_shards(parser)
    parser.add_argument(
        "--dedup", choices=("bytes", "phash"), default="bytes", help="phash: also by COYO's image_phash"
    )
    group = parser.add_argument_group("fetching")
    group.add_argument("--threads", metavar="N", type=positive, default=16, help="requests in parallel (%(default)s)")
    group.add_argument(
        "--per-host", metavar="N", type=positive, default=4, help="requests in parallel per host (%(default)s)"
    )
    group.add_argument("--timeout", metavar="S", type=seconds, default=10.0, help="seconds without data (%(default)g)")
    group.add_argument("--retries", metavar="N", type=whole, default=2, help="retries per row (%(default)s)")
    group.add_argument("--max-bytes", metavar="N", type=size, default="20M", help="max size of a file (%(default)s)")
    group.add_argument(
        "--max-seconds", metavar="S", type=seconds, default=30.0, help="max time for a file (%(default)g)"
    )
    group.add_argument("--allow-private", action="store_true", help="allow private addresses")
    group.add_argument("--over", choices=("threads", "ray"), default="threads", help="ray: run on a Ray cluster")


def run(args: argparse.Namespace) -> int:
    from rebus.data.downloading import JOURNAL, OUTCOMES, Addresses, Caps, Download, Settings
    from rebus.data.resize_images import Fitting

    settings = Settings(
        caps=Caps(timeout=args.timeout, max_seconds=args.max_seconds, max_bytes=args.max_bytes),
        threads=args.threads,
        retries=args.retries,
        per_host=args.per_host,
        shard_size=args.shard_size,
        fitting=Fitting(resize=args.resize, quality=args.quality),
        phash=args.dedup == "phash",
        url=args.url,
        text=args.text,
        addresses=Addresses(private=args.allow_private),
    )
    work = Download(args.tables, args.out, settings, args.over)
    found = going_on(args.out, "rows", len(work.rows), lambda: work.done, work.run)
    if found is None:
        return 130
    if args.json:
        emit(
            {"out": str(args.out), "rows": len(work.rows), "shards": work.count, "outcomes": dict(found.most_common())}
        )
    else:
        rows = [(name, f"{number:,}", OUTCOMES.get(name, "")) for name, number in found.most_common()]
        for line in table(("outcome", "rows", ""), rows, right=(1,)):
            say(line)
        say(f"{args.out}: {found['ok']:,} images in {work.count:,} shards")
    note(f"{args.out / JOURNAL} has a line for each of {len(work.rows):,} rows")
    return 0 if found["ok"] or not len(work.rows) else 1


def size(text: str) -> int:
    """A number of bytes such as 20M, for argparse."""
    match = re.fullmatch(r"(\d+)([kmg]?)b?", text.strip().lower())
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"expected a number of bytes such as 500k or 20M; got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def seconds(text: str) -> float:
    """A time above zero, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected seconds above 0; got {text!r}")
    return value


def whole(text: str) -> int:
    """A number from zero on, for argparse."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0; got {text!r}")
    return int(text)
