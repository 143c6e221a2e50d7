"""CIDEr-D: how alike a caption and those that people wrote are, by the n-grams that are rare among images.

Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", 2015.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from rebus.core.errors import UsageError

Gram = tuple[str, ...]
LONGEST_GRAM = 4


class Cider:
    """CIDEr-D with the n-gram rarities of given images, each of which has one reference or more."""

    def __init__(self, references: Iterable[Sequence[str]]):
        images = [set().union(*(grams(text) for text in texts)) for texts in references]
        images_with = Counter(gram for image in images for gram in image)
        self._rarity = {gram: float(np.log(len(images) / number)) for gram, number in images_with.items()}
        self._unseen = float(np.log(len(images)))

    def scores(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """CIDEr-D of each image, 0 to 10.

        10 · mean over n = 1..4 and the image's references s of
        exp(-(|c| - |s|)² / 2σ²) · Σ min(g(c), g(s)) · g(s) / (‖g(c)‖ · ‖g(s)‖), σ = 6,
        where g counts each n-gram times log(images / images that have it in a reference).
        """
        check_captions(candidates, references)
        scores = []
        for candidate, texts in zip(candidates, references):
            ours, our_norm = self._weigh(candidate)
            total = 0.0
            for text in texts:
                theirs, their_norm = self._weigh(text)
                shared = {gram: min(ours[gram], theirs[gram]) * theirs[gram] for gram in ours.keys() & theirs.keys()}
                norms = our_norm * their_norm
                cosines = np.divide(_by_length(shared), norms, out=np.zeros(LONGEST_GRAM), where=norms > 0)
                gap = len(candidate.split()) - len(text.split())
                total += float(cosines.mean() * np.exp(-(gap**2) / (2 * 6.0**2)))
            scores.append(10 * total / len(texts))
        return np.array(scores)

    def _weigh(self, text: str) -> tuple[dict[Gram, float], np.ndarray]:
        weighed = {gram: count * self._rarity.get(gram, self._unseen) for gram, count in grams(text).items()}
        return weighed, np.sqrt(_by_length({gram: weight**2 for gram, weight in weighed.items()}))


def cider_d_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each image, 0 to 10 (`Cider.scores`).

    The references given decide what is rare, so scores of different sets do not compare, and a set of one image
    scores 0.
    """
    check_captions(candidates, references)
    return Cider(references).scores(candidates, references)


def grams(text: str) -> Counter[Gram]:
    """How often each run of one to four words occurs."""
    tokens = text.split()
    return Counter(
        tuple(tokens[start : start + size])
        for size in range(1, LONGEST_GRAM + 1)
        for start in range(len(tokens) - size + 1)
    )


def _by_length(values: dict[Gram, float]) -> np.ndarray:
    """Sums of the values of the 1-grams, 2-grams, 3-grams and 4-grams."""
    sums = np.zeros(LONGEST_GRAM)
    for gram, value in values.items():
        sums[len(gram) - 1] += value
    return sums


def check_captions(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise `UsageError` for anything but one candidate, and one reference or more, for each of one image or more."""
    if isinstance(candidates, str) or isinstance(references, str):
        raise UsageError("wanted a list of candidates and a list of lists of references; got a single string")
    if len(candidates) != len(references):
        raise UsageError(
            f"wanted references for each candidate; got {len(candidates)} candidates and references for "
            f"{len(references)} images"
        )
    if not candidates:
        raise UsageError("wanted at least one candidate to score; got none")
    for place, others in enumerate(references):
        if isinstance(others, str):
            raise UsageError(f"wanted a list of references for image {place}; got the string {others!r}")
        if not others:
            raise UsageError(f"wanted at least one reference for image {place}; got none")
