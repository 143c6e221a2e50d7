"""Interleaved documents, on a toy that reads them back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rebus.core.errors import BadImage, MissingFile, UnsupportedTask, UsageError
from rebus.core.specs import Prompts
from rebus.tasks.complete import complete
from rebus.tasks.stream import stream
from tests.tasks.fakes import picture, two_towers
from tests.tasks.toys import IMAGE_DECODER, IMAGE_TOKENS, PROMPTS, TEXT, ImageWriter, InterleavedWriter, toy

RED, GREEN, BLUE = picture("red"), picture("green"), picture("blue")
SHOTS = ["a red dog", RED, "red", "a green dog", GREEN, "green", "a blue dog", BLUE]


def last_colour(prompt):
    """What a few-shot learner would do: the colour of the last image."""
    return prompt.split("[")[-1].split("]")[0]


def test_images_stand_where_they_stand_in_the_document():
    model = toy(InterleavedWriter(last_colour))
    assert complete(model, ["what colour is", RED, "the cat", BLUE, "?"]) == "blue"
    assert model.network.prompts == ["what colour is [red] the cat [blue] ?"]
    assert complete(model, SHOTS) == "blue"
    assert model.network.prompts[-1] == "a red dog [red] red a green dog [green] green a blue dog [blue]"


def test_a_document_may_be_a_text_or_images_alone():
    model = toy(InterleavedWriter(lambda prompt: "a cat"))
    assert complete(model, "the dog") == "a cat"
    assert complete(model, [RED, BLUE]) == "a cat"
    assert model.network.prompts == ["the dog", "[red] [blue]"]


def test_many_documents_answer_in_kind_and_equal_single_ones():
    model = toy(InterleavedWriter(lambda prompt: prompt.replace("[", "").replace("]", "")))
    documents = [["a", RED, "cat", BLUE], ["the dog"], [GREEN], ["very", BLUE, "very", BLUE, "dog"]] * 3
    together = complete(model, documents)
    assert together == [complete(model, one) for one in documents]
    assert together[:4] == ["a red cat blue", "the dog", "green", "very blue very blue dog"]
    assert max(model.network.batches) > 1
    assert complete(model, [["the dog"]]) == ["the dog"]


def test_the_prompt_of_the_system_stands_around_the_document():
    model = toy(InterleavedWriter(last_colour), prompts=Prompts(complete="photo of {document} answer"))
    assert complete(model, [RED, "dog"]) == "red"
    assert model.network.prompts == ["photo of [red] dog answer"]


def test_text_in_a_document_is_text_even_where_it_looks_like_a_path_or_a_token(tmp_path):
    RED.save(tmp_path / "cat.png")
    model = toy(InterleavedWriter(lambda prompt: "cat"))
    complete(model, [str(tmp_path / "cat.png"), "<image> <begin>"])
    assert "[red]" not in model.network.prompts[0]
    complete(model, ["a", tmp_path / "cat.png"])
    assert model.network.prompts[1] == "a [red]"


def test_every_kind_of_image_is_taken():
    model = toy(InterleavedWriter(last_colour))
    assert complete(model, ["a", np.asarray(GREEN)]) == "green"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "document 0 is empty"),
        (" ", "document 0 is empty"),
        ([["a"], []], "document 1 is empty"),
        ([["a"], "b"], "entry 1 is no list"),
        (["a", ["b"]], "entry 1 is a list"),
        pytest.param(RED, "a list of texts and images", id="an image"),
    ],
    ids=str,
)
def test_what_is_no_document_is_said(document, said):
    with pytest.raises(UsageError, match=said):
        complete(toy(InterleavedWriter(last_colour)), document)


def test_an_image_that_cannot_be_read_is_named_by_its_document_and_place(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(BadImage, match=r"document 1, images\[1\]"):
        complete(toy(InterleavedWriter(last_colour)), [["a"], ["a", RED, "b", tmp_path / "bad.png"]])


def test_models_without_documents_cannot():
    with pytest.raises(UnsupportedTask, match="no prompt for complete"):
        complete(two_towers(), ["a", RED])


def test_a_stream_joined_is_the_completion():
    model = toy(InterleavedWriter(lambda prompt: "a very very blue cat . the dog"))
    pieces = list(stream(model, "complete", ["a", BLUE]))
    assert len(pieces) > 1
    assert "".join(pieces) == complete(model, ["a", BLUE])
    with pytest.raises(UsageError, match="of one document"):
        stream(model, "complete", [["a"], ["b"]])


# Systems that write images too: the reply of the toy says which tokens come where.

DRAWS = {"image_tokens": lambda cfg: IMAGE_TOKENS}
RED_BLUE = "<code0> <code0> <code2> <code2>"


def draws_between(prompt):
    """A text, an image, a text, an image, a text; what was written already stands in the prompt."""
    if prompt.endswith("<begin>"):
        return RED_BLUE if prompt.count("<begin>") == 1 else "<code1> " * 4
    written = prompt.count("<begin>")
    return ["the dog <begin>", "a cat <begin>", "object"][written]


def colours(image):
    return [[tuple(int(v) for v in image.getpixel((x, y))) for x in (0, 3)] for y in (0, 3)]


def test_text_and_images_alternate():
    model = toy(ImageWriter(draws_between), **DRAWS)
    first, image, second, other, last = complete(model, ["draw", RED])
    assert (first, second, last) == ("the dog", "a cat", "object")
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    assert colours(image) == [[red, red], [blue, blue]]
    assert colours(other) == [[green, green], [green, green]]
    assert model.network.prompts[2] == f"draw [red] the dog <begin> {RED_BLUE} <end>", "the image is read again"


def test_the_best_of_many_is_the_one_that_the_text_before_it_describes():
    def says(prompt):
        if prompt.startswith("["):  # a caption: the colour that most of the image has
            return prompt[1:].split("]")[0]
        if prompt.endswith("<begin>"):
            return "a cat"  # no code is likelier than another
        return "red <begin>" if "<begin>" not in prompt else "<begin>" if prompt.count("<begin>") == 1 else ""

    model = toy(ImageWriter(says), prompts=replace(PROMPTS, caption="caption en"), **DRAWS)
    how = {"strategy": "sample", "temperature": 1.0, "seed": list(range(12))}
    one, best = (complete(model, [["draw"]] * 12, **how, best_of=number) for number in (1, 16))

    def red(answers, place):  # how many images have more of it than of other colours
        return sum(int(np.asarray(answer[place]).mean(axis=(0, 1)).argmax() == 0) for answer in answers)

    assert [[isinstance(part, str) for part in answer] for answer in best] == [[True, False, False]] * 12
    assert red(best, 1) == 12
    assert red(one, 1) < 10
    assert red(best, 2) < 10  # no text stands right before the second
    assert [part.tobytes() for part in complete(model, ["draw"], **{**how, "seed": 3}, best_of=16)[1:]] == [
        part.tobytes() for part in best[3][1:]
    ]
    with pytest.raises(UsageError, match="best_of is a number of images, 1 or more"):
        complete(model, ["draw"], best_of=0)


def test_rows_that_draw_and_rows_that_do_not_equal_single_results():
    def says(prompt):
        return draws_between(prompt) if "draw" in prompt else "a very red cat"

    model = toy(ImageWriter(says), **DRAWS)
    documents = [["draw", RED], ["the cat", BLUE], ["draw the dog", GREEN], ["dog", RED]]

    def plain(answer):
        return [part if isinstance(part, str) else part.tobytes() for part in answer]

    together = [plain(answer) for answer in complete(model, documents, max_new_tokens=20)]  # the context holds 64
    assert together == [plain(complete(model, one, max_new_tokens=20)) for one in documents]
    assert [len(answer) for answer in together] == [5, 1, 5, 1]
    assert max(model.network.batches) == 4


def test_the_text_alone_is_counted_and_no_image_is_begun_without_room():
    model = toy(ImageWriter(lambda prompt: "<code1> " * 4 if prompt.endswith("<begin>") else "cat <begin>"), **DRAWS)
    parts = complete(model, "draw", max_new_tokens=4)  # two of "cat <begin>"
    assert [isinstance(part, Image.Image) for part in parts] == [False, True, False, True]
    parts = complete(model, "draw", max_new_tokens=64)  # 64 tokens of context hold fewer than 32 images
    images = sum(isinstance(part, Image.Image) for part in parts)
    assert images == (TEXT.context - 2) // 7
    assert parts[-1] == "cat"


def test_a_companion_may_decode_the_images():
    declared = {**DRAWS, "companions": {"image_decoder": IMAGE_DECODER}}
    decoder = {"image_decoder": IMAGE_DECODER.load(Path("any"))}
    answer = complete(toy(InterleavedWriter(draws_between), loaded=decoder, **declared), ["draw"])
    assert isinstance(answer[1], Image.Image)
    with pytest.raises(MissingFile, match=r"no vqgan\.ckpt, without which images stay codes"):
        complete(toy(InterleavedWriter(draws_between), **declared), ["draw"])


def test_a_stream_of_a_system_that_draws_is_text_alone():
    model = toy(ImageWriter(lambda prompt: "a cat <begin>"), **DRAWS)
    said = "".join(stream(model, "complete", ["a", RED], max_new_tokens=3))
    assert said.startswith("a cat")
    assert "begin" not in said
    assert "code" not in said
