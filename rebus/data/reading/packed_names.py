"""Many short names in two arrays: a hundredth of the objects that a list of them is, quick to keep and to send."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PackedNames:
    """`names[n]` is the n-th name. Names of files may hold bytes that are no text; they come back as they were."""

    letters: np.ndarray  # uint8, all names on end
    ends: np.ndarray  # int64 (names,)

    @classmethod
    def of(cls, names: Iterable[str]) -> "PackedNames":
        letters, ends = bytearray(), []
        for name in names:
            letters += os.fsencode(name)
            ends.append(len(letters))
        return cls(np.frombuffer(bytes(letters), dtype=np.uint8), np.array(ends, dtype=np.int64))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> "PackedNames":
        return cls(arrays[f"{name}.letters"], arrays[f"{name}.ends"])

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        return {f"{name}.letters": self.letters, f"{name}.ends": self.ends}

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self.ends):
            raise IndexError(number)
        start = self.ends[number - 1] if number else 0
        return os.fsdecode(self.letters[start : self.ends[number]].tobytes())
