import pytest
import torch

from rebus.core.errors import BadCheckpoint, BadText, MissingFile, NotFinite, UsageError
from rebus.core.specs import Prompts, TextSpec
from rebus.tasks.ask import ask
from rebus.tasks.batching import BatchOptions
from tests.tasks.fakes import EOS, picture, writer
from tests.tasks.toys import ANSWERS, AnswerPicker, toy


def says(colour, prompt):
    return colour if "colour" in prompt else "a " + prompt.split()[-1]


def test_one_question_about_one_picture():
    model = writer(says)
    assert ask(model, picture("red"), "what colour is this ?") == "red"
    assert model.network.prompts == ["answer en what colour is this?"]


def test_many_of_either_or_both():
    model, red, blue = writer(says), picture("red"), picture("blue")
    assert ask(model, [red, blue], "colour") == ["red", "blue"]
    assert ask(model, red, ["colour", "cat"]) == ["red", "a cat"]
    assert ask(model, [red, blue], ["cat", "colour"]) == ["a cat", "blue"]
    with pytest.raises(UsageError, match="2 images and 3 questions: give as many, or one for all"):
        ask(model, [red, blue], ["a", "b", "c"])


def test_rows_of_a_mixed_batch_equal_single_results():
    model = writer(says)
    pictures = [picture(c) for c in ("red", "green", "blue")] * 5
    questions = ["colour", "what is the very very cat", "dog"] * 5
    expected = [ask(model, p, q) for p, q in zip(pictures, questions, strict=True)]
    assert ask(model, pictures, questions) == expected


@pytest.mark.parametrize("question", ["", "  "])
def test_fault_17_an_empty_question_is_a_clear_error(question):
    with pytest.raises(BadText, match="a question must be a text"):
        ask(writer(says), picture("red"), question)


def test_a_question_is_not_a_template():
    model = writer(says)
    ask(model, picture("red"), "{question} cat")
    assert model.network.prompts[0].count("cat") == 1


def test_another_prompt_than_the_systems_own():
    model = writer(says)
    assert ask(model, [picture("red"), picture("blue")], "colour", "what {question} is this") == ["red", "blue"]
    assert ask(model, picture("red"), "dog", "{question}") == "a dog"
    assert model.network.prompts == ["what colour is this"] * 2 + ["dog"]
    with pytest.raises(UsageError, match=r"prompt: expected \{question\}"):
        ask(model, picture("red"), "dog", "answer")


# A network that picks from a list of answers.

LISTED = ["red", "green", "blue", "<unk>"]


def picker(loaded=LISTED):
    return toy(
        AnswerPicker(),
        TextSpec(context=24, pad_id=0, eos_id=EOS, bos_id=2),
        Prompts(ask="answer en {question}"),
        loaded=None if loaded is None else {"answers": loaded},
        companions={"answers": ANSWERS},
    )


def test_an_answer_is_picked_from_the_list():
    model = picker()
    assert ask(model, picture("green"), "what colour is this ?") == "green"
    assert model.network.prompts == ["answer en what colour is this?"]
    images = [picture(colour) for colour in ("blue", "red", "green")] * 5
    assert ask(model, images, "what colour") == ["blue", "red", "green"] * 5
    assert ask(model, picture("red"), ["what colour", "dog"]) == ["red", "red"]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_pick_no_answer(bad, caplog):
    """NaN would be the largest of all, so that its answer would be given."""
    model = picker()
    found = model.network.answer_logits

    def answer_logits(**batch):
        scores = found(**batch)
        scores[batch["pixels"][:, 1].mean(dim=(1, 2)) > 0.5, 2] = bad  # of what is green
        return scores

    model.network.answer_logits = answer_logits
    images = [picture(colour) for colour in ("red", "green", "blue")]
    with pytest.raises(NotFinite, match=r"image 1: .*float32"):
        ask(model, images, "what colour")
    options = BatchOptions(on_error="skip")
    assert ask(model, images, "what colour", batching=options) == ["red", None, "blue"]


def test_what_hinders_picking_is_said():
    with pytest.raises(MissingFile, match=r"no answers\.txt, without which there is nothing to pick from"):
        ask(picker(None), picture("red"), "what")
    with pytest.raises(BadCheckpoint, match=r"answers\.txt lists 2 answers, the network scores 4"):
        ask(picker(["yes", "no"]), picture("red"), "what")
    with pytest.raises(UsageError, match="max_new_tokens has no meaning"):
        ask(picker(), picture("red"), "what", max_new_tokens=3)
    with pytest.raises(BadText, match="a question must be a text"):
        ask(picker(), picture("red"), "")
