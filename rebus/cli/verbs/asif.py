"""A model of one's own captioned images without training, and its anchors: look at them, change them, save.

  build      encode a captioned folder with any two encoders, choose k and p
  explain    the anchors that made a score, as a table and a sheet of images
  add        more captioned images
  remove     forget anchors, without a trace
  weight     let anchors count more or less
  teach      a new word from some images of it

rebus asif PART --help has the options of each.
"""

import argparse

from rebus.core.errors import UsageError

EXAMPLE = "rebus asif remove mine images/42.jpg"

PARTS: dict[str, tuple[str, str]] = {
    "build": ("asif_build", "a model of a captioned folder"),
    "explain": ("asif_explain", "the anchors behind a score"),
    "add": ("asif_add", "more captioned images"),
    "remove": ("asif_remove", "forget anchors"),
    "weight": ("asif_weight", "let anchors count more or less"),
    "teach": ("asif_teach", "a new word from some images of it"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("words", metavar="…", nargs="*", help="what that part wants")


def run(args: argparse.Namespace) -> int:
    raise UsageError(f"the part comes first: rebus asif {args.part} …")
