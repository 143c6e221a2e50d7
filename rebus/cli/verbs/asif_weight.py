"""Let anchors count as that many copies of each would: 2 twice, 0.5 half. To take one out: rebus asif remove."""

import argparse
from typing import Any

from rebus.cli.anchor_arguments import add_edited, edit
from rebus.core.errors import UsageError

EXAMPLE = "rebus asif weight mine images/42.jpg --by 3"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_edited(parser)
    parser.add_argument("ids", metavar="ID", nargs="+", help="of anchors, as `rebus asif explain` shows them")
    parser.add_argument("--by", metavar="W", type=float, required=True, help="what each counts; at first 1")


def run(args: argparse.Namespace) -> int:
    if not 0 < args.by < float("inf"):
        raise UsageError(f"--by wants a number above 0; got {args.by:g}. rebus asif remove takes anchors out")
    from rebus.tasks.anchors import weigh_anchors

    def change(model: Any) -> dict[str, Any]:
        weigh_anchors(model, args.ids, args.by)
        return {"weighed": len(set(args.ids)), "weight": args.by}

    return edit(args, change)
