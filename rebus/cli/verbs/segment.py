"""Segment what a phrase describes; --out draws the masks on a copy of the image."""

import argparse
from pathlib import Path

from rebus.cli.arguments import add_decoding, add_images, add_model, decoding
from rebus.cli.choose_model import open_model
from rebus.cli.drawing_paths import drawer, drawing_paths
from rebus.cli.image_arguments import find_images, hopeless, work_through
from rebus.cli.output import say, shown
from rebus.cli.output_files import ResultFiles, add_results
from rebus.core.answers import Mask
from rebus.core.errors import UsageError

EXAMPLE = 'rebus segment street.jpg "the red car" --out masks.png'


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument("phrase", metavar="PHRASE", help="the phrase")
    parser.add_argument("--out", metavar="FILE", type=Path, help="draw the masks; with several images, a folder")
    add_results(parser)
    add_decoding(parser)
    add_model(parser, batch_size=1)


def run(args: argparse.Namespace) -> int:
    if not args.phrase.strip():
        raise UsageError("the phrase is empty")
    files = find_images(args.images)
    drawings = drawing_paths(args.out, files)
    results = ResultFiles(args, [file.path for file in files])
    code = hopeless(files, args)
    if code is not None:
        return code
    model = open_model(args, "segment")

    def show(path: str, masks: list[Mask]) -> None:
        start = "" if len(files) == 1 else f"{shown(path)}: "
        for mask in masks:
            left, top, right, bottom = mask.box
            place = f"{left:.0f} {top:.0f} {right:.0f} {bottom:.0f}"
            say(f"{start}{shown(mask.label)}  {place}  {int(mask.mask.sum()):,} pixels  {mask.score:.2f}")
        if not masks:
            say(f"{start}nothing found")

    batch = work_through(
        files,
        lambda images: model.segment(images, args.phrase, **decoding(args)),
        show,
        lambda masks: {"masks": [mask.to_json() for mask in masks]},
        args,
        size=args.batch_size,
        files=results,
        draw=drawer(drawings),
    )
    return batch.finish(args, model.card, phrase=args.phrase, **({"out": str(args.out)} if args.out else {}))
