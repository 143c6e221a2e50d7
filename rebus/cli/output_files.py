"""Where a command writes its files, checked to be writable before the work begins.

`ResultFiles` puts the answers about images where people keep them: a table (`--csv`), JSON lines (`--jsonl`), a file
beside each image (`--sidecar`).
"""

import argparse
import csv
import io
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rebus.cli.sidecar import SIDECARS, sidecar
from rebus.core.atomic_write import write_bytes_atomically, write_file_atomically
from rebus.core.errors import CannotWrite, UsageError
from rebus.core.strict_json import to_json

Row = Mapping[str, Any]
Flatten = Callable[[Row], Sequence[Row]]
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def check_folder(folder: Path, *, create: bool = False) -> None:
    """Raise `CannotWrite` unless files can be made in `folder`; with `create` it is made where it is absent."""
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".rebus-{secrets.token_hex(4)}"
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        probe.unlink()
    except (FileNotFoundError, NotADirectoryError, FileExistsError):
        raise CannotWrite(f"{folder}: no such folder. Make it first, or choose another --out") from None
    except OSError as error:
        raise CannotWrite(f"{folder}: cannot be written: {error.strerror}. Choose another --out") from None


def check_image(path: Path, *, page: str | None = None) -> None:
    """Raise `UsageError` for an ending that is no image's, `CannotWrite` where the file cannot be made.

    `page`: the ending of pages, where one may be written in an image's place.
    """
    ending = path.suffix.lower()
    if ending not in IMAGE_ENDINGS and ending != page:
        wanted = ", ".join(IMAGE_ENDINGS) + (f", a page in {page}" if page else "")
        raise UsageError(f"--out {path}: an image ends in {wanted}; got {path.suffix or 'nothing'}")
    if path.is_dir():
        raise CannotWrite(f"{path} is a folder; --out names the file to write")
    check_folder(path.parent)


def add_results(parser: argparse.ArgumentParser, *, sidecars: bool = True) -> None:
    """`--csv`, `--jsonl` and `--sidecar`, which `ResultFiles` serves."""
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write results as a CSV table")
    parser.add_argument("--jsonl", metavar="FILE", type=Path, help="write results as JSON lines, one per image")
    if sidecars:
        parser.add_argument("--sidecar", choices=SIDECARS, help="write each result next to its image: a.jpg, a.txt")
        parser.add_argument("--overwrite", action="store_true", help="overwrite existing sidecar files")


class ResultFiles:
    """The files of results that were asked for. Raises before any work where one of them cannot be written.

    Table and lines are written atomically when the run ends, also by Ctrl-C; sidecars as each answer comes. `flat`: the
    rows of the table that a row of JSON becomes, where `flattened` does not fit.
    """

    def __init__(self, args: argparse.Namespace, images: Sequence[str], flat: Flatten | None = None):
        self.csv: Path | None = getattr(args, "csv", None)
        self.jsonl: Path | None = getattr(args, "jsonl", None)
        self.kind: str | None = getattr(args, "sidecar", None)
        self.flat = flat or flattened
        for path in (self.csv, self.jsonl):
            if path is not None:
                if path.is_dir():
                    raise CannotWrite(f"{path} is a folder; name the file to write")
                check_folder(path.parent)
        if self.kind is not None:
            self._check_sidecars(images, args.overwrite)

    def add(self, row: Row) -> None:
        """One answer: its sidecar."""
        if self.kind is not None:
            write_bytes_atomically(self._beside(row["image"]), sidecar(row, self.kind))

    def finish(self, rows: Sequence[Row]) -> None:
        """All answers, and what failed."""
        if self.jsonl is not None:
            with write_file_atomically(self.jsonl) as file:
                file.writelines((to_json(row) + "\n").encode("ascii") for row in rows)
        if self.csv is not None:
            write_bytes_atomically(self.csv, as_csv([one for row in rows for one in self._flat(row)]))

    def _flat(self, row: Row) -> Iterator[Row]:
        yield from [row] if "error" in row else ({"image": row["image"], **one} for one in self.flat(row))

    def _beside(self, image: str) -> Path:
        return Path(image).with_suffix(f".{self.kind}")

    def _check_sidecars(self, images: Sequence[str], overwrite: bool) -> None:
        places: dict[Path, str] = {}
        for image in dict.fromkeys(images):
            other = places.setdefault(self._beside(image), image)
            if other != image:
                raise UsageError(f"--sidecar: {other} and {image} would both write {self._beside(image)}")
        there = [] if overwrite else [place for place in places if os.path.lexists(place)]
        if there:
            raise UsageError(
                f"--sidecar: {len(there):,} of {len(places):,} exist already, {there[0]} first; "
                "--overwrite replaces them"
            )
        for folder in dict.fromkeys(place.parent for place in places):
            check_folder(folder)


def flattened(row: Row) -> list[Row]:
    """A row of JSON as rows of a table: one for each detection; an empty one for an image without any."""
    plain = {name: value for name, value in row.items() if name != "image" and not isinstance(value, list | dict)}
    found = next((value for value in row.values() if isinstance(value, list)), None)
    if found is None:
        return [plain]
    return [{**plain, **_cells(one)} for one in found] or [plain]


def _cells(found: Row) -> dict[str, Any]:
    """A box, mask or line of writing: its numbers in columns, without a mask's runs."""
    cells = {name: value for name, value in found.items() if not isinstance(value, list)}
    box = found.get("xyxy") or found.get("box")
    if box is not None:
        cells |= zip(("left", "top", "right", "bottom"), box, strict=True)
    for number, (x, y) in enumerate(found.get("corners", ()), start=1):
        cells |= {f"x{number}": x, f"y{number}": y}
    return cells


def as_csv(rows: Sequence[Row]) -> bytes:
    """A table with all columns that any row has, in UTF-8."""
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["image"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")
