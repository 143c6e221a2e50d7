"""VQA accuracy on cases worked out by hand."""

import numpy as np
import pytest

from rebus.core.errors import UsageError
from rebus.evaluate.vqa import normal_answer, vqa_accuracies, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Cat", "cat"),
        ("two", "2"),
        ("None", "0"),
        ("a dog and an owl", "dog and owl"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("don't", "don't"),
        ("red/white", "red white"),
        ("red / white", "red white"),
        ("red, white", "red white"),
        ("1,000", "1000"),
        ("1,000 t-shirts", "1000 tshirts"),
        ("t-shirt", "t shirt"),
        ("3.5", "3.5"),
        ("st. louis.", "st louis"),
        ("yes!", "yes"),
        ("", ""),
        ("the", ""),
    ],
)
def test_normal_answer(answer: str, expected: str) -> None:
    assert normal_answer(answer) == expected


@pytest.mark.parametrize(("matches", "expected"), list(enumerate([0, 0.3, 0.6, 0.9] + [1] * 7)))
def test_accuracy_grows_with_the_people_who_agree(matches: int, expected: float) -> None:
    people = ["cat"] * matches + [f"dog {number}" for number in range(10 - matches)]
    assert vqa_accuracy(["cat"], [people]) == pytest.approx(expected)
    # The definition itself: each person left out in turn.
    left_out = [min(1, (people[:place] + people[place + 1 :]).count("cat") / 3) for place in range(10)]
    assert vqa_accuracy(["cat"], [people]) == pytest.approx(np.mean(left_out))
    assert vqa_accuracy(["cat"], [people[::-1]]) == pytest.approx(expected)


def test_people_of_one_mind_are_matched_letter_by_letter() -> None:
    assert vqa_accuracies(["Yes", "yes\n", "yes"], [["yes"] * 10] * 3).tolist() == [0, 1, 1]
    assert vqa_accuracies(["Yes"], [["yes"] * 9 + ["no"]]).tolist() == [1]


def test_the_whole_is_the_mean_of_the_questions() -> None:
    people = [["2"] * 5 + ["two"] * 5, ["red"] + ["blue"] * 9]
    assert vqa_accuracies(["two", "red"], people) == pytest.approx(np.array([1, 0.3]))
    assert vqa_accuracy(["two", "red"], people) == pytest.approx(0.65)


@pytest.mark.parametrize("score", [vqa_accuracy, vqa_accuracies])
def test_errors_say_what_was_wanted_and_what_came(score) -> None:
    with pytest.raises(UsageError, match="got 2 answers and human answers to 1 questions"):
        score(["a", "b"], [["a"] * 10])
    with pytest.raises(UsageError, match="at least one answer to score; got none"):
        score([], [])
    with pytest.raises(UsageError, match="expected 10 human answers to question 1; got 9"):
        score(["a", "b"], [["a"] * 10, ["a"] * 9])
    with pytest.raises(UsageError, match="ten human answers each; got a single string"):
        score("yes", [["a"] * 10])
    with pytest.raises(UsageError, match="expected a list of 10 human answers to question 0; got 'yes'"):
        score(["yes"], ["yes"])
