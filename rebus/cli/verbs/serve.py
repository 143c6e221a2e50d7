"""Answer requests over HTTP: chat, embeddings, classification, detection, segmentation."""

import argparse
from pathlib import Path
from typing import Any

from rebus.cli.arguments import add_placement, positive
from rebus.cli.output import note
from rebus.core.errors import MissingFile, UsageError
from rebus.core.extras import demand

EXAMPLE = "rebus serve paligemma/scenes clip/scenes --port 8000"
_UNITS = {"": 1, "KB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="*", help="catalogue names, directories or Hub ids")
    parser.add_argument("--index", metavar="DIR", nargs="+", default=[], help="folders to search, read by rebus index")
    parser.add_argument("--host", metavar="HOST", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument("--port", metavar="N", type=int, default=8000, help="(%(default)s)")
    parser.add_argument("--api-key-file", metavar="FILE", type=Path, help="the key that clients must send")
    parser.add_argument(
        "--allow-host", metavar="NAME", nargs="+", default=[], help="other names by which clients call this server"
    )
    parser.add_argument(
        "--allow-url", metavar="HOST", nargs="+", default=[], help="hosts of which images are fetched; '*' for all"
    )
    parser.add_argument("--max-batch", metavar="N", type=positive, default=32, help="rows at once (%(default)s)")
    parser.add_argument("--max-queue", metavar="N", type=positive, default=256, help="that may wait (%(default)s)")
    parser.add_argument("--max-body", metavar="SIZE", default="32MB", help="of one request (%(default)s)")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=120.0, help="of one answer (%(default)s)")
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    demand("serve", "rebus serve")
    from rebus.index.search import open_index
    from rebus.serve.server import serve
    from rebus.serve.settings import ServeSettings

    settings = ServeSettings(
        host=args.host,
        port=args.port,
        api_key=None if args.api_key_file is None else key_of(args.api_key_file),
        allow_host=tuple(args.allow_host),
        allow_url=tuple(args.allow_url),
        max_batch=args.max_batch,
        max_queue=args.max_queue,
        max_body=size_of(args.max_body),
        timeout=args.timeout,
    )

    def load(source: str) -> Any:
        import rebus

        note(f"loading {source}")
        return rebus.load(
            source, device=args.device, dtype=args.dtype, quantize=args.quantize, compile=args.compile, pack=True
        )

    if not (args.models or args.index):
        raise UsageError("nothing to serve: give a MODEL, or a folder with --index")
    indexes = [open_index(folder) for folder in args.index]
    serve(
        args.models,
        settings,
        load,
        lambda: note(f"listening on http://{args.host}:{args.port}: open it in a browser, or call its routes"),
        indexes,
    )
    return 0


def key_of(file: Path) -> str:
    """The first line. Raises `MissingFile`, `UsageError`."""
    try:
        lines = file.read_text().split()
    except (OSError, UnicodeError) as error:
        raise MissingFile(f"--api-key-file {file}: cannot be read ({error})") from None
    if len(lines) != 1 or not lines[0].isascii():
        raise UsageError(f"--api-key-file {file}: wanted one key, of ASCII characters without spaces")
    return lines[0]


def size_of(text: str) -> int:
    """Bytes: "32MB", "1000000"."""
    number = text.upper().rstrip("KMGB")
    unit = text.upper()[len(number) :]
    if not number.isdigit() or unit not in _UNITS or int(number) == 0:
        raise UsageError(f"a size is a number with KB, MB or GB; got {text!r}")
    return int(number) * _UNITS[unit]
