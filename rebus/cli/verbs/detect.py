"""Detect objects: boxes in pixels; --out draws them on a copy of the image."""

import argparse
from pathlib import Path

from rebus.cli.arguments import add_decoding, add_images, add_list, add_model, add_regions, decoding, listed
from rebus.cli.choose_model import open_model
from rebus.cli.drawing_paths import drawer, drawing_paths
from rebus.cli.image_arguments import find_images, hopeless, work_through
from rebus.cli.output import say, shown
from rebus.cli.output_files import ResultFiles, add_results
from rebus.core.answers import Box

EXAMPLE = 'rebus detect street.jpg --labels "car,person" --out found.png'


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    add_regions(parser)
    add_list(parser, "labels", "labels to detect (default: all that the model knows)")
    parser.add_argument("--threshold", metavar="S", type=float, help="drop boxes below this score (default: keep all)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="draw the boxes; with several images, a folder")
    add_results(parser)
    add_decoding(parser)
    add_model(parser, batch_size=1)


def run(args: argparse.Namespace) -> int:
    labels = listed(args, "labels")
    files = find_images(args.images)
    drawings = drawing_paths(args.out, files)
    results = ResultFiles(args, [file.path for file in files])
    code = hopeless(files, args)
    if code is not None:
        return code
    model = open_model(args, "detect")

    def show(path: str, boxes: list[Box]) -> None:
        start = "" if len(files) == 1 else f"{shown(path)}: "
        for box in boxes:
            left, top, right, bottom = box.xyxy
            say(f"{start}{shown(box.label)}  {left:.0f} {top:.0f} {right:.0f} {bottom:.0f}  {box.score:.2f}")
        if not boxes:
            say(f"{start}nothing found")

    batch = work_through(
        files,
        lambda images: model.detect(images, labels, threshold=args.threshold, **decoding(args)),
        show,
        lambda boxes: {"boxes": [box.to_json() for box in boxes]},
        args,
        size=args.batch_size,
        files=results,
        draw=drawer(drawings),
    )
    return batch.finish(args, model.card, **({"out": str(args.out)} if args.out else {}))
