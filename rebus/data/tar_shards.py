"""Shards as img2dataset writes them: tars of 000000012.jpg, 000000012.txt, 000000012.json."""

import io
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

from rebus.core.strict_json import to_json


def shard_name(unit: int) -> str:
    return f"{unit:05d}.tar"


def key_of(unit: int, row: int, shard_size: int) -> str:
    """Of a row of a shard: the number of the shard, then that of the row in it, 0 to `shard_size` - 1."""
    return f"{unit:05d}{row:0{max(4, len(str(shard_size - 1)))}d}"


class TarWriter:
    """Writes samples into an open file. The same samples give the same bytes."""

    def __init__(self, file: IO[bytes]):
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self.samples = 0

    def add(
        self,
        key: str,
        image: bytes,
        ending: str,
        text: str | None,
        facts: Mapping[str, Any],
        label: str | None = None,
    ) -> None:
        """`text`, `label` None: the sample has none."""
        self._member(f"{key}.{ending}", image)
        if text is not None:
            self._member(f"{key}.txt", text.encode("utf-8", "replace"))
        if label is not None:
            self._member(f"{key}.cls", label.encode("utf-8", "replace"))
        self._member(f"{key}.json", to_json(facts, default=str).encode("ascii"))
        self.samples += 1

    def close(self) -> None:
        self._tar.close()

    def _member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))


def copy_without(shard: Path, keys: Collection[str], file: IO[bytes]) -> None:
    """The tar `shard` without the samples `keys`, into an open file."""
    with tarfile.open(shard, "r:") as source, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as out:
        for member in source:
            if member.name.partition(".")[0] not in keys:
                out.addfile(member, source.extractfile(member))
