"""The indexes of a server: open for searches, with their text encoders loaded, and reopened when they were updated."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rebus.core.errors import RebusError
from rebus.index.search import ImageEncoder, Index, Term
from rebus.serve.failures import Refusal


class ServedIndexes:
    """By the names of their routes: those of their folders, with a number where two are called the same."""

    def __init__(self, indexes: Sequence[Index] = ()):
        self._open: dict[str, Index] = {}
        self._ready: set[str] = set()
        self._loading = threading.Lock()
        for index in indexes:
            stem = index.root.name or "root"
            names = (stem, *(f"{stem}-{number}" for number in range(2, len(indexes) + 1)))
            self._open[next(name for name in names if name not in self._open)] = index

    def __iter__(self) -> Iterator[tuple[str, Index]]:
        return iter(list(self._open.items()))

    def __len__(self) -> int:
        return len(self._open)

    def warm(self, name: str) -> None:
        """Load what a search by text needs. Raises what `Index.text_encoder` raises."""
        self._open[name].search(" ", number=1)
        self._ready.add(name)

    def get(self, name: str) -> Index:
        """As the folder was indexed last. Raises `Refusal`: 404 for an unknown name, 503 while it is loading."""
        if name not in self._open:
            message = "this server has no such index: GET /v1/search lists them"
            raise Refusal(404, message, "index_not_found", "index")
        if name not in self._ready:
            raise Refusal(503, "the index is not loaded yet", "loading", headers={"Retry-After": "5"})
        with suppress(RebusError):  # it is being replaced: the next search has it
            self._open[name] = self._open[name].current()
        return self._open[name]

    def with_images(
        self, index: Index, terms: Sequence[Term], encoder_of: Callable[[str], ImageEncoder | None]
    ) -> None:
        """Where a term is an image, take the served model of the index, or load it; once, however many ask.
        `encoder_of(name)`: a served model. Raises what `Index.model` raises."""
        if any(term.image is not None for term in terms):
            with self._loading:
                encoder = None if index.has_image_encoder else encoder_of(index.manifest.model)
                if encoder is not None:
                    index.share(encoder)
                elif not index.has_image_encoder:
                    _ = index.model


def file_of(index: Index, id: int) -> str:
    """The path of an image by its id. Raises `Refusal` where the index has none, or a link leads out of the folder."""
    path = index.path_of(id)
    if path is not None and (index.manifest.follow or _is_below(path, index.root)):
        return path
    raise Refusal(404, "this index has no such image", "image_not_found", "id")


def _is_below(path: str, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
