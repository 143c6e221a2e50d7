"""Change the weight of anchors: 2 counts as two copies, 0.5 as half. To delete one: rebus asif remove."""

import argparse
from typing import Any

from rebus.cli.anchor_arguments import add_edited, edit
from rebus.core.errors import UsageError

EXAMPLE = "rebus asif weight mine images/42.jpg --by 3"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_edited(parser)
    parser.add_argument("ids", metavar="ID", nargs="+", help="of anchors, as `rebus asif explain` shows them")
    parser.add_argument("--by", metavar="W", type=float, required=True, help="weight of each; initially 1")


def run(args: argparse.Namespace) -> int:
    if not 0 < args.by < float("inf"):
        raise UsageError(f"--by: expected a number above 0; got {args.by:g}. Use rebus asif remove to delete anchors")
    from rebus.tasks.anchors import weigh_anchors

    def change(model: Any) -> dict[str, Any]:
        weigh_anchors(model, args.ids, args.by)
        return {"weighed": len(set(args.ids)), "weight": args.by}

    return edit(args, change)
