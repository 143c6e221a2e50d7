"""What an index is of: `manifest.json`, by which all else in its folder counts, and where the folder is."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rebus.core.atomic_write import write_bytes_atomically
from rebus.core.cache import cache_home
from rebus.core.errors import MissingFile, RebusError
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json

FILE, NEXT, WRITING = "manifest.json", "next.json", "writing"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`table`: of LanceDB, at `uri`; `snapshot`: the folder that searches read, None before the first is whole.

    `identity`: device and inode of the root, by which a renamed root is known. `exclude`, `follow` and `fast` hold
    until others are given."""

    root: str
    model: str  # as `rebus.load` takes it
    text_print: str
    image_print: str  # what tells its vectors from those of other weights, anchors, preprocessing and pooling
    width: int
    dtype: str
    table: str
    uri: str
    snapshot: str | None = None
    identity: tuple[int, int] = (0, 0)
    exclude: tuple[str, ...] = ()
    follow: bool = False
    fast: bool = False
    labels: tuple[str, ...] = ()
    version: int = VERSION

    def write(self, file: Path) -> None:
        """Written atomically. Raises `CannotWrite`."""
        write_bytes_atomically(file, (to_json(asdict(self), indent=1) + "\n").encode())

    def at(self, root: Path) -> "Manifest":
        """The same of a root that was moved."""
        return replace(self, root=str(root), identity=identity_of(root))


def read_manifest(file: Path) -> Manifest | None:
    """None where there is none. Raises `RebusError` for one that is damaged or of another version."""
    try:
        data = json.loads(read_small(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RebusError(f"{file}: cannot be read ({error}). Remove the folder, and index again") from None
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise RebusError(f"{file}: of another version of rebus. Remove the folder, and index again")
    names = {one.name for one in fields(Manifest)}
    if set(data) != names:
        raise RebusError(f"{file}: lacks fields of an index: {', '.join(sorted(names ^ set(data)))}")
    lists = {name: tuple(data[name]) for name in ("exclude", "labels", "identity")}
    return Manifest(**{**data, **lists})


@dataclass(frozen=True)
class Place:
    """The folder of an index, and the address of its tables, which may be in an object store."""

    folder: Path
    uri: str

    @property
    def owns_tables(self) -> bool:
        """Whether nothing but this index is at the address of its tables."""
        return self.uri == str(self.folder / "tables")

    @property
    def manifest(self) -> Manifest | None:
        """The index that is whole, if there is one."""
        return read_manifest(self.folder / FILE)

    def demand(self, root: Path) -> Manifest:
        """The same. Raises `MissingFile` where there is no whole index."""
        found = self.manifest
        if found is None or found.snapshot is None:
            begun = (self.folder / NEXT).exists()
            said = "its index is not complete yet" if begun else "there is no index of it"
            raise MissingFile(f"{root}: {said}. Make it with: rebus index {root}")
        return found


def place_of(root: Path, where: str | None = None) -> Place:
    """Where the index of a folder is: `where` if given, a folder or the address of an object store, else in the cache
    of rebus, outside the folder itself. There a folder that was renamed is known by its inode."""
    home = cache_home() / "indexes"
    if where is not None:
        if re.match(r"[a-z][a-z0-9+.-]+://", where):
            return Place(home / f"remote-{_digest(where)}", where)
        folder = Path(where).expanduser().absolute()
        return Place(folder, str(folder / "tables"))
    resolved = Path(os.path.realpath(root))
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", resolved.name)[:40] or "root"
    folder = home / f"{name}-{_digest(str(resolved))}"
    if not (folder / FILE).exists() and resolved.is_dir():
        former = _renamed(home, resolved)
        if former is not None:
            folder = former
    return Place(folder, str(folder / "tables"))


def _renamed(home: Path, root: Path) -> Path | None:
    """The index that was made of this very folder under a name that it no longer has."""
    for file in sorted(home.glob(f"*/{FILE}")):
        try:
            found = read_manifest(file)
        except RebusError:
            continue
        if found is None or found.identity != identity_of(root):
            continue
        if found.root == str(root) or not os.path.exists(found.root):
            return file.parent
    return None


def identity_of(root: Path) -> tuple[int, int]:
    """Device and inode; zeros where the folder is away."""
    try:
        status = os.stat(root)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def _digest(text: str) -> str:
    return hashlib.blake2b(os.fsencode(text), digest_size=6).hexdigest()
