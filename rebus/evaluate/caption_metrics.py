"""Scores of captions against those people wrote: BLEU, ROUGE-L and CIDEr-D, counted as the COCO evaluation counts them.

Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", 2015.

Every score takes one candidate an image and one or more references an image, all tokenised: words separated by
spaces, as `words` gives them. Papers print 100 times as much. Each score raises `UsageError` for no images, for
lists of unequal length and for an image without references.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rebus.codec.caption_words import words as words
from rebus.objectives.cider import LONGEST_GRAM, Gram, check_captions, grams
from rebus.objectives.cider import cider_d_scores as cider_d_scores


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, float, float, float]:
    """BLEU-1, BLEU-2, BLEU-3 and BLEU-4 of the whole set.

    BLEU-n = min(1, exp(1 - r / c)) · (p₁ · … · pₙ)^(1/n). pₖ is the share of the candidates' k-grams that occur in
    their references, each counted at most as often as in the one reference that has most of it. c sums the
    candidates' lengths and r that of the closest reference each, the shorter of two equally close.

    Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002.
    """
    check_captions(candidates, references)
    right, given = np.zeros(LONGEST_GRAM), np.zeros(LONGEST_GRAM)
    length, wanted = 0, 0
    for candidate, others in zip(candidates, references):
        size = len(candidate.split())
        length += size
        wanted += min((len(other.split()) for other in others), key=lambda n: (abs(n - size), n))
        most: Counter[Gram] = Counter()
        for other in others:
            most |= grams(other)
        found = grams(candidate)
        for gram, count in (found & most).items():
            right[len(gram) - 1] += count
        for gram, count in found.items():
            given[len(gram) - 1] += count
    # The evaluation's own small numbers against 0 / 0; they show where no k-gram is right.
    precision = (right + 1e-15) / (given + 1e-9)
    ratio = (length + 1e-15) / (wanted + 1e-9)
    brevity = np.exp(min(0.0, 1 - 1 / ratio))
    one, two, three, four = (brevity * np.cumprod(precision) ** (1 / np.arange(1, LONGEST_GRAM + 1))).tolist()
    return one, two, three, four


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over images of ROUGE-L, by the longest common subsequence (LCS) of words.

    F = (1 + β²) · P · R / (R + β² · P), β = 1.2. P is the LCS over the candidate's length, R over the reference's.
    Each is the best over the references, as the COCO evaluation has it: the two may come from different ones.

    Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004.
    """
    check_captions(candidates, references)
    weight = 1.2**2
    scores = []
    for candidate, others in zip(candidates, references):
        ours, precision, recall = candidate.split(), 0.0, 0.0
        for theirs in (other.split() for other in others):
            common = _common(ours, theirs)
            precision = max(precision, common / max(1, len(ours)))
            recall = max(recall, common / max(1, len(theirs)))
        scores.append((1 + weight) * precision * recall / (recall + weight * precision) if precision else 0.0)
    return float(np.mean(scores))


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over images of `cider_d_scores`."""
    return float(cider_d_scores(candidates, references).mean())


def _common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = row
        row = [0]
        for column, other in enumerate(b):
            row.append(before[column] + 1 if word == other else max(before[column + 1], row[column]))
    return row[-1]
