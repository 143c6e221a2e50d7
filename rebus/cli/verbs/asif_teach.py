"""Add a new class from some images of it; twenty are enough to see a difference. Nothing is trained."""

import argparse
from pathlib import Path
from typing import Any

from rebus.cli.anchor_arguments import add_edited, edit
from rebus.cli.arguments import add_images
from rebus.cli.image_arguments import find_images

EXAMPLE = 'rebus asif teach mine "rock climber" climbers/*.jpg'


def arguments(parser: argparse.ArgumentParser) -> None:
    add_edited(parser)
    parser.add_argument("word", metavar="WORD", help="name of the class, one or a few words")
    add_images(parser)
    parser.add_argument(
        "--against", metavar="DIR", type=Path, help="images of other things, as typical negatives: better results"
    )


def run(args: argparse.Namespace) -> int:
    images = find_images(args.images)
    others = find_images([str(args.against)]) if args.against is not None else []
    for image in (*images, *others):
        if image.error is not None:
            raise image.error
    from rebus.tasks.anchors import teach

    def change(model: Any) -> dict[str, Any]:
        ids = teach(model, args.word, [one.path for one in images], against=[one.path for one in others])
        return {"images": len(images), "added": len(ids), "ids": ids}

    return edit(args, change)
