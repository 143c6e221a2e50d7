"""Why an image and a text get their score: the anchors, whose contributions sum to it."""

import argparse
from pathlib import Path
from typing import Any

from rebus.cli.anchor_page import anchor_page
from rebus.cli.arguments import add_placement, positive
from rebus.cli.choose_model import open_model
from rebus.cli.output import bold, emit, note, say, shown, table
from rebus.cli.output_files import check_image
from rebus.core.atomic_write import write_bytes_atomically

PAGE = ".html"
EXAMPLE = 'rebus asif explain mine dog.jpg "a dog in the snow" --out why.html --images photos/'


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model with anchors: a folder or a catalogue name")
    parser.add_argument("image", metavar="IMAGE", help="an image")
    parser.add_argument("text", metavar="TEXT", help="a sentence")
    parser.add_argument("--top", metavar="N", type=positive, default=10, help="number of anchors to show (%(default)s)")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="the anchors' images: a sheet (.png, .jpg, …) or a page (.html)"
    )
    parser.add_argument(
        "--images", metavar="DIR", type=Path, default=Path(), help="folder of the anchors' images (current folder)"
    )
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    if args.out is not None:
        check_image(args.out, page=PAGE)
    model = open_model(args, None)
    from rebus.tasks.anchors import explain

    found = explain(model, args.image, args.text)
    shown_anchors = found.anchors[: args.top]
    rest = sum(one.contribution for one in found.anchors[args.top :])
    if args.out is not None:
        with_files = [(one, _file(args.images, one.id)) for one in shown_anchors]
        if args.out.suffix.lower() == PAGE:
            more = len(found.anchors) - len(shown_anchors), rest
            drawn = anchor_page(Path(args.image), args.text, found.score, with_files, more).encode()
        else:
            drawn = _sheet(args, with_files, found.score)
        write_bytes_atomically(args.out, drawn)
        note(f"the anchors are in {args.out}")
    if args.json:
        anchors = [one._asdict() for one in shown_anchors]
        emit({"model": model.card.name, "score": found.score, "num_anchors": len(found.anchors), "anchors": anchors,
              "rest": rest})  # fmt: skip
        return 0
    say(bold(f"{found.score:.4f}  {shown(args.image)}  {shown(args.text)!r}"))
    rows = [
        (f"{one.contribution:.4f}", f"{one.image_similarity:.3f}", f"{one.text_similarity:.3f}", f"{one.weight:g}",
         shown(one.id), shown(one.caption))
        for one in shown_anchors
    ]  # fmt: skip
    if len(found.anchors) > args.top:
        rows.append((f"{rest:.4f}", "", "", "", f"{len(found.anchors) - args.top:,} more anchors", ""))
    for line in table(("share", "image", "text", "weight", "anchor", "caption"), rows, right=range(4)):
        say(line)
    return 0


def _sheet(args: argparse.Namespace, anchors: list[tuple[Any, Path | None]], score: float) -> bytes:
    """The image first, then its anchors; where an anchor has no file here its caption stands alone."""
    from rebus.cli.contact_sheet import contact_sheet
    from rebus.data.record import Record
    from rebus.tasks.draw import encoded

    records = [Record(key=args.image, image=Path(args.image), captions=(f"{score:.4f} {args.text}",))]
    for one, file in anchors:
        said = f"{one.contribution:.4f} {one.caption or one.id}"
        records.append(Record(key=one.id, image=file, captions=(said,)))
    return encoded(contact_sheet(records), args.out.suffix)


def _file(folder: Path, name: str) -> Path | None:
    """Where the image of an anchor lies: its id is a path, with `#number` where it has several captions."""
    places = folder / name, folder / name.rpartition("#")[0], Path(name)
    return next((path for path in places if path.is_file()), None)
