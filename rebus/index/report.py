"""What is asked of a run over a folder, and what it says it did."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of a run. None: as the index has it, or the default. `model`: a name, or how to choose one for a new index."""

    model: str | Callable[[], str]
    chosen: bool = False  # whether a person named the model: then an index of another one is built anew
    exclude: tuple[str, ...] | None = None
    follow: bool | None = None
    fast: bool | None = None  # decode JPEGs at a fraction of their size
    labels: tuple[str, ...] | None = None
    verify: bool = False  # read every file again
    prune: bool = False  # drop the rows of files that are not seen
    captions: str | None = None  # the model that writes a caption for each image
    engine: str = "local"
    batch: int | None = None
    threads: int | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Progress:
    """Files that are read and embedded, how many there are, and what bounds the speed."""

    done: int
    total: int
    bound: str
    what: str = "images"


@dataclass
class Report:
    """What a run found and did. `damaged` and `unread`: why, by path; the first are kept without a vector until they
    change, the second are tried again."""

    root: str
    index: str
    model: str = ""
    rows: int = 0  # with a vector, after the run
    unchanged: int = 0
    new: int = 0
    changed: int = 0
    moved: int = 0
    missing: int = 0
    pruned: int = 0
    excluded: int = 0
    embedded: int = 0  # by the model in this run
    captioned: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    embedding: float = 0.0  # of these, for reading and embedding
    bound: str = ""
    rebuilt: str = ""  # why another table was built
