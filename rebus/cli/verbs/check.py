"""Numerical self-test of a model on this machine: a table of checks; exit code 1 if one fails."""

import argparse
import json
from pathlib import Path
from typing import Any

from rebus import catalog
from rebus.cli.arguments import add_placement
from rebus.cli.choose_model import open_model
from rebus.cli.output import emit, note, say
from rebus.cli.output_files import check_folder
from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.errors import BadCheckpoint, UsageError
from rebus.core.strict_json import to_json

EXAMPLE = "rebus check clip/scenes"
_SIGNS = {True: "pass", False: "FAIL", None: "  - "}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="catalogue name, directory or Hub id")
    parser.add_argument(
        "--record", action="store_true", help="save the current outputs in the checkpoint's directory as its reference"
    )
    add_placement(parser)


def run(args: argparse.Namespace) -> int:
    folder = _folder(args.model)
    if args.record:
        if folder is None:
            raise UsageError(f"--record writes into a directory; {args.model} is none")
        check_folder(folder)
    model = open_model(args, None)
    from rebus.evaluate import reference
    from rebus.evaluate.check import check

    if args.record:
        assert folder is not None
        found = reference.record(model)
        write_bytes_atomically(folder / reference.FILE, (to_json(found, indent=1) + "\n").encode())
        note(f"recorded in {folder / reference.FILE}")
    stored = _stored(folder, reference.FILE) if folder is not None else None
    checks = []
    for one in check(model, stored):
        checks.append(one)
        if not args.json:
            say(f"{_SIGNS[one.passed]}  {one.name:<26}{one.detail}")
    failed = sum(one.passed is False for one in checks)
    if args.json:
        emit({"model": model.card.name, "checks": [one.to_json() for one in checks], "failed": failed})
    elif failed:
        note(f"{failed} of {len(checks)} checks failed")
    return 1 if failed else 0


def _folder(name: str) -> Path | None:
    """Where the checkpoint lies, if that is a directory of its own."""
    path = catalog.bundled_folder(name) if name in catalog.bundled() else Path(name)
    return path if path.is_dir() else None


def _stored(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / name
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadCheckpoint(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadCheckpoint(f"{path}: must hold an object")
    return found
