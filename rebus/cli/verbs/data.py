"""Inspect, filter, convert and download data sets.

  inspect    contents of a data set, and a contact sheet of examples
  filter     filter by COYO's columns and ALIGN's rules
  convert    convert to shards, or to a folder with a table
  download   download the images of a table of URLs into shards
  regions    embed image regions with a dual encoder, as training targets of a detector

rebus data PART --help lists the options of each.
"""

import argparse

from rebus.core.errors import UsageError

EXAMPLE = "rebus data inspect photos/"

PARTS: dict[str, tuple[str, str]] = {
    "inspect": ("data_inspect", "show the contents of a data set"),
    "filter": ("data_filter", "filter the records"),
    "convert": ("data_convert", "convert to shards, or to a folder"),
    "download": ("data_download", "download the images of a table"),
    "regions": ("data_regions", "embed regions as targets of a detector"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("words", metavar="…", nargs="*", help="its arguments")


def run(args: argparse.Namespace) -> int:
    raise UsageError(f"the subcommand comes first: rebus data {args.part} …")
