"""How often texts, images and text come in a data set, counted in one pass with sixteen bytes a pair.

Texts and words are counted by 64 bits of their hash. Among a billion texts, two share theirs with a chance of 3 %.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from rebus.data.record import Record

_MERGED = 4_000_000  # words counted before they are added up


def words_of(text: str) -> list[str]:
    """Lower-case words between blanks: the unigrams of a text."""
    return text.lower().split()


def grams_of(text: str) -> Iterator[str]:
    """Unigrams and bigrams."""
    words = words_of(text)
    yield from words
    yield from (f"{one} {other}" for one, other in pairwise(words))


def text_id(text: str) -> int:
    """Texts that differ in blanks and capitals are the same text."""
    return _hash(" ".join(words_of(text)))


def image_id(record: Record) -> int:
    """By the look of the image where a layout knows it (COYO's `image_phash`), else by its address, else its key."""
    for name in ("image_phash", "url"):
        if (value := record.facts.get(name)) is not None:
            return _hash(f"{name}={value}")
    return _hash(record.key)


def _hash(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Common:
    """A set of unigrams and bigrams. Bigrams count only where the set has any."""

    ids: np.ndarray  # uint64, ascending
    bigrams: bool

    @classmethod
    def of(cls, grams: Iterable[str]) -> "Common":
        """A set that the user gives; a bigram is two words with a blank between them."""
        cleaned = [" ".join(words_of(gram)) for gram in grams]
        ids = np.unique(np.array([_hash(gram) for gram in cleaned], dtype=np.uint64))
        return cls(ids, any(" " in gram for gram in cleaned))

    def __contains__(self, gram: str) -> bool:
        return _within(_hash(gram), self.ids)

    def has_all(self, text: str) -> bool:
        return all(gram in self for gram in (grams_of(text) if self.bigrams else words_of(text)))


@dataclass(frozen=True)
class Frequent:
    """What comes too often, and which words are common. Texts and images by id, ascending."""

    texts: np.ndarray
    images: np.ndarray
    common: Common | None = None

    def has_text(self, text: str) -> bool:
        return _within(text_id(text), self.texts)

    def has_image(self, record: Record) -> bool:
        return _within(image_id(record), self.images)


@dataclass
class Counting:
    """`add` every record, then `finish`. `words` False leaves words uncounted, which is faster."""

    words: bool = True
    _texts: array = field(default_factory=lambda: array("Q"))
    _images: array = field(default_factory=lambda: array("Q"))
    _fresh: array = field(default_factory=lambda: array("Q"))
    _grams: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.uint64))
    _counts: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.int64))

    def add(self, record: Record) -> None:
        image = image_id(record)
        for caption in record.captions:
            self._texts.append(text_id(caption))
            self._images.append(image)
            if self.words:
                self._fresh.extend(_hash(gram) for gram in grams_of(caption))
        if len(self._fresh) > _MERGED:
            self._merge()

    def finish(
        self,
        *,
        images_per_text: int | None = None,
        texts_per_image: int | None = None,
        min_count: int | None = None,
        most: int | None = None,
    ) -> Frequent:
        """What comes with more than so many others; a pair that comes twice counts once.

        Words and pairs of words are common that come `min_count` times, or are among the `most` that come most often.
        """
        texts = np.frombuffer(self._texts, dtype=np.uint64)
        images = np.frombuffer(self._images, dtype=np.uint64)
        order = np.lexsort((images, texts))
        texts, images = texts[order], images[order]
        new = np.ones(len(texts), dtype=bool)
        new[1:] = (texts[1:] != texts[:-1]) | (images[1:] != images[:-1])
        common = None if min_count is None and most is None else self._common(min_count or 1, most)
        return Frequent(_above(texts[new], images_per_text), _above(images[new], texts_per_image), common)

    def _common(self, min_count: int, most: int | None) -> Common:
        self._merge()
        ids = self._grams[self._counts >= min_count]
        if most is not None and len(ids) > most:
            counts = self._counts[self._counts >= min_count]
            ids = np.sort(ids[np.argsort(-counts, kind="stable")[:most]])
        return Common(ids, bigrams=True)

    def _merge(self) -> None:
        fresh, counts = np.unique(np.frombuffer(self._fresh, dtype=np.uint64), return_counts=True)
        ids, place = np.unique(np.concatenate([self._grams, fresh]), return_inverse=True)
        total = np.zeros(len(ids), dtype=np.int64)
        np.add.at(total, place, np.concatenate([self._counts, counts]))
        self._grams, self._counts, self._fresh = ids, total, array("Q")


def _above(ids: np.ndarray, most: int | None) -> np.ndarray:
    found, counts = np.unique(ids, return_counts=True)
    return found[counts > most] if most is not None else found[:0]


def _within(number: int, ids: np.ndarray) -> bool:
    value = np.uint64(number)
    place = int(np.searchsorted(ids, value))
    return place < len(ids) and bool(ids[place] == value)
