"""Questions to an index: text, images, both, with other things subtracted, and conditions on files.

A question is one vector, so that exact and approximate search take the same. Several terms are balanced first: the
similarities of images with images are several times those with text, so that each term counts by how far it tells
images apart (its similarities' standard deviation over the index), times its weight.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from rebus.core.errors import MissingFile, RebusError, UsageError, unknown
from rebus.index.conditions import EVERYTHING, Conditions
from rebus.index.manifest import FILE, Manifest, Place, place_of, read_manifest
from rebus.index.snapshot import Snapshot
from rebus.index.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from rebus.api import Model

APPROXIMATE = 1_000_000  # rows above which a search is approximate unless it is asked to be exact
MINUS = 0.5  # weight of what is subtracted
_SAMPLE = 20_000  # rows by which terms are balanced
_PROBES, _REFINE = 12, 10
_SHARE = 0.05  # of the rows that conditions leave, for partitions to be worth it


@dataclass(frozen=True)
class Term:
    """A part of a question: a text, or an image or its path. What is subtracted has a negative weight."""

    text: str | None = None
    image: str | Image.Image | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Hit:
    """An image that was found. `path` is whole; `score` the cosine, or of several terms their balanced sum; `id` stays
    that of the image in its index."""

    path: str
    score: float
    width: int
    height: int
    taken: int  # seconds
    size: int
    id: int
    caption: str | None = None


class ImageEncoder(Protocol):
    """What a question by image needs of a model."""

    def embed_images(self, images: Sequence[Any]) -> "Tensor":
        """(N, E) of unit length, of paths or PIL images."""
        ...


@dataclass
class Index:
    """An index that is open for questions. Encoders are loaded when a question needs them, and kept."""

    place: Place
    manifest: Manifest
    snapshot: Snapshot
    exact: bool | None = None  # None: up to `APPROXIMATE` rows
    _models: dict[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return Path(self.manifest.root)

    def __len__(self) -> int:
        """Images that can be found."""
        return len(self.snapshot)

    def search(
        self,
        terms: str | Sequence[Term] = (),
        *,
        conditions: Conditions = EVERYTHING,
        number: int | None = 20,
        by_date: bool = False,
    ) -> list[Hit]:
        """The best first, as many as there are where `number` is None; `by_date`: of these the newest first. Without
        terms, the newest that meet the conditions. Raises `UsageError` for an unknown label, and what opening the terms
        raises."""
        terms = [Term(text=terms)] if isinstance(terms, str) else list(terms)
        kept = self._kept(conditions)
        if terms:
            rows, scores = self._nearest(self.question(terms), kept, number)
        else:
            rows, scores = np.flatnonzero(kept), np.zeros(len(self), dtype=np.float32)
        if by_date or not terms:
            rows = rows[np.argsort(-self.snapshot.column("taken")[rows], kind="stable")]
        return [self._hit(int(row), float(scores[row])) for row in rows[:number]]

    def question(self, terms: Sequence[Term]) -> np.ndarray:
        """The vector of a question (E,): of a single term its own, else balanced."""
        vectors = self._vectors(terms)
        if len(terms) == 1 and terms[0].weight > 0:
            return vectors[0]
        step = max(1, len(self) // _SAMPLE)
        spread = (self.snapshot.vectors[::step] @ vectors.T).std(axis=0) if len(self) > 1 else np.ones(len(terms))
        weights = np.array([term.weight for term in terms]) / np.maximum(spread, 1e-6)
        total: np.ndarray = (weights @ vectors).astype(np.float32)
        return total / max(float(np.abs(weights).sum()), 1e-12)

    def _vectors(self, terms: Sequence[Term]) -> np.ndarray:
        if any((term.text is None) == (term.image is None) for term in terms):
            raise UsageError("a term is a text or an image")
        found = np.empty((len(terms), self.snapshot.width), dtype=np.float32)
        texts = [i for i, term in enumerate(terms) if term.text is not None]
        images = [i for i, term in enumerate(terms) if term.text is None]
        if texts:
            said = [str(terms[i].text) for i in texts]
            found[texts] = self.text_encoder.embed_texts(said).numpy()
        if images:
            found[images] = self._image_vectors([terms[i].image for i in images])
        return found

    def _image_vectors(self, images: Sequence[Any]) -> np.ndarray:
        """A path of the index has its vector there; other images are read and embedded."""
        rows = [self._row_of(image) if isinstance(image, str) else None for image in images]
        found = np.empty((len(images), self.snapshot.width), dtype=np.float32)
        for i, row in enumerate(rows):
            if row is not None:
                found[i] = self.snapshot.vectors[row]
        others = [i for i, row in enumerate(rows) if row is None]
        if others:
            encoder = self._models.get("images") or self.model
            found[others] = encoder.embed_images([images[i] for i in others]).numpy()
        return found

    def _row_of(self, image: str) -> int | None:
        with suppress(ValueError, OSError):
            path = os.fsencode(Path(os.path.realpath(image)).relative_to(self.root))
            row = self._rows.get(path)
            if row is not None:
                status = os.stat(image)
                seen = self.snapshot.column("size")[row], self.snapshot.column("mtime")[row]
                return row if seen == (status.st_size, status.st_mtime_ns) else None
        return None

    @cached_property
    def _rows(self) -> dict[bytes, int]:
        return {path: row for row, path in enumerate(self.snapshot.paths[: len(self)])}

    @property
    def text_encoder(self) -> "Model":
        """Of the model of the index. Raises `RebusError` where its weights are no longer those of the index."""
        if "text" not in self._models:
            from rebus.index.text_encoder import fingerprint_of_text, text_encoder
            from rebus.open_checkpoint import open_checkpoint

            opened = open_checkpoint(self.manifest.model)
            processor = opened.processor()
            if fingerprint_of_text(opened, processor) != self.manifest.text_print:
                raise self._other_weights()
            self._models["text"] = text_encoder(opened, processor)
        return self._models["text"]

    @property
    def model(self) -> "Model":
        """The whole model of the index. Raises as `text_encoder`."""
        if "whole" not in self._models:
            from rebus.api import load

            self._check_images()
            self._models["whole"] = load(self.manifest.model)
        return self._models["whole"]

    @property
    def has_image_encoder(self) -> bool:
        """Whether a question by image loads nothing more."""
        return "whole" in self._models or "images" in self._models

    def share(self, encoder: ImageEncoder) -> None:
        """Images of questions are embedded by the model of the index that is loaded elsewhere, instead of by `model`.
        Raises as `text_encoder`."""
        self._check_images()
        self._models["images"] = encoder

    def _check_images(self) -> None:
        from rebus.index.text_encoder import fingerprints
        from rebus.open_checkpoint import open_checkpoint

        if fingerprints(open_checkpoint(self.manifest.model))[1] != self.manifest.image_print:
            raise self._other_weights()

    def _other_weights(self) -> RebusError:
        return RebusError(
            f"{self.manifest.model} has other weights, anchors or preprocessing than the index of {self.root}. "
            f"Rebuild it: rebus index {self.root} --verify"
        )

    def labels(self, labels: Sequence[str]) -> np.ndarray:
        """(N, labels) probabilities of labels, as `classify` gives them."""
        import torch

        from rebus.tasks.classify import Classifier

        classifier = Classifier(self.text_encoder, labels)
        if len(classifier.labels) != len(labels):
            raise UsageError("two of the labels tokenize identically")
        parts = [
            classifier.probabilities(torch.from_numpy(np.array(self.snapshot.vectors[first : first + _SAMPLE])))
            for first in range(0, len(self), _SAMPLE)
        ]
        found: np.ndarray = torch.cat(parts).numpy() if parts else np.empty((0, len(labels)), dtype=np.float32)
        return found

    def _kept(self, conditions: Conditions) -> np.ndarray:
        kept = ~self.snapshot.missing & conditions.met_by(self.snapshot)
        if conditions.labels:
            known = self.manifest.labels
            if not known:
                raise UsageError(
                    f"the index of {self.root} has no labels: rebus index {self.root} --labels FILE, one per line"
                )
            for label, _, _ in conditions.labels:
                if label not in known:
                    raise unknown("label", label, known)
            kept &= conditions.labelled(self.labels(known), known)
        return kept

    def _nearest(self, query: np.ndarray, kept: np.ndarray, number: int | None) -> tuple[np.ndarray, np.ndarray]:
        """(rows, best first; scores of all rows, of which those of `rows` are exact)."""
        exact = len(self) <= APPROXIMATE if self.exact is None else self.exact
        if number is not None and not exact:
            found = self._approximate(query, kept, number)
            if found is not None:
                return found
        screened = None if number is None else self.snapshot.screened(query)
        if screened is None or number is None:
            scores = self.snapshot.scores(query)
            rows = np.flatnonzero(kept)
        else:
            scores, slack = screened
            rows = np.flatnonzero(kept)
            if len(rows) > number:
                least = np.partition(scores[rows], -number)[-number] - 2 * slack
                rows = rows[scores[rows] >= least]
            scores[rows] = self.snapshot.vectors[rows] @ query
        if number is not None and len(rows) > number:
            rows = rows[np.argpartition(-scores[rows], number - 1)[:number]] if number else rows[:0]
        return rows[np.lexsort((rows, -scores[rows]))], scores

    def _approximate(self, query: np.ndarray, kept: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        """By LanceDB's partitions; None where there are none, or where the conditions leave so few rows that a product
        is quicker."""
        share = float(kept.mean())
        if share < _SHARE:
            return None
        if "store" not in self._models:
            ids = self.snapshot.column("id")
            order = np.argsort(ids)
            self._models["store"] = Store(self.manifest.uri, self.manifest.table), ids[order], order
        store, ids, order = self._models["store"]
        if "partitioned" not in self._models and not store.partitioned:
            return None
        self._models["partitioned"] = True
        asked = number if share == 1 else number + int(number / share)
        found = np.array(store.nearest(query, asked, _PROBES, _REFINE), dtype=np.int64)
        places = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
        rows = order[places][ids[places] == found]  # the table has damaged images too
        rows = rows[kept[rows]]
        if len(rows) < number:
            return None
        scores = np.zeros(len(self), dtype=np.float32)
        scores[rows] = self.snapshot.vectors[rows] @ query
        return rows[np.argsort(-scores[rows], kind="stable")][:number], scores

    def current(self) -> "Index":
        """This index; the new one, with the encoders loaded here, where the folder was indexed again meanwhile."""
        manifest = read_manifest(self.place.folder / FILE)
        if manifest is None or manifest.snapshot is None or manifest == self.manifest:
            return self
        same = (manifest.text_print, manifest.image_print) == (self.manifest.text_print, self.manifest.image_print)
        models: dict[str, Any] = {
            name: self._models[name] for name in ("text", "whole", "images") if same and name in self._models
        }
        return Index(self.place, manifest, Snapshot(self.place.folder / manifest.snapshot), self.exact, models)

    def path_of(self, id: int) -> str | None:
        """The whole path of the image with this `Hit.id`; None where there is none, or it is missing."""
        rows = np.flatnonzero((self.snapshot.column("id") == id) & ~self.snapshot.missing)
        return self.path(int(rows[0])) if len(rows) else None

    def path(self, row: int) -> str:
        """The whole path of a row."""
        return os.path.join(self.root, os.fsdecode(self.snapshot.rows["path"][row].as_py()))

    def _hit(self, row: int, score: float) -> Hit:
        rows = self.snapshot.rows
        names = ("id", "width", "height", "taken", "size", "caption")
        values = {name: rows[name][row].as_py() for name in names}
        return Hit(path=self.path(row), score=score, **values)


def open_index(root: str | Path, where: str | None = None) -> Index:
    """The index of a folder, in the cache or at `where`; the folder itself may be away. Raises `MissingFile` where
    there is none, `RebusError` for a damaged one."""
    root = Path(root).expanduser()
    place = place_of(root, where)
    for attempt in range(3):
        manifest = place.demand(root)
        assert manifest.snapshot is not None
        try:
            return Index(place, manifest, Snapshot(place.folder / manifest.snapshot))
        except RebusError:  # it may have been replaced just now
            current = read_manifest(place.folder / FILE)
            if attempt == 2 or current == manifest:
                raise
            time.sleep(0.1)
    raise MissingFile(f"{root}: its index is being replaced")
