"""Remove anchors: later scores are as if they had never been added."""

import argparse
from typing import Any

from rebus.cli.anchor_arguments import add_edited, edit

EXAMPLE = "rebus asif remove mine images/42.jpg"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_edited(parser)
    parser.add_argument("ids", metavar="ID", nargs="+", help="of anchors, as `rebus asif explain` shows them")


def run(args: argparse.Namespace) -> int:
    from rebus.tasks.anchors import remove_anchors

    def change(model: Any) -> dict[str, Any]:
        remove_anchors(model, args.ids)
        return {"removed": len(set(args.ids))}

    return edit(args, change)
