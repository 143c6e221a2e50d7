"""Accuracy of short answers against ten people's, counted as the VQA v2 evaluation counts it.

Antol et al., "VQA: Visual Question Answering", 2015. Goyal et al., "Making the V in VQA Matter", 2017.
"""

import re
from collections.abc import Sequence

import numpy as np

from rebus.core.errors import UsageError

NUM_PEOPLE = 10

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = {"none": "0"} | {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
ARTICLES = {"a", "an", "the"}
# As they should be written, for answers that leave out every apostrophe.
ALL_LEFT_OUT = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's "
    "isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've "
    "shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're "
    "there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd "
    "where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're "
    "you've"
)
# The same for answers that leave out one of two.
ONE_LEFT_OUT = (
    "couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've "
    "something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've"
)


def _contractions() -> dict[str, str]:
    table = {right.replace("'", ""): right for right in ALL_LEFT_OUT.split()}
    for right in ONE_LEFT_OUT.split():
        first, second = (place for place, letter in enumerate(right) if letter == "'")
        table[right[:first] + right[first + 1 :]] = right
        table[right[:second] + right[second + 1 :]] = right
    # The evaluation's own table, odd as some of it is. It also lists "Im" and such, which no lower-cased word equals.
    table |= dict.fromkeys(["ow's'at", "'ows'at", "'ow'sat"], "'ow's'at")
    table |= dict.fromkeys(["yall'll", "y'allll"], "y'all'll")
    table |= dict.fromkeys(["yall'd've", "y'alld've", "y'all'dve"], "y'all'd've")
    table["somebody'd"] = "somebodyd"
    return table


CONTRACTIONS = _contractions()


def vqa_accuracy(answers: Sequence[str], ground_truths: Sequence[Sequence[str]]) -> float:
    """Mean over questions of `vqa_accuracies`, 0 to 1; the evaluation prints 100 times as much, with two digits."""
    return float(vqa_accuracies(answers, ground_truths).mean())


def vqa_accuracies(answers: Sequence[str], ground_truths: Sequence[Sequence[str]]) -> np.ndarray:
    """Accuracy of each answer, 0 to 1: the mean, over the ten ways to leave one person out, of min(matches / 3, 1).

    `ground_truths` has ten people's answers to each question. Where these are not all the same, both sides are
    compared as `normal_answer` writes them; where they are, letter by letter, as the evaluation does.

    Raises `UsageError` for no answers, lists of unequal length, and more or fewer than ten people.
    """
    _check(answers, ground_truths)
    scores = []
    for answer, people in zip(answers, ground_truths):
        answer, *truth = (text.replace("\n", " ").replace("\t", " ").strip() for text in (answer, *people))
        if len(set(truth)) > 1:
            answer, *truth = map(normal_answer, (answer, *truth))
        matches = truth.count(answer)
        # Leaving out one who agrees costs a match; leaving out another does not.
        agreed = matches * min((matches - 1) / 3, 1) + (NUM_PEOPLE - matches) * min(matches / 3, 1)
        scores.append(agreed / NUM_PEOPLE)
    return np.array(scores)


def normal_answer(answer: str) -> str:
    """The answer as the VQA evaluation compares it.

    Lower case, no articles, number words up to ten as digits, apostrophes put back into contractions. A full stop
    goes unless a digit follows. Another mark goes if the answer has it beside a space, or has a comma between digits
    anywhere; else it becomes a space.
    """
    thousands = re.search(r"\d,\d", answer)
    text = answer
    for mark in PUNCTUATION:
        apart = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if apart or thousands else " ")
    # The evaluation passes a flag where the most replacements are asked for, and the flag's value is 32.
    text = re.sub(r"\.(?!\d)", "", text, count=32)
    numbered = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in numbered if word not in ARTICLES)


def _check(answers: Sequence[str], ground_truths: Sequence[Sequence[str]]) -> None:
    if isinstance(answers, str) or isinstance(ground_truths, str):
        raise UsageError("expected a list of answers and a list of ten human answers each; got a single string")
    if len(answers) != len(ground_truths):
        raise UsageError(
            f"expected human answers for each answer; got {len(answers)} answers and human answers to "
            f"{len(ground_truths)} questions"
        )
    if not answers:
        raise UsageError("expected at least one answer to score; got none")
    for place, people in enumerate(ground_truths):
        if isinstance(people, str):
            raise UsageError(f"expected a list of {NUM_PEOPLE} human answers to question {place}; got {people!r}")
        if len(people) != NUM_PEOPLE:
            raise UsageError(f"expected {NUM_PEOPLE} human answers to question {place}; got {len(people)}")
