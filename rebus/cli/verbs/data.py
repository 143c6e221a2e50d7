"""Data sets on disk: look into one, keep the good part, write it anew, fetch the images that a table names.

  inspect    what a data set holds, and a sheet of examples
  filter     keep what passes COYO's columns and ALIGN's rules
  convert    write shards, or a folder with a table
  download   fetch the images of a table of web addresses into shards
  regions    embed the regions of images by a dual encoder, for a detector that is to learn from it

rebus data PART --help has the options of each.
"""

import argparse

from rebus.core.errors import UsageError

EXAMPLE = "rebus data inspect photos/"

PARTS: dict[str, tuple[str, str]] = {
    "inspect": ("data_inspect", "what a data set holds"),
    "filter": ("data_filter", "keep the good part"),
    "convert": ("data_convert", "write shards, or a folder"),
    "download": ("data_download", "fetch the images of a table"),
    "regions": ("data_regions", "embed regions for a detector to learn from"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("words", metavar="…", nargs="*", help="what that part wants")


def run(args: argparse.Namespace) -> int:
    raise UsageError(f"the part comes first: rebus data {args.part} …")
