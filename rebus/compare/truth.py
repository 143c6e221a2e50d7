"""The ground truth of a comparison: a table of images, or the folders that images lie in."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rebus.core.errors import MissingFile, UsageError

FOLDERS = "folders"
COLUMNS = {"classify": "label", "caption": "caption", "ask": "answer", "read": "text", "detect": "label"}
_EDGES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Truths:
    """`of`: what is true of each image that is known, by its path as given. `strangers`: rows of other images."""

    of: dict[str, list[Any]]
    strangers: int = 0


def read_truth(source: str, task: str, images: Sequence[str]) -> Truths:
    """`source`: `folders`, for labels that are the names of the folders, or a CSV with the columns `image` and that of
    the task, with a row for each label, caption, answer, text or box; boxes also have left, top, right, bottom in
    pixels, and a row with an empty label says that there is nothing. Images are named by a path, relative to the
    table, or by the file's name where that is unique.

    Raises `UsageError` for a task without ground truth and a table that lacks columns or says nothing of the images.
    """
    if task not in COLUMNS:
        raise UsageError(f"--truth: {task} is compared by agreement alone; rebus eval measures it on data sets")
    if source == FOLDERS:
        if task != "classify":
            raise UsageError(f"--truth folders has labels, which are for classify, not for {task}")
        return Truths({image: [Path(image).absolute().parent.name] for image in images})
    found = _read_table(Path(source), task, images)
    if not found.of:
        raise UsageError(f"--truth {source}: not one of its {found.strangers:,} rows is of an image that was given")
    return found


def _read_table(path: Path, task: str, images: Sequence[str]) -> Truths:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingFile(f"--truth {path}: no such file; or write --truth folders") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--truth {path}: not a text in UTF-8 (byte {error.start})") from None
    table = csv.DictReader(text.splitlines(keepends=True))
    column = COLUMNS[task]
    wanted = ["image", column, *(_EDGES if task == "detect" else ())]
    lacking = [name for name in wanted if name not in (table.fieldnames or ())]
    if lacking:
        raise UsageError(f"--truth {path}: expected the columns {', '.join(wanted)}; missing: {', '.join(lacking)}")
    known = _names(images)
    of: dict[str, list[Any]] = {}
    strangers = 0
    for number, row in enumerate(table, 2):
        name = row["image"] or ""
        image = known.get(str((path.parent / name).resolve())) or known.get(name)
        if image is None:
            strangers += 1
            continue
        rows = of.setdefault(image, [])
        value = (row[column] or "").strip()
        if task == "detect":
            rows += [_box(path, number, value, row)] if value else []
        elif value:
            rows.append(value)
        else:
            raise UsageError(f"--truth {path}: row {number} has no {column}")
    return Truths(of, strangers)


def _names(images: Sequence[str]) -> dict[str, str]:
    """Resolved paths, and names of files that only one image has, → the image."""
    names: dict[str, str] = {}
    several = set()
    for image in images:
        name = Path(image).name
        if name in names:
            several.add(name)
        names[name] = image
    return {name: image for name, image in names.items() if name not in several} | {
        str(Path(image).resolve()): image for image in images
    }


def _box(path: Path, number: int, label: str, row: dict[str, Any]) -> dict[str, Any]:
    try:
        left, top, right, bottom = (float(row[edge]) for edge in _EDGES)
    except (TypeError, ValueError):
        raise UsageError(f"--truth {path}: row {number} should have numbers in {', '.join(_EDGES)}") from None
    if not (left < right and top < bottom):
        raise UsageError(f"--truth {path}: row {number}: the box {left:g}, {top:g}, {right:g}, {bottom:g} is empty")
    return {"label": label, "xyxy": [left, top, right, bottom]}
