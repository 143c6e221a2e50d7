"""Why an image and a text go together: the anchors that make the score, whose shares add up to it."""

import argparse
from pathlib import Path
from typing import Any

from rebus.cli.arguments import add_placement, positive
from rebus.cli.choose_model import open_model
from rebus.cli.output import bold, emit, note, say, shown, table
from rebus.cli.output_files import check_folder, check_image
from rebus.core.atomic_write import write_bytes_atomically

EXAMPLE = 'rebus asif explain mine dog.jpg "a dog in the snow" --out why.png --images photos/'


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model with anchors: a folder or a catalogue name")
    parser.add_argument("image", metavar="IMAGE", help="an image")
    parser.add_argument("text", metavar="TEXT", help="a sentence")
    parser.add_argument("--top", metavar="N", type=positive, default=10, help="anchors that are shown (%(default)s)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="a sheet of the anchors' images (.png, .jpg, …)")
    parser.add_argument(
        "--images", metavar="DIR", type=Path, default=Path(), help="where the anchors' images lie (here)"
    )
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    if args.out is not None:
        check_image(args.out)
        check_folder(args.out.parent)
    model = open_model(args, None)
    from rebus.tasks.anchors import explain

    found = explain(model, args.image, args.text)
    shown_anchors = found.anchors[: args.top]
    rest = sum(one.contribution for one in found.anchors[args.top :])
    if args.out is not None:
        write_bytes_atomically(args.out, _sheet(args, shown_anchors, found.score))
        note(f"the sheet is in {args.out}")
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


def _sheet(args: argparse.Namespace, anchors: list[Any], score: float) -> bytes:
    """The image first, then its anchors; where an anchor has no file here its caption stands alone."""
    from rebus.cli.contact_sheet import contact_sheet
    from rebus.data.record import Record
    from rebus.tasks.draw import encoded

    first = Record(key=args.image, image=Path(args.image), captions=(f"{score:.4f} {args.text}",))
    records = [first]
    for one in anchors:
        file = next((path for path in _files(args.images, one.id) if path.is_file()), None)
        said = f"{one.contribution:.4f} {one.caption or one.id}"
        records.append(Record(key=one.id, image=file, captions=(said,)))
    return encoded(contact_sheet(records), args.out.suffix)


def _files(folder: Path, name: str) -> list[Path]:
    """Where the image of an anchor may lie: its id is a path, with `#number` where it has several captions."""
    return [folder / name, folder / name.rpartition("#")[0], Path(name)]
