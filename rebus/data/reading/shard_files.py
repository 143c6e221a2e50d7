"""The files that make up a data set, and which of them belong to a split."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from rebus.core.errors import MissingFile, UsageError

# Others' words for the same part of a data set
_ALIKE = (("train", "training"), ("val", "valid", "validation", "dev"), ("test", "testing"))
SPLITS = tuple(word for words in _ALIKE for word in words)
MAX_FILES = 1_000_000  # that one brace pattern may name


class NoSplits(UsageError):
    """A split was asked for of a data set that has none at all."""


def names_of(split: str) -> frozenset[str]:
    """All words for a split: "val" is also called "validation"."""
    word = split.lower()
    return frozenset(next((words for words in _ALIKE if word in words), (word,)))


def is_pattern(path: Path) -> bool:
    return any(sign in path.name for sign in "{*?[") and not path.exists()


def shards(path: Path, endings: Sequence[str], split: str | None = None) -> list[Path]:
    """The files with one of `endings` that `path` means, in order of name.

    `path`: one file; a folder (its files, those of its folder `split`, or those of all its folders where it has none
    itself); or a pattern of names in a folder, "train-{00000..00010}.tar" or "*.tar". Files belong to a split when the
    word is in their name or in a folder's. Raises `MissingFile` where there are none, `UsageError` for no
    such split, `NoSplits` where no name tells any.
    """
    if is_pattern(path):
        found = _by_pattern(path)
    elif path.is_dir():
        try:
            found = _in_folder(path, endings, split)
        except OSError as error:
            raise MissingFile(f"{path}: cannot be listed: {error.strerror}") from None
    else:
        found = [path]
    if not found:
        raise MissingFile(f"{path}: no files {' or '.join('*' + ending for ending in endings)} here")
    if split is None:
        return found
    words = [words_of(file.relative_to(path) if path.is_dir() else Path(file.name)) for file in found]
    wanted = names_of(split)
    chosen = [file for file, own in zip(found, words) if not wanted.isdisjoint(own)]
    seen = {word for own in words for word in own if word in SPLITS}
    if not chosen and not seen and path.name.lower() in wanted:
        return found
    if not chosen:
        if not seen:
            raise NoSplits(
                f'{path}: no files of the split "{split}"; names like {found[0].name} do not show it: leave it out'
            )
        raise UsageError(f'{path}: no files of the split "{split}"; it has {", ".join(sorted(seen))}')
    return chosen


def _in_folder(path: Path, endings: Sequence[str], split: str | None) -> list[Path]:
    folders = [path / name for name in sorted(names_of(split))] if split else []
    for folder in [*(f for f in folders if f.is_dir()), path]:
        here = [f for f in folder.iterdir() if _fits(f.name, endings) and f.is_file()]
        if here:
            return sorted(here)
    below = (Path(at, name) for at, _, names in os.walk(path) for name in names if _fits(name, endings))
    return sorted(below)


def _fits(name: str, endings: Sequence[str]) -> bool:
    return name.endswith(tuple(endings)) and not name.startswith(".")


def _by_pattern(path: Path) -> list[Path]:
    names = _spread(path.name)
    if any(sign in name for name in names for sign in "*?["):
        where = glob.escape(str(path.parent))
        return sorted({Path(file) for name in names for file in glob.glob(os.path.join(where, name))})
    files = [path.parent / name for name in names]
    for file in files:
        if not file.is_file():
            raise MissingFile(f"{file}: no such file; {path.name} names {len(files):,} of them")
    return files


def _spread(name: str) -> list[str]:
    """Each {a..b} and {a,b} written out, as a shell does; numbers keep their zeros."""
    inside = re.search(r"\{([^{}]*)\}", name)
    if inside is None:
        return [name]
    before, after = name[: inside.start()], _spread(name[inside.end() :])
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside[1])
    if numbers is None:
        words = inside[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        if last < first or (last - first + 1) * len(after) > MAX_FILES:
            raise UsageError(f"{name}: {{{inside[1]}}} must count upwards and name at most {MAX_FILES:,} files")
        words = [str(n).zfill(len(numbers[1])) for n in range(first, last + 1)]
    return [before + word + rest for word in words for rest in after]


def words_of(file: Path) -> list[str]:
    """The words in a file's name and in those of its folders, in lower case."""
    return [word for part in file.parts for word in re.split(r"[^a-z]+", part.lower()) if word]
