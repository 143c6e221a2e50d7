"""VQAv2: the questions about an image with ten answers each; test splits without."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from rebus.core.errors import RebusError, UsageError
from rebus.data.layouts import open_layout
from rebus.data.layouts.vqa import VQA
from rebus.data.record import BadRecord
from tests.data.layouts_annotated.samples import picture, write

TEN = ["yes", "no", "yes", "yes", "yes", "ja — doch", "yes", "yes", "no", "yes"]
QUESTIONS: dict[str, Any] = {
    "data_subtype": "val2014",
    "questions": [
        {"image_id": 42, "question": "Is it a dog?", "question_id": 42000},
        {"image_id": 7, "question": "How many?", "question_id": 7000},
        {"image_id": 42, "question": "Wie groß?", "question_id": 42001},
    ],
}


def answer(question: int, image: int, kind: str, texts: list[str]) -> dict[str, Any]:
    given = [{"answer": text, "answer_confidence": "yes", "answer_id": n + 1} for n, text in enumerate(texts)]
    common = max(texts, key=texts.count)
    return {
        "question_id": question,
        "image_id": image,
        "answer_type": kind,
        "answers": given,
        "multiple_choice_answer": common,
    }


ANSWERS = {
    "annotations": [
        answer(42001, 42, "other", ["big"] * 10),
        answer(42000, 42, "yes/no", TEN),
        answer(7000, 7, "number", ["2"] * 10),
    ]
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", QUESTIONS)
    write(tmp_path / "v2_mscoco_val2014_annotations.json", ANSWERS)
    for number in (7, 42):
        picture(tmp_path / "val2014" / f"COCO_val2014_{number:012}.jpg")
    return tmp_path


def test_the_questions_about_a_picture_are_one_record(folder: Path) -> None:
    reader = pickle.loads(pickle.dumps(open_layout(folder)))
    assert reader.sizes == (2,)
    record = reader.read(0, 1)
    assert record.image == folder / "val2014" / "COCO_val2014_000000000042.jpg"
    first, second = record.questions
    assert (first.text, first.answers, first.id, first.kind) == ("Is it a dog?", tuple(TEN), "42000", "yes/no")
    assert (second.text, second.answers[0], second.kind) == ("Wie groß?", "big", "other")
    assert record.facts == {"image_id": 42, "most_common": {"42000": "yes", "42001": "big"}}
    assert [question.text for question in reader.read(0, 0).questions] == ["How many?"]


def test_test_splits_have_no_answers_and_share_pictures(folder: Path) -> None:
    write(folder / "v2_OpenEnded_mscoco_test-dev2015_questions.json", QUESTIONS)
    picture(folder / "test2015" / "COCO_test2015_000000000007.jpg")
    record = VQA(folder, "test-dev").read(0, 0)
    assert record.questions[0].answers == ()
    assert record.facts["most_common"] == {}
    with pytest.raises(UsageError, match='no questions of split "train"; there are test-dev2015, val2014'):
        VQA(folder, "train")


def test_the_names_of_v1_and_of_ok_vqa(folder: Path) -> None:
    for file in list(folder.glob("v2_*.json")):
        target = folder / ("Questions" if "questions" in file.name else "Annotations") / file.name.removeprefix("v2_")
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    assert open_layout(folder).read(0, 0).questions[0].answers == ("2",) * 10
    assert open_layout(folder / "Questions" / "OpenEnded_mscoco_val2014_questions.json").sizes == (2,)


def test_damaged_questions_and_answers(folder: Path) -> None:
    questions, answers = copy.deepcopy(QUESTIONS), copy.deepcopy(ANSWERS)
    questions["questions"] += [{"question_id": 5, "question": "Where?"}, {"image_id": 7, "question": "Who?"}]
    answers["annotations"][0]["answers"][3] = {"answer": 5}
    del answers["annotations"][2]
    write(folder / "v2_OpenEnded_mscoco_val2014_questions.json", questions)
    write(folder / "v2_mscoco_val2014_annotations.json", answers)
    reader = VQA(folder)
    assert reader.sizes == (4,)
    for row, message in [
        (0, "questions.json:7: a question has no answers in v2_mscoco_val2014_annotations.json"),
        (1, 'questions.json:42: question 42001: "answer" should be a text; got 5'),
        (2, "question 5 has no image_id"),
        (3, "a question about image 7 has no question_id"),
    ]:
        with pytest.raises(BadRecord, match=message):
            reader.read(0, row)


def test_answers_about_another_picture_and_missing_files(folder: Path) -> None:
    answers = copy.deepcopy(ANSWERS)
    answers["annotations"][2]["image_id"] = 8
    write(folder / "v2_mscoco_val2014_annotations.json", answers)
    with pytest.raises(BadRecord, match="question 7000: its answers are about image 8"):
        VQA(folder).read(0, 0)
    (folder / "val2014" / "COCO_val2014_000000000042.jpg").unlink()
    with pytest.raises(BadRecord, match=r"val2014/COCO_val2014_000000000042.jpg is missing"):
        VQA(folder).read(0, 1)
    (folder / "v2_mscoco_val2014_annotations.json").write_text('{"annotations": [\n\n{]}')
    with pytest.raises(RebusError, match=r"v2_mscoco_val2014_annotations.json:3:2: damaged JSON"):
        VQA(folder)
    (folder / "v2_mscoco_val2014_annotations.json").unlink()
    with pytest.raises(UsageError, match=r"its answers, v2_mscoco_val2014_annotations.json, are not beside it"):
        VQA(folder)
