import pytest

from rebus.core.errors import UsageError
from rebus.data.record import Question, Record
from rebus.evaluate.measure import measure
from tests.evaluate.benchmarks.samples import ByteLRU, Told, png, write_lines


def answering(answers):
    return Told(ask=lambda images, questions: [answers[question] for question in questions])


def ten(text, yes, no, kind):
    return Question(text=text, answers=("yes",) * yes + ("no",) * no, kind=kind, id=text)


def test_ten_answers_as_vqa_counts_them(tmp_path):
    questions = (ten("q1", 10, 0, "yes/no"), ten("q2", 2, 8, "yes/no"), ten("q3", 0, 10, "other"))
    reader = ByteLRU([Record(key="a", image=png(tmp_path, 0), questions=questions)])
    result = measure(answering({"q1": "yes", "q2": "Yes.", "q3": "maybe"}), "vqa", reader)
    # two of ten: leaving one of the two out 1/3, leaving out another 2/3
    second = (2 * (1 / 3) + 8 * (2 / 3)) / 10
    assert result.document["scores"]["accuracy"] == pytest.approx((1 + second + 0) / 3)
    assert result.document["scores"]["by_type"] == pytest.approx({"yes/no": (1 + second) / 2, "other": 0})
    assert [mistake.key for mistake in result.outcome.worst] == ["q3", "q2"]
    assert "as VQA v2 counts" in result.document["notes"][0]


def test_one_answer_after_normalisation(tmp_path):
    rows = [
        {"file": png(tmp_path, n).name, "question": f"q{n}", "answer": answer, "type": kind}
        for n, (answer, kind) in enumerate([("two", "number"), ("blue", "color"), ("the cat", "object")])
    ]
    write_lines(tmp_path / "qa.jsonl", rows)
    model = answering({"q0": "2", "q1": "Blue.", "q2": "a dog"})
    scores = measure(model, "vqa", tmp_path).document["scores"]
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["by_type"] == {"color": 1.0, "number": 1.0, "object": 0.0}


def test_whole_prompts_are_asked_as_they_are(tmp_path):
    """PaliGemma's JSONL has prefixes, which the model's own prompt would wrap once more."""
    given = []

    def ask(images, questions, prompt="answer en {question}"):
        given.extend(prompt.replace("{question}", question) for question in questions)
        return ["red" if "colour" in question else "a cat" for question in questions]

    questions = (
        Question(text="answer en what colour?", answers=("red",), is_prompt=True),
        Question(text="which colour?", answers=("red",)),
        Question(text="", answers=("a cat",), is_prompt=True),
    )
    reader = ByteLRU([Record(key="a", image=png(tmp_path, 0), questions=questions)])
    assert measure(Told(ask=ask), "vqa", reader).document["scores"]["accuracy"] == 1.0
    assert sorted(given) == ["", "answer en what colour?", "answer en which colour?"]


def test_a_test_split_cannot_be_scored(tmp_path):
    reader = ByteLRU([Record(key="a", image=png(tmp_path, 0), questions=(Question(text="q", answers=()),))])
    with pytest.raises(UsageError, match="no answers"):
        measure(answering({}), "vqa", reader)
