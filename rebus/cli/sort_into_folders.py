"""Images sorted into a folder for each label: moved, copied or linked, never overwriting a file.

A crash at any moment loses nothing: a moved image gets its new name first, then the reverse move is written to the
script that undoes the run (`undo-<time>.sh` in the folder), and only then does the old name go.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rebus.cli.output import note
from rebus.cli.output_files import check_folder
from rebus.core.atomic_write import DRAFT, cannot_write, flush
from rebus.core.errors import UsageError

_WAYS = ("move", "copy", "link")
_DONE = {"move": "moved", "copy": "copied", "link": "linked"}
_LONGEST = 100  # characters of a folder's name


def add_sorting(parser: argparse.ArgumentParser) -> None:
    """`--move-to`, `--copy-to`, `--link-to`, `--min-score` and `--dry-run`, which `Sorter` serves."""
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--move-to", metavar="DIR", type=Path, help="move each image to DIR/<its best label>/")
    way.add_argument("--copy-to", metavar="DIR", type=Path, help="copy it instead")
    way.add_argument("--link-to", metavar="DIR", type=Path, help="create a link instead")
    parser.add_argument(
        "--min-score", metavar="P", type=float, default=0.0, help="leave images whose best label is less probable (0)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and change nothing")


class Sorter:
    """Puts images into the folders of their labels. Raises before any work for labels that would share a folder, and
    for a folder that cannot be written."""

    def __init__(self, args: argparse.Namespace, labels: Sequence[str]):
        self.way = next((way for way in _WAYS if getattr(args, f"{way}_to") is not None), "")
        self.dry, self.least, self.count = args.dry_run, args.min_score, 0
        self.taken: set[Path] = set()  # by a dry run
        if not self.way:
            if args.dry_run or args.min_score:
                raise UsageError("--dry-run and --min-score go with --move-to, --copy-to or --link-to")
            return
        self.root: Path = getattr(args, f"{self.way}_to")
        self.folders = _folders(labels)
        self.script = self.root / f"undo-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}.sh"
        if not self.dry:
            check_folder(self.root, create=True)

    def outside(self, paths: Sequence[str]) -> list[bool]:
        """The images that are not in the folder already, so that sorting again leaves sorted images alone."""
        if not self.way:
            return [True] * len(paths)
        root = self.root.resolve()
        found = [not Path(path).resolve().parent.is_relative_to(root) for path in paths]
        if not all(found):
            note(f"{found.count(False):,} images are in {self.root} already and stay where they are")
        return found

    def place(self, path: str, label: str, probability: float) -> Path | None:
        """Put one image into the folder of its label; where it is now, None where it stays. Raises `CannotWrite`."""
        if not self.way or not probability >= self.least:
            return None
        source, folder = Path(path), self.root / self.folders[label]
        self.count += 1
        if self.dry:
            free = (name for name in _names(folder, source) if not os.path.lexists(name))
            target = next(name for name in free if name not in self.taken)
            self.taken.add(target)
            return target
        try:
            folder.mkdir(exist_ok=True)
            do: Callable[[Path, Path], None] = {"move": self._move, "copy": _copy, "link": _link}[self.way]
            for target in _names(folder, source):
                if os.path.lexists(target) and self._is_there(source, target):
                    return target
                with suppress(FileExistsError):
                    do(source, target)
                    return target
        except OSError as error:
            raise cannot_write(folder, error) from error
        raise AssertionError("names do not end")

    def say_what_was_done(self) -> None:
        if not self.way:
            return
        done = f"would be {_DONE[self.way]}" if self.dry else _DONE[self.way]
        undo = f"; sh {shlex.quote(str(self.script))} moves them back" if self.way == "move" and self.count else ""
        note(f"{self.count:,} images {done} to {self.root}" + ("" if self.dry else undo))

    def _is_there(self, source: Path, target: Path) -> bool:
        """Whether an earlier run put this image there: the same link or bytes, or a move that was cut off."""
        if self.way == "copy":
            return not target.is_symlink() and filecmp.cmp(source, target, shallow=False)
        if self.way == "link":
            return target.is_symlink() and os.path.realpath(target) == os.path.realpath(source)
        if source.is_symlink() or target.is_symlink() or not os.path.samefile(source, target):
            return False
        self._leave(source, target)
        return True

    def _move(self, source: Path, target: Path) -> None:
        if source.is_symlink():
            _link(source, target)
        else:
            try:
                os.link(source, target)
            except FileExistsError:
                raise
            except OSError:  # another file system, or one without hard links
                _copy(source, target)
        self._leave(source, target)

    def _leave(self, source: Path, target: Path) -> None:
        """Write the reverse move to disk before the old name goes."""
        flush(target.parent)
        new = not self.script.exists()
        with self.script.open("ab") as file:
            if new:
                file.write(b"#!/bin/sh\n# Moves images back to where they were. Nothing is written over.\n")
            back = f"mv -n -- {shlex.quote(os.path.abspath(target))} {shlex.quote(os.path.abspath(source))}\n"
            file.write(os.fsencode(back))
            file.flush()
            os.fsync(file.fileno())
        os.unlink(source)


def _names(folder: Path, source: Path) -> Iterator[Path]:
    """Where the image may go: under its name, else `name-2.jpg` and on."""
    yield folder / source.name
    number = 2
    while True:
        yield folder / f"{source.stem}-{number}{source.suffix}"
        number += 1


def _copy(source: Path, target: Path) -> None:
    """Bytes and times, whole or not at all. Raises `FileExistsError` where there is a file of that name."""
    if os.path.lexists(target):
        raise FileExistsError(target)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}{DRAFT}")
    try:
        shutil.copy2(source, draft)
        flush(draft)
        try:
            os.link(draft, target)
        except FileExistsError:
            raise
        except OSError:  # without hard links
            os.rename(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    os.symlink(os.path.realpath(source), target)


def _folders(labels: Sequence[str]) -> dict[str, str]:
    """The folder's name of each label: without what file systems do not take."""
    found: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        name = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", label).strip(" .")[:_LONGEST] or "_"
        other = next((one for one, folder in found.items() if folder.casefold() == name.casefold()), None)
        if other is not None:
            raise UsageError(f"the labels {other!r} and {label!r} would share the folder {name}: rename one of them")
        found[label] = name
    return found
