"""Caption scores on cases worked out by hand."""

from math import exp, log, sqrt

import numpy as np
import pytest

from rebus.core.errors import UsageError
from rebus.evaluate.caption_metrics import bleu, cider_d, cider_d_scores, rouge_l, words

CAPTIONS = ["a cat sits on a red mat", "two dogs run after one ball", "some people wait for the late bus"]
SAME = [[caption] for caption in CAPTIONS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man, riding a horse.", "a man riding a horse"),
        ("  Two   dogs\nplay -- outside ...", "two dogs play outside"),
        ("A \"STOP\" sign; it says: 'go'!", "a stop sign it says go"),
        ("The dog's ball isn't here", "the dog 's ball is n't here"),
        ("It’s a t-shirt, they’re red/white", "it 's a t-shirt they 're red/white"),
        ("I cannot see, he can't.", "i can not see he ca n't"),
        ("A clock at 5:30 p.m. on St. Mark's", "a clock at 5:30 p.m. on st. mark 's"),
        ("a dog (on a bed)", "a dog -lrb- on a bed -rrb-"),
        ("Stop!!! Why?", "stop !!! why"),
        ("", ""),
        (" .,!", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words(text) == expected


def test_bleu_by_hand() -> None:
    # Six words of which "the" counts twice only; pairs: (the, cat) alone of five.
    one, two, three, four = bleu(["the the the cat the the"], [["the cat is on the mat"]])
    assert one == pytest.approx(3 / 6)
    assert two == pytest.approx(sqrt(3 / 6 * 1 / 5))
    assert three == pytest.approx(0, abs=1e-4)
    assert four == pytest.approx(0, abs=1e-3)


def test_bleu_takes_the_closest_length_and_of_two_the_shorter() -> None:
    assert bleu(["a b c d"], [["a b c d e f", "a b c d e"]])[0] == pytest.approx(exp(1 - 5 / 4))
    assert bleu(["a b c d"], [["a b c d e", "a b c"]])[0] == pytest.approx(1)


def test_bleu_pools_counts_over_pictures() -> None:
    one = bleu(["a b c", "x"], [["a b c"], ["y"]])[0]
    assert one == pytest.approx(3 / 4)


def test_rouge_by_hand() -> None:
    # Common subsequence: "police the gunman", three of four words.
    assert rouge_l(["police kill the gunman"], [["police killed the gunman"]]) == pytest.approx(3 / 4)
    precision, recall = 2 / 2, 2 / 4
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l(["a b"], [["a x b y"]]) == pytest.approx(expected)
    assert rouge_l(["a b", "q"], [["a x b y"], ["z"]]) == pytest.approx(expected / 2)


def test_rouge_takes_precision_and_recall_from_different_references() -> None:
    assert rouge_l(["a b c d"], [["a b c d e f g h", "a"]]) == pytest.approx(1)


def test_cider_by_hand() -> None:
    # Two images; each word is rare (log 2) but "a", which both have. Words: cosine of (a, b) with itself, clipped.
    scores = cider_d_scores(["a b", "a c c"], [["a b"], ["a c"]])
    # First: 1-grams and 2-grams agree, there are no 3-grams.
    assert scores[0] == pytest.approx(10 * (1 + 1) / 4)
    # Second: 1-grams min(2, 1) · 1 / (2 · 1); 2-grams (a, c) of (a, c), (c, c). One word longer.
    ones, twos = 1 / 2, log(2) ** 2 / (sqrt(2) * log(2) * log(2))
    assert scores[1] == pytest.approx(10 * exp(-1 / 72) * (ones + twos) / 4)
    assert cider_d(["a b", "a c c"], [["a b"], ["a c"]]) == pytest.approx(scores.mean())


def test_cider_of_one_picture_is_zero() -> None:
    assert cider_d(CAPTIONS[:1], SAME[:1]) == 0


def test_a_perfect_caption_scores_most_and_an_alien_one_nothing() -> None:
    alien = ["x y z x y z"] * 3
    assert bleu(CAPTIONS, SAME) == pytest.approx((1, 1, 1, 1))
    assert rouge_l(CAPTIONS, SAME) == pytest.approx(1)
    assert cider_d_scores(CAPTIONS, SAME) == pytest.approx(np.full(3, 10.0))
    assert bleu(alien, SAME)[0] == pytest.approx(0, abs=1e-9)
    assert rouge_l(alien, SAME) == cider_d(alien, SAME) == 0


def test_the_order_of_references_and_of_pictures_changes_nothing() -> None:
    candidates = ["a cat on a mat", "dogs run", "people wait for a bus"]
    references = [[caption, "a cat and two dogs wait", "a red bus"] for caption in CAPTIONS]
    turned = [others[::-1] for others in references]
    for score in (bleu, rouge_l, cider_d):
        expected = score(candidates, references)
        assert score(candidates, turned) == pytest.approx(expected)
        assert score(candidates[::-1], references[::-1]) == pytest.approx(expected)


def test_an_empty_caption_scores_nothing() -> None:
    candidates = ["", "", ""]
    assert bleu(candidates, SAME) == (0, 0, 0, 0)
    assert rouge_l(candidates, SAME) == cider_d(candidates, SAME) == 0


@pytest.mark.parametrize("score", [bleu, rouge_l, cider_d, cider_d_scores])
def test_errors_say_what_was_wanted_and_what_came(score) -> None:
    with pytest.raises(UsageError, match="2 candidates and references for 1 images"):
        score(["a", "b"], [["a"]])
    with pytest.raises(UsageError, match="at least one candidate to score; got none"):
        score([], [])
    with pytest.raises(UsageError, match="at least one reference for image 1; got none"):
        score(["a", "b"], [["a"], []])
    with pytest.raises(UsageError, match="list of references for image 0; got the string 'a cat'"):
        score(["a"], ["a cat"])
    with pytest.raises(UsageError, match="got a single string"):
        score("a cat", [["a"]])
