"""Few-shot prompts of a whole Flamingo: in one call, cached, by likeness, in many orders; saved and loaded."""

import pytest
import torch
from PIL import Image

import rebus
from rebus.codec.text import Control, ImageMark, Pieces
from rebus.core.errors import BadConfig, BadText, UnsupportedTask, UsageError
from tests.models.frozen_lm.joined import TOKENIZER, joined, parts
from tests.tiny import siglip, with_words


def picture(colour, size=(31, 24)):
    return Image.new("RGB", size, colour)


SHOTS = [(picture("red"), "a red dog"), (picture("green", (24, 50)), "a green cat")]
QUERY = picture("blue")
OPTIONS = {"max_new_tokens": 4}
END = Control("<|endofchunk|>")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return joined(tmp_path_factory.mktemp("parts"))


def written_out(model, pieces, images, **options):
    """The answer to a whole prompt."""
    batch = model.processor(images=[images], texts=[pieces])
    tokens = model.generate(
        **batch, **{"strategy": "beam", "num_beams": 3, "length_penalty": 0.0, **OPTIONS, **options}
    )
    return model.processor.decode(tokens)[0].strip()


def test_the_prompt_of_examples_is_that_of_the_release(model):
    whole = Pieces(
        ImageMark(), "Output:a red dog", END, "\n", ImageMark(), "Output:a green cat", END, "\n", ImageMark(), "Output:"
    )
    images = [image for image, _ in SHOTS]
    assert model.caption(QUERY, examples=SHOTS, **OPTIONS) == written_out(model, whole, [*images, QUERY], stop="Output")
    question = "what colour is it ?"
    asked = Pieces(
        ImageMark(), f"Question:{question} Short answer:red", END, "\n", ImageMark(), "Question:the dog ? Short answer:"
    )
    shots = [(SHOTS[0][0], question, "red")]
    wanted = written_out(model, asked, [SHOTS[0][0], QUERY], stop=["Question", "Answer", "Short"])
    assert model.ask(QUERY, "the dog ?", examples=shots, **OPTIONS) == wanted


def test_examples_without_images_are_text(model):
    """The releases call this zero shots: two examples whose images are left out."""
    whole = Pieces("Output:a red dog", END, "\n", "Output:a green cat", END, "\n", ImageMark(), "Output:")
    wanted = written_out(model, whole, [QUERY], stop="Output")
    assert model.caption(QUERY, examples=[(None, text) for _, text in SHOTS], **OPTIONS) == wanted


def test_a_row_does_not_depend_on_its_batch_and_examples_change_answers(model):
    images = [picture(c) for c in ("blue", "white", "black", "red")]
    together = model.caption(images, examples=SHOTS, **OPTIONS)
    assert together == [model.caption(image, examples=SHOTS, **OPTIONS) for image in images]
    shots = model.shots("caption", SHOTS)
    assert (
        together == model.caption(images, examples=shots, **OPTIONS) == model.caption(images, examples=shots, **OPTIONS)
    )
    assert together != model.caption(images, **OPTIONS)


def test_typed_control_tokens_in_examples_are_text(model):
    plain = model.shots("caption", [(picture("red"), "a <image> dog <|endofchunk|>")])
    batch = plain.inputs([(QUERY, "Output:")])
    assert int((batch["tokens"] == model.config.image_id).sum()) == 1
    assert batch["after"].sight is not None


def test_labels_are_ranked_after_examples_by_the_mean_of_their_tokens(model):
    labels = ["red", "a green dog", "cat"]
    found = model.classify(QUERY, labels, examples=SHOTS)
    images = [image for image, _ in SHOTS]
    whole = Pieces(ImageMark(), "Output:a red dog", END, ImageMark(), "Output:a green cat", END, ImageMark(), "Output:")
    means = []
    for label in labels:
        ids = torch.tensor([TOKENIZER.encode(label)])
        batch = model.processor(images=[[*images, QUERY]], texts=[whole])
        with torch.no_grad():
            logs = model.network(**batch, targets=ids).logits.log_softmax(-1)
        means.append(logs.gather(2, ids[..., None]).mean())
    wanted = torch.stack(means).softmax(0).sort(descending=True)
    assert found.labels == tuple(labels[i] for i in wanted.indices)
    torch.testing.assert_close(torch.tensor(found.probabilities), wanted.values, atol=1e-5, rtol=1e-4)


def test_orders_of_examples_are_averaged_and_no_more_than_there_are(model):
    shots = model.shots("classify", SHOTS)
    assert len(shots.orders(6)) == 2
    assert shots.orders(1) == [shots]
    both = [one.shown for one in shots.orders(6)]
    assert both[1] == both[0][::-1]
    three = model.shots("classify", [*SHOTS, SHOTS[0]])
    assert len({tuple(map(id, one.shown)) for one in three.orders(5)}) == 5
    one, two = (
        model.classify(QUERY, ["red", "cat"], examples=SHOTS),
        model.classify(QUERY, ["red", "cat"], examples=SHOTS[::-1]),
    )
    mixed = model.classify(QUERY, ["red", "cat"], examples=SHOTS, orders=6)
    odds = [r.probabilities[r.labels.index("red")] / r.probabilities[r.labels.index("cat")] for r in (one, two, mixed)]
    assert odds[2] == pytest.approx((odds[0] * odds[1]) ** 0.5, rel=1e-3)


def test_the_nearest_examples_are_shown_and_the_most_similar_last(model):
    encoder = with_words(siglip())
    pool = [(picture(c), f"a {c} dog") for c in ("red", "green", "blue", "white")]
    shots = model.shots("caption", pool, encoder=encoder, number=2)
    query = [picture((0, 0, 250)), picture((250, 0, 0))]
    order = (encoder.embed_images(query) @ encoder.embed_images([image for image, _ in pool]).T).argsort(dim=1)
    for row, image in enumerate(query):
        near = [pool[i] for i in order[row, -2:].tolist()]
        assert model.caption(image, examples=shots, **OPTIONS) == model.caption(image, examples=near, **OPTIONS)
    assert model.caption(query, examples=shots, **OPTIONS) == [
        model.caption(q, examples=shots, **OPTIONS) for q in query
    ]


def test_what_cannot_be_shown_is_refused(model):
    with pytest.raises(UsageError, match=r"example 1: expected \(image, answer\)"):
        model.caption(QUERY, examples=[SHOTS[0], (QUERY,)])
    with pytest.raises(UsageError, match=r"example 0: expected \(image, question, answer\)"):
        model.ask(QUERY, "what ?", examples=SHOTS)
    with pytest.raises(BadText, match="example 0: answer must be"):
        model.caption(QUERY, examples=[(QUERY, " ")])
    with pytest.raises(UsageError, match="expects a list"):
        model.caption(QUERY, examples="a red dog")
    with pytest.raises(UsageError, match="made for caption"):
        model.classify(QUERY, ["red"], examples=model.shots("caption", SHOTS))
    with pytest.raises(UsageError, match="need both"):
        model.shots("caption", SHOTS, number=3)
    with pytest.raises(UsageError, match="orders: expected"):
        model.classify(QUERY, ["red"], examples=SHOTS, orders=0)
    with pytest.raises(BadText, match="the context holds 400"):
        model.caption(QUERY, examples=SHOTS * 40)
    with pytest.raises(UnsupportedTask, match="does not learn classify from examples"):
        with_words(siglip()).classify(QUERY, ["red"], examples=SHOTS)


def test_the_second_question_after_32_shots_costs_little(model):
    shots = model.shots("caption", [(picture((8 * i, 0, 0), (300, 200)), "a red dog") for i in range(32)])
    calls = []
    network = model.network
    see, read = network.see, network.text.lay_out
    try:
        network.see = lambda pixels, *rest: (
            calls.append(("images", pixels.flatten(0, -4).shape[0])) or see(pixels, *rest)
        )
        network.text.lay_out = lambda x, *rest: calls.append(("tokens", x.shape[0] * x.shape[1])) or read(x, *rest)
        spent = []
        for _ in range(2):
            calls.clear()
            model.caption([QUERY] * 4, examples=shots, max_new_tokens=1, strategy="greedy")
            spent.append({kind: sum(n for k, n in calls if k == kind) for kind in ("images", "tokens")})
    finally:
        del network.see, network.text.lay_out
    first, second = spent
    assert first["images"] == 32 + 4
    assert second["images"] == 4
    assert second["tokens"] <= 0.15 * first["tokens"]


def test_a_joined_model_is_saved_and_loaded_and_says_what_it_can(model, tmp_path):
    assert model.tasks == {"caption", "ask", "classify", "complete", "stream"}
    again = rebus.load(model.save(tmp_path / "saved"), device="cpu")
    assert again.config == model.config
    assert again.caption(QUERY, examples=SHOTS, **OPTIONS) == model.caption(QUERY, examples=SHOTS, **OPTIONS)
    document = ["the dog ", QUERY, "Output:"]
    assert again.complete(document, **OPTIONS) == model.complete(document, **OPTIONS)
    assert "".join(model.stream("complete", document, **OPTIONS)) == model.complete(document, **OPTIONS)


def test_the_tokens_are_those_of_the_language_model_and_two_more(model, tmp_path):
    text = model.processor.text
    assert text.spec.image_token_id == TOKENIZER.vocab_size + 1
    assert text.spec.eos_id == TOKENIZER.vocab_size
    made = {name: rebus.load(path, device="cpu") for name, path in parts(tmp_path).items()}
    with pytest.raises(BadConfig, match="first_added"):
        rebus.join("flamingo", **made, first_added=7)
