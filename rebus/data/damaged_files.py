"""Files of a data set that cannot be read in part or in whole: named and counted wherever the data set is used.

What was in them is not known, so nobody can count the records that are lost; the share that may be is one of files.
"""

from collections.abc import Sequence
from pathlib import Path

from rebus.core.errors import RebusError
from rebus.data.record import Reader


class OverReader:
    """What a reader of some records of another one says as that does: labels, and files with their damage."""

    reader: Reader

    @property
    def labels(self) -> Sequence[str]:
        return self.reader.labels

    @property
    def faults(self) -> Sequence[str]:
        return damaged_files(self.reader)

    @property
    def files(self) -> Sequence[Path]:
        """Those that are read, damaged ones included."""
        found: Sequence[Path] = getattr(self.reader, "files", ())
        return found


def damaged_files(reader: Reader) -> tuple[str, ...]:
    """A line for each damaged file, naming it."""
    return tuple(getattr(reader, "faults", ()))


def check_files(reader: Reader, most: float, allow: str) -> tuple[str, ...]:
    """`damaged_files`, or a `RebusError` where they are more than the share `most` of all files.

    `allow`: how a user allows more, for the message.
    """
    found = damaged_files(reader)
    total = max(len(getattr(reader, "files", reader.sizes)), len(found))
    if len(found) > most * total:
        raise RebusError(
            f"{len(found):,} of {total:,} files are damaged, more than the fraction {most:g}; the first: {found[0]}. "
            f"Download them again; to continue without the lost records, {allow}"
        )
    return found
