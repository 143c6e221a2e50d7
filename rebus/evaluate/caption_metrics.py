"""Scores of captions against those people wrote: BLEU, ROUGE-L and CIDEr-D, counted as the COCO evaluation counts them.

Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server", 2015.

Every score takes one candidate an image and one or more references an image, all tokenised: words separated by
spaces, as `words` gives them. Papers print 100 times as much. Each score raises `UsageError` for no images, for
lists of unequal length and for an image without references.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from rebus.core.errors import UsageError

Gram = tuple[str, ...]

LONGEST_GRAM = 4

STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": " -- ", "—": " -- ", "…": " ... "})
# The evaluation drops a bracket spelt -LRB- but lower-cases the words first, so that it drops none: they stay.
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# Exactly one mark: "!!!" is one word to that evaluation, and stays.
MARK = re.compile(r"""['"`.?!,:;]|-+|\.+""")
SHORTENED = (
    "mr mrs ms dr jr sr st ave blvd rd mt ft co corp inc ltd etc vs ph.d gov gen sen rep col capt lt sgt prof rev "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri"
)
# Earlier rows win. A row that looks ahead leaves the rest of the word to the next match.
PIECE = re.compile(
    rf"""
      https?://\S+ | www\.\S+
    | (?: [a-z]\. )+ (?! \w )                                           # p.m., u.s.
    | (?: {"|".join(re.escape(word) for word in SHORTENED.split())} )\. (?! \w )
    | no\. (?= \s*\d )
    | can (?= not\b ) | (?: gon | wan ) (?= na\b ) | got (?= ta\b ) | (?: gim | lem ) (?= me\b )
    | 't (?= (?: is | was )\b ) | y' (?= all\b )
    | '(?: s | m | d | re | ve | ll )\b | n't\b                         # the second halves of it's, don't
    | '(?: n'? | em | cause | \d0s )(?! \w )
    | [a-z]+? (?= n't\b )                                               # the first half of don't
    | (?: [dlo]'[a-z]{{2,}} | ma'am )\b                                 # o'clock
    | \d+ (?: [.,:]\d+ )+ (?: -[^\W_]+ )* | \.\d+
    | [^\W\d_]+ (?: [.?!][^\W\d_]+ )+                                   # two sentences without a space
    | (?: [@#](?= [^\W\d_] ) )? [^\W_]+ (?: [-/][^\W_]+ )*              # t-shirt, red/white
    | [!?]+ | -+ | \.+ | \S
    """,
    re.VERBOSE,
)


def words(text: str) -> str:
    """Lower-case words of a caption, separated by single spaces and without punctuation.

    Stands in for the Stanford PTB tokenizer, which needs Java: splits "it's" into it 's, "don't" into do n't and
    "cannot" into can not, keeps "t-shirt" and "p.m." whole, and drops the marks that the COCO evaluation drops.
    It can differ for e-mail addresses, smileys, tags, currencies other than the dollar, fractions written as one
    character, rare abbreviations and contractions, and other languages than English. Where a published number is to
    be repeated to the last digit, tokenise with the original.
    """
    pieces = PIECE.findall(text.lower().translate(STRAIGHT))
    return " ".join(BRACKETS.get(piece, piece) for piece in pieces if not MARK.fullmatch(piece))


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, float, float, float]:
    """BLEU-1, BLEU-2, BLEU-3 and BLEU-4 of the whole set.

    BLEU-n = min(1, exp(1 - r / c)) · (p₁ · … · pₙ)^(1/n). pₖ is the share of the candidates' k-grams that occur in
    their references, each counted at most as often as in the one reference that has most of it. c sums the
    candidates' lengths and r that of the closest reference each, the shorter of two equally close.

    Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002.
    """
    _check(candidates, references)
    right, given = np.zeros(LONGEST_GRAM), np.zeros(LONGEST_GRAM)
    length, wanted = 0, 0
    for candidate, others in zip(candidates, references):
        size = len(candidate.split())
        length += size
        wanted += min((len(other.split()) for other in others), key=lambda n: (abs(n - size), n))
        most: Counter[Gram] = Counter()
        for other in others:
            most |= _grams(other)
        found = _grams(candidate)
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
    _check(candidates, references)
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


def cider_d_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each image, 0 to 10.

    10 · mean over n = 1..4 and the image's references s of
    exp(-(|c| - |s|)² / 2σ²) · Σ min(g(c), g(s)) · g(s) / (‖g(c)‖ · ‖g(s)‖), σ = 6,
    where g counts each n-gram times log(images / images that have it in a reference). The references given decide
    what is rare, so scores of different sets do not compare, and a set of one image scores 0.

    Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", 2015.
    """
    _check(candidates, references)
    grams = [[_grams(other) for other in others] for others in references]
    images_with = Counter(gram for others in grams for gram in set().union(*others))
    rarity = {gram: float(np.log(len(grams) / number)) for gram, number in images_with.items()}
    unseen = float(np.log(len(grams)))

    def weigh(counts: Counter[Gram]) -> tuple[dict[Gram, float], np.ndarray]:
        weighed = {gram: count * rarity.get(gram, unseen) for gram, count in counts.items()}
        return weighed, np.sqrt(_by_length({gram: weight**2 for gram, weight in weighed.items()}))

    scores = []
    for candidate, texts, others in zip(candidates, references, grams):
        ours, our_norm = weigh(_grams(candidate))
        total = 0.0
        for text, other in zip(texts, others):
            theirs, their_norm = weigh(other)
            shared = {gram: min(ours[gram], theirs[gram]) * theirs[gram] for gram in ours.keys() & theirs.keys()}
            norms = our_norm * their_norm
            cosines = np.divide(_by_length(shared), norms, out=np.zeros(LONGEST_GRAM), where=norms > 0)
            gap = len(candidate.split()) - len(text.split())
            total += float(cosines.mean() * np.exp(-(gap**2) / (2 * 6.0**2)))
        scores.append(10 * total / len(texts))
    return np.array(scores)


def _grams(text: str) -> Counter[Gram]:
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


def _common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = row
        row = [0]
        for column, other in enumerate(b):
            row.append(before[column] + 1 if word == other else max(before[column + 1], row[column]))
    return row[-1]


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
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
