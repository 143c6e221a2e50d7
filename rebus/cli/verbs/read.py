"""Read text in images (OCR): each line with its corners in pixels."""

import argparse

from rebus.cli.arguments import add_decoding, add_images, add_model, decoding
from rebus.cli.choose_model import open_model
from rebus.cli.image_arguments import find_images, hopeless, work_through
from rebus.cli.output import say, shown
from rebus.cli.output_files import ResultFiles, add_results
from rebus.core.answers import TextLine

EXAMPLE = "rebus read receipt.jpg"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    add_results(parser)
    add_decoding(parser)
    add_model(parser, batch_size=1)


def run(args: argparse.Namespace) -> int:
    files = find_images(args.images)
    results = ResultFiles(args, [file.path for file in files])
    code = hopeless(files, args)
    if code is not None:
        return code
    model = open_model(args, "read")

    def show(path: str, lines: list[TextLine]) -> None:
        start = "" if len(files) == 1 else f"{shown(path)}: "
        for line in lines:
            corners = "  ".join(f"{x:.0f} {y:.0f}" for x, y in line.corners)
            say(f"{start}{shown(line.text)}  {corners}  {line.score:.2f}")
        if not lines:
            say(f"{start}nothing found")

    batch = work_through(
        files,
        lambda images: model.read(images, **decoding(args)),
        show,
        lambda lines: {"lines": [line.to_json() for line in lines]},
        args,
        size=args.batch_size,
        files=results,
    )
    return batch.finish(args, model.card)
