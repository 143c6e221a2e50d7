import pytest

from rebus.core.errors import BadImage, UnsupportedTask, UsageError
from rebus.core.specs import Prompts
from rebus.tasks.caption import caption
from tests.tasks.fakes import picture, writer


def says(colour, prompt):
    return f"a {colour} dog . {'the ' * len(prompt.split())}"


def test_one_picture_or_a_list():
    model = writer(says)
    assert caption(model, picture("red")) == "a red dog. the the"
    assert caption(model, [picture("red"), picture("blue")]) == ["a red dog. the the", "a blue dog. the the"]
    assert caption(model, []) == []


def test_a_prompt_of_ones_own():
    model = writer(says)
    assert caption(model, picture("red"), "caption") == "a red dog. the"
    assert caption(model, [picture("red")] * 2, ["caption", "a photo of"])[1] == "a red dog. the the the"
    with pytest.raises(UsageError, match="2 images and 3 prompts"):
        caption(model, [picture("red")] * 2, ["a"] * 3)


def test_rows_of_a_long_list_equal_single_results():
    model = writer(says)
    pictures = [picture(c) for c in ("red", "green", "blue")] * 7
    assert caption(model, pictures) == [caption(model, one) for one in pictures]


def test_decoding_options_reach_the_loop():
    model = writer(says)
    assert caption(model, picture("red"), max_new_tokens=2) == "a red"
    assert caption(model, picture("red"), stop=".") == "a red dog"
    assert caption(model, picture("red"), strategy="beam", num_beams=2, max_new_tokens=3) == "a red dog"
    with pytest.raises(UsageError, match='did you mean "temperature"'):
        caption(model, picture("red"), temprature=1)


def test_each_answer_may_have_its_own_seed():
    model = writer(says, sure=0.5)
    options = {"strategy": "sample", "max_new_tokens": 6}
    pictures, seeds = [picture("red")] * 10, list(range(10))
    answers = caption(model, pictures, seed=seeds, **options)
    assert answers[9] == caption(model, picture("red"), seed=9, **options)
    assert len(set(answers)) > 1
    assert len(set(caption(model, pictures, seed=1, **options))) == 1
    with pytest.raises(UsageError, match="one for each of the 10 answers; got 3"):
        caption(model, pictures, seed=[1, 2, 3], **options)


def test_fault_14_control_tokens_typed_in_a_prompt_are_text():
    model = writer(lambda colour, prompt: prompt)
    answer = caption(model, picture("red"), "<image> <eos> <loc0001> <bos> dog")
    assert "<image>" not in answer
    assert "<loc0001>" not in answer
    assert answer.endswith("dog")


def test_fault_16_a_prompt_longer_than_the_context_is_refused_with_the_sum():
    with pytest.raises(ValueError, match=r"1 image \(2 tokens\) and 101 tokens of text make 103.*holds 64"):
        caption(writer(says), picture("red"), "dog " * 100)


def test_fault_1_an_empty_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(BadImage, match="empty file"):
        caption(writer(says), tmp_path / "a.jpg")


def test_a_system_without_words_for_it_cannot():
    model = writer(says)
    model.system.prompts = Prompts()
    with pytest.raises(UnsupportedTask, match="no prompt for caption"):
        caption(model, picture("red"))
