"""Fetch the images that Parquet files or tables name (columns url and text, as COYO-700M and LAION have them) into
shards. A column of lists, as OBELICS' images, has an image for each address; with --out obelics/images they are found.

Only http and https, only public addresses, each file within --max-bytes and --max-seconds; an image that cannot be
read to its end is not kept, and one that came before comes once. journal.jsonl says what became of every row. The same
command on the same --out goes on where it stopped.
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
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="a folder of its own; the same goes on")
    parser.add_argument("--url", metavar="COLUMN", help="of web addresses, or lists of them (url)")
    parser.add_argument("--text", metavar="COLUMN", help="of texts (text)")
    add_shards(parser)
    parser.add_argument("--dedup", choices=("bytes", "phash"), default="bytes", help="phash: by COYO's image_phash too")
    group = parser.add_argument_group("fetching")
    group.add_argument("--threads", metavar="N", type=positive, default=16, help="requests at a time (%(default)s)")
    group.add_argument("--per-host", metavar="N", type=positive, default=4, help="of them to one host (%(default)s)")
    group.add_argument("--timeout", metavar="S", type=seconds, default=10.0, help="without a byte (%(default)g)")
    group.add_argument("--retries", metavar="N", type=whole, default=2, help="further tries of a row (%(default)s)")
    group.add_argument("--max-bytes", metavar="N", type=size, default="20M", help="of one file (%(default)s)")
    group.add_argument("--max-seconds", metavar="S", type=seconds, default=30.0, help="for one file (%(default)g)")
    group.add_argument("--allow-private", action="store_true", help="addresses of one's own network too")
    group.add_argument("--over", choices=("threads", "ray"), default="threads", help="ray: spread over a Ray cluster")


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
        raise argparse.ArgumentTypeError(f"wants a number of bytes such as 500k or 20M; got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def seconds(text: str) -> float:
    """A time above zero, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"wants seconds above 0; got {text!r}")
    return value


def whole(text: str) -> int:
    """A number from zero on, for argparse."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"wants a whole number from 0 on; got {text!r}")
    return int(text)
