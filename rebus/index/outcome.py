"""What came of a file. Free of torch, so that a run that finds nothing new does not import it."""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rebus.index.scan import Seen


@dataclass(frozen=True, kw_only=True)
class Read:
    """A file that was read. `pixels`: a batch of one for the model; None where the image is `known` by its hash or
    damaged, which `error` says."""

    path: bytes
    seen: Seen
    hash: bytes
    known: int | None = None  # the row with the same content
    error: str | None = None
    width: int = 0
    height: int = 0
    format: str | None = None
    taken: int = 0  # seconds
    look: bytes = bytes(64)
    pixels: dict[str, Any] | None = None


@dataclass(frozen=True)
class Unread:
    """A file that the disk did not give: nothing is known, and nothing changes."""

    path: bytes
    reason: str


def hash_of(data: bytes) -> bytes:
    """128 bits of the content."""
    return hashlib.blake2b(data, digest_size=16).digest()


class Embedded(NamedTuple):
    """A file, and its vector (E,) where it has a new one."""

    read: Read | Unread
    vector: np.ndarray | None
