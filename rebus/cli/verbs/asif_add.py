"""Add captioned images as anchors: one with --caption, or a captioned folder."""

import argparse
from pathlib import Path
from typing import Any

from rebus.cli.anchor_arguments import add_edited, edit
from rebus.core.errors import UsageError

EXAMPLE = 'rebus asif add mine cat.jpg --caption "a cat on a red sofa"'


def arguments(parser: argparse.ArgumentParser) -> None:
    add_edited(parser)
    parser.add_argument("path", metavar="PATH", type=Path, help="an image, or a captioned folder")
    parser.add_argument("--caption", metavar="TEXT", help="of the image")
    parser.add_argument("--id", metavar="ID", help="of the image's anchor (its path)")


def run(args: argparse.Namespace) -> int:
    if args.path.is_dir() == (args.caption is not None):
        raise UsageError('an image needs --caption "…"; a captioned folder has its own')
    from rebus.recipes.asif import captioned_pairs
    from rebus.tasks.anchors import add_anchors

    if args.caption is not None:
        images, captions, ids = [args.path], [args.caption], [args.id or str(args.path)]
    else:
        images, captions, ids = captioned_pairs(args.path)

    def change(model: Any) -> dict[str, Any]:
        add_anchors(model, images, captions, ids)
        return {"added": len(ids)}

    return edit(args, change)
