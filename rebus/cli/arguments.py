"""Options that several commands share."""

import argparse
import csv
from pathlib import Path
from typing import Any

from rebus.core.errors import MissingFile, UsageError


def add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="images: files, folders, or patterns like '*.jpg'")


def add_regions(parser: argparse.ArgumentParser) -> None:
    """For models that read region features."""
    parser.add_argument(
        "--regions", metavar="FILE", help="region features of the images: .npz, .hdf5, .tsv, or a folder of .npz"
    )


def add_model(parser: argparse.ArgumentParser, *, batch_size: int | None = None) -> None:
    """`--model` and how to load it; `--batch-size` where images are processed in batches."""
    parser.add_argument(
        "--model", metavar="NAME", help="catalogue name, directory or Hub id (default: the best on this machine)"
    )
    parser.add_argument("--truncate", action="store_true", help="truncate texts that are longer than the context")
    add_placement(parser)
    if batch_size is not None:
        parser.add_argument(
            "--batch-size", metavar="N", type=positive, default=batch_size, help="images per batch (%(default)s)"
        )


def add_placement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, mps, … (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="dtype of the weights")
    parser.add_argument("--quantize", choices=("int8", "int4"), help="quantize the weights; int4 for fast decoding")
    parser.add_argument("--compile", action="store_true", help="torch.compile: slow start, then faster")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """How a generative model chooses its tokens."""
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, help="max number of new tokens")
    parser.add_argument("--strategy", choices=("greedy", "sample", "beam", "contrastive"), help="(greedy)")
    parser.add_argument("--temperature", metavar="T", type=float, help="sample: below 1 less random, above 1 more")
    parser.add_argument("--top-k", metavar="K", type=positive, help="sample: from the K most probable tokens")
    parser.add_argument(
        "--top-p", metavar="P", type=float, help="sample: from the most probable tokens of total probability P"
    )
    parser.add_argument("--seed", metavar="N", type=int, help="sample: random seed; the same seed gives the same text")
    parser.add_argument("--num-beams", metavar="N", type=positive, help="beam: number of beams")


def decoding(args: argparse.Namespace) -> dict[str, Any]:
    """The decoding options that were given."""
    names = ("max_new_tokens", "strategy", "temperature", "top_k", "top_p", "seed", "num_beams")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def add_list(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    """`--<name> a,b,c` and `--<name>-file FILE`."""
    parser.add_argument(
        f"--{name}", metavar="A,B,C", help=f'{what}, separated by commas; "double quotes" around one with a comma'
    )
    parser.add_argument(f"--{name}-file", metavar="FILE", help=f"{what}, one per line")


def listed(args: argparse.Namespace, name: str) -> list[str] | None:
    """The values of `--<name>` or `--<name>-file`; None if neither was given. Raises `UsageError`, `MissingFile`."""
    typed, file = getattr(args, name), getattr(args, f"{name}_file")
    if typed is None and file is None:
        return None
    if typed is not None and file is not None:
        raise UsageError(f"give --{name} or --{name}-file, not both")
    found = read_lines(file) if typed is None else _parts(typed)
    found = [item for item in found if item]
    if not found:
        raise UsageError(f"--{name}{'' if typed is not None else '-file'}: it is empty")
    return found


def _parts(typed: str) -> list[str]:
    """What stands between commas; in double quotes a comma belongs to the part."""
    return [part.strip() for row in csv.reader([typed], skipinitialspace=True) for part in row]


def read_lines(file: str) -> list[str]:
    """The stripped lines of a text file."""
    try:
        return [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").split("\n")]
    except FileNotFoundError:
        raise MissingFile(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 text (byte {error.start})") from None


def positive(text: str) -> int:
    """A whole number above zero, for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0; got {text!r}")
    return value
