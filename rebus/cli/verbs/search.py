"""Search an indexed folder by text, by image, or both; --minus subtracts.

A text query loads only the text encoder, or uses a running `rebus serve` that has the index open. Filters apply before
the ranking.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rebus.cli.arguments import positive
from rebus.cli.output import bar, bold, emit, note, say, shown
from rebus.cli.search_page import search_page
from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import UsageError
from rebus.index.conditions import Conditions, read_date, read_label, read_size
from rebus.index.running_server import ask_server
from rebus.index.search import MINUS, Hit, Term, open_index

EXAMPLE = 'rebus search ~/Pictures "a dog on a beach" --minus people --since 2023 --top 5'


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a folder indexed by rebus index")
    parser.add_argument("words", metavar="TEXT", nargs="*", help="the query; several texts are added")
    parser.add_argument("--image", metavar="FILE", action="append", help="find images similar to this one; may repeat")
    parser.add_argument("--minus", metavar="TEXT", action="append", help="a text or an image to subtract")
    parser.add_argument(
        "--weight", metavar="W", action="append", type=float,
        help=f"weight of each term: texts first, then --image, then --minus (1; --minus {MINUS:g}); may repeat",
    )  # fmt: skip
    parser.add_argument("--since", metavar="DATE", help="taken on this date or later: 2024, 2024-05, 2024-05-31")
    parser.add_argument("--until", metavar="DATE", help="taken on this date or earlier")
    parser.add_argument("--under", metavar="SUBDIR", help="in this folder below DIR")
    parser.add_argument("--larger", metavar="WxH", help="min size in pixels, 1920x1080, in either orientation")
    parser.add_argument("--type", metavar="TYPE", action="append", help="jpeg, png, …; may repeat")
    parser.add_argument("--label", metavar="COND", action="append", help='"dog>0.5", of the labels of the index')
    parser.add_argument("--sort", choices=("score", "date"), default="score", help="(%(default)s)")
    parser.add_argument("--top", metavar="N", type=positive, default=20, help="max number of images (%(default)s)")
    parser.add_argument(
        "--exact", action="store_true", default=None, help="exhaustive search, for any number of images"
    )
    parser.add_argument("--index", metavar="PATH", help="path of the index, if not in the cache")
    parser.add_argument("--html", metavar="FILE", help="write a page of thumbnails")
    parser.add_argument("-0", dest="nul", action="store_true", help="print only paths, NUL-separated, for xargs -0")


def run(args: argparse.Namespace) -> int:
    if args.nul and (args.json or args.html):
        raise UsageError("-0 prints only paths: it does not go with --json and --html")
    terms, conditions = _terms(args), _conditions(args)
    root = Path(args.folder).expanduser()
    by_date = args.sort == "date"
    hits = None
    if terms and args.index is None and args.exact is None:
        hits = ask_server(root, terms, conditions, args.top, by_date)
    if hits is None:
        index = open_index(root, args.index)
        index.exact = args.exact
        hits = index.search(terms, conditions=conditions, number=args.top, by_date=by_date)
    _show(args, root, hits)
    return 0


def _terms(args: argparse.Namespace) -> list[Term]:
    plus = [Term(text=words) for words in args.words if words.strip()]
    plus += [Term(image=_image(file)) for file in args.image or []]
    minus = [
        Term(image=words, weight=-MINUS) if os.path.isfile(words) else Term(text=words, weight=-MINUS)
        for words in args.minus or []
    ]
    if minus and not plus:
        raise UsageError("--minus subtracts from a text or an --image: give one of them too")
    terms = [*plus, *minus]
    weights = args.weight or []
    if len(weights) > len(terms):
        raise UsageError(f"{len(weights)} weights for {len(terms)} texts and images")
    for i, weight in enumerate(weights):
        if not 0 < weight < 1e6:
            raise UsageError(f"--weight {weight:g}: expected a number above 0")
        terms[i] = Term(terms[i].text, terms[i].image, weight if i < len(plus) else -weight)
    return terms


def _image(file: str) -> str:
    if not os.path.isfile(file):
        raise UsageError(f"--image {file}: no such file")
    return file


def _conditions(args: argparse.Namespace) -> Conditions:
    return Conditions(
        since=None if args.since is None else read_date(args.since),
        until=None if args.until is None else read_date(args.until, end=True),
        under=args.under,
        larger=None if args.larger is None else read_size(args.larger),
        kinds=tuple(args.type or ()),
        labels=tuple(read_label(one) for one in args.label or ()),
    )


def _show(args: argparse.Namespace, root: Path, hits: Sequence[Hit]) -> None:
    if args.html is not None:
        with bar("images", len(hits)) as progress:
            page = search_page(_title(args), str(root), hits, progress.advance)
        write_bytes_atomically(Path(args.html), page.encode())
        note(f"{len(hits):,} images in {args.html}")
    if args.nul:
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(os.fsencode(hit.path) + b"\0" for hit in hits))
    elif args.json:
        emit({"root": str(root), "results": [asdict(hit) for hit in hits]})
    elif args.html is None:
        for hit in hits:
            said = f"  {bold(shown(hit.caption))}" if hit.caption else ""
            say(f"{hit.score:6.3f}  {shown(hit.path)}{said}")
        if not hits:
            note("no image passes the filters")


def _title(args: argparse.Namespace) -> str:
    plus = [*args.words, *(f"like {Path(file).name}" for file in args.image or [])]
    return " + ".join(plus or ["all images"]) + "".join(f" − {words}" for words in args.minus or [])
