"""Where a text is seen in images: --out draws a heat map over a grey copy of each. Prints the score of image and text
and the place, x y in pixels, that adds most to it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rebus.cli.arguments import add_images, add_model
from rebus.cli.choose_model import open_model
from rebus.cli.drawing_paths import drawing_paths
from rebus.cli.image_arguments import find_images, hopeless, work_through
from rebus.cli.output import say, shown
from rebus.cli.output_files import ResultFiles, add_results
from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import UnsupportedTask, UsageError

if TYPE_CHECKING:
    from rebus.tasks.explain import Explanation

EXAMPLE = 'rebus explain street.jpg "a red car" --out where.png'


def arguments(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument("text", metavar="TEXT", help="the text that is looked for")
    parser.add_argument("--out", metavar="FILE", type=Path, help="draw the heat map; with several images, a folder")
    add_results(parser)
    add_model(parser, batch_size=1)


def run(args: argparse.Namespace) -> int:
    if not args.text.strip():
        raise UsageError("the text is empty")
    files = find_images(args.images)
    drawings = drawing_paths(args.out, files)
    results = ResultFiles(args, [file.path for file in files])
    code = hopeless(files, args)
    if code is not None:
        return code
    model = open_model(args, None if args.model else "match")

    from rebus.tasks.draw import encoded
    from rebus.tasks.explain import can_explain

    if not can_explain(model):
        raise UnsupportedTask(f"{model.card.name} scores no image with a text, or its image encoder has no layers")

    def show(path: str, seen: "Explanation") -> None:
        x, y = seen.peak
        say(f"{'' if len(files) == 1 else f'{shown(path)}: '}{seen.score:.3f}  {x} {y}")

    def draw(path: str, _: Any, seen: "Explanation") -> None:
        assert drawings is not None
        write_bytes_atomically(drawings[path], encoded(seen.plot(), drawings[path].suffix))

    batch = work_through(
        files,
        lambda images: [model.explain(image, args.text) for image in images],
        show,
        lambda seen: {"score": seen.score, "peak": list(seen.peak)},
        args,
        size=args.batch_size,
        files=results,
        draw=draw if drawings else None,
    )
    return batch.finish(args, model.card, text=args.text, **({"out": str(args.out)} if args.out else {}))
