"""Build a model from your own captioned images without training, and inspect or edit its anchors.

  build      encode a captioned folder with any two encoders; k and p by cross-validation
  explain    the anchors that contribute to a score, as a table and a contact sheet
  add        more captioned images
  remove     remove anchors, with no trace in later scores
  weight     change the weight of anchors
  teach      add a new class from a few images of it

rebus asif PART --help lists the options of each.
"""

import argparse

from rebus.core.errors import UsageError

EXAMPLE = "rebus asif remove mine images/42.jpg"

PARTS: dict[str, tuple[str, str]] = {
    "build": ("asif_build", "build a model from a captioned folder"),
    "explain": ("asif_explain", "show the anchors behind a score"),
    "add": ("asif_add", "more captioned images"),
    "remove": ("asif_remove", "remove anchors"),
    "weight": ("asif_weight", "change the weight of anchors"),
    "teach": ("asif_teach", "add a new class from a few images of it"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("words", metavar="…", nargs="*", help="its arguments")


def run(args: argparse.Namespace) -> int:
    raise UsageError(f"the subcommand comes first: rebus asif {args.part} …")
