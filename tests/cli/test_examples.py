"""Examples in the prompt, and documents, from the shell: on a tiny Flamingo."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import rebus
from rebus import catalog
from rebus.cli.example_arguments import read_examples
from tests.models.frozen_lm.joined import joined

BRIEF = ("--max-new-tokens", "3")


@pytest.fixture(scope="module")
def flamingo(tmp_path_factory) -> Path:
    return joined(tmp_path_factory.mktemp("parts")).save(tmp_path_factory.mktemp("flamingo") / "model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two images to ask about; a folder for each of two labels; a table of captions and one of questions."""
    folder = tmp_path_factory.mktemp("photos")
    for name, colour in (("a", "blue"), ("b", "white")):
        Image.new("RGB", (30, 24), colour).save(folder / f"{name}.png")
    for label, colours in (("cat", ("red", "pink")), ("dog", ("green", "lime"))):
        (folder / "labelled" / label).mkdir(parents=True)
        for i, colour in enumerate(colours):
            Image.new("RGB", (24, 30), colour).save(folder / "labelled" / label / f"{i}.png")
    rows = [("labelled/cat/0.png", "a red cat"), ("labelled/dog/0.png", "a green dog"), ("labelled/cat/1.png", "a cat")]
    (folder / "captions.jsonl").write_text("".join(json.dumps({"image": i, "caption": c}) + "\n" for i, c in rows))
    asked = [{"image": i, "question": "what is it ?", "answer": text.split()[-1]} for i, text in rows]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    return folder


def document(run, *words):
    code, out, err = run(*words, "--json")
    assert code == 0, err
    return json.loads(out), err


def given(path, task, shots=None, rices=False):
    return read_examples(SimpleNamespace(examples=str(path), shots=shots, rices=rices), task)


def test_a_caption_after_examples_is_that_of_the_library(run, flamingo, photos):
    words = ("caption", photos / "a.png", "--model", flamingo, *BRIEF)
    found, _ = document(run, *words, "--examples", photos / "captions.jsonl", "--shots", 2)
    model, examples = rebus.load(flamingo, device="cpu"), given(photos / "captions.jsonl", "caption", shots=2)
    assert len(examples) == 2
    wanted = model.caption(photos / "a.png", examples=examples, max_new_tokens=3)
    assert found["results"][0]["caption"] == wanted
    assert wanted != document(run, *words)[0]["results"][0]["caption"]


def test_questions_are_shown_with_their_answers(run, flamingo, photos):
    found, _ = document(
        run, "ask", photos / "a.png", "what is it ?", "--model", flamingo, *BRIEF, "--examples", photos / "asked.jsonl"
    )
    examples = given(photos / "asked.jsonl", "ask")
    assert {tuple(texts) for _, *texts in examples} == {("what is it ?", "cat"), ("what is it ?", "dog")}
    model = rebus.load(flamingo, device="cpu")
    wanted = model.ask(photos / "a.png", "what is it ?", examples=examples, max_new_tokens=3)
    assert found["results"][0]["answer"] == wanted


def test_labels_are_those_of_the_examples_and_each_is_shown(run, flamingo, photos):
    labelled = photos / "labelled"
    assert {label for _, label in given(labelled, "classify", shots=2)} == {"cat", "dog"}
    found, _ = document(run, "classify", photos / "a.png", "--model", flamingo, "--examples", labelled, "--shots", 2)
    model = rebus.load(flamingo, device="cpu")
    wanted = model.classify(photos / "a.png", ["cat", "dog"], examples=given(labelled, "classify", shots=2))
    assert found["results"][0]["ranking"] == wanted.to_json()


def test_the_nearest_examples_are_shown(run, flamingo, photos, monkeypatch):
    """What resembles an image is judged by a model that compares images."""
    from tests.tiny import siglip, with_words

    encoder = with_words(siglip())
    load = rebus.api.load
    monkeypatch.setattr(rebus.api, "load", lambda name, **how: encoder if name == "judge" else load(name, **how))
    monkeypatch.setattr("rebus.cli.example_arguments.choose", lambda task: ("judge", "the only one"))
    words = ("caption", photos / "a.png", photos / "b.png", "--model", flamingo, *BRIEF)
    found, err = document(run, *words, "--examples", photos / "captions.jsonl", "--shots", 1, "--rices")
    assert "similarity by judge" in err
    model = rebus.load(flamingo, device="cpu")
    examples = given(photos / "captions.jsonl", "caption", rices=True)
    assert len(examples) == 3
    shots = model.shots("caption", examples, encoder=encoder, number=1)
    images = [photos / "a.png", photos / "b.png"]
    assert [row["caption"] for row in found["results"]] == model.caption(images, examples=shots, max_new_tokens=3)


def test_a_damaged_example_is_left_out_by_name(run, flamingo, photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"<html>")
    Image.new("RGB", (24, 24), "red").save(tmp_path / "good.png")
    rows = [("bad.png", "a cat"), ("good.png", "a dog")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"image": i, "caption": c}) + "\n" for i, c in rows))
    words = ("caption", photos / "a.png", "--model", flamingo, *BRIEF, "--examples", tmp_path / "rows.jsonl")
    found, err = document(run, *words)
    assert "left out" in err
    assert "HTML" in err
    assert found["failed"] == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (("--shots", "2"), "--examples PATH"),
        (("--rices",), "--examples PATH"),
        (("--examples", "nowhere"), "no such file or folder"),
        (("--examples", "LABELLED"), "none of its records has an image and a caption"),
        (("--examples", "CAPTIONS", "--shots", "0"), "above 0"),
        (("--examples", "CAPTIONS", "--model", "paligemma/scenes"), "does not learn caption from examples"),
    ],
)
def test_what_is_wrong_with_examples_is_said_in_a_line(run, photos, words, said):
    places = {"LABELLED": photos / "labelled", "CAPTIONS": photos / "captions.jsonl"}
    code, out, err = run("caption", photos / "a.png", *(places.get(word, word) for word in words))
    assert code in (1, 2)
    assert out == ""
    assert said in err


def test_a_document_is_completed(run, flamingo, photos):
    words = (photos / "a.png", "Output:a blue cat", photos / "b.png", "Output:")
    found, _ = document(run, "complete", *words, "--model", flamingo, *BRIEF)
    model = rebus.load(flamingo, device="cpu")
    wanted = model.complete([words[0], words[1], words[2], words[3]], max_new_tokens=3)
    assert found["parts"] == [{"text": wanted}]
    code, out, _ = run("complete", *words, "--model", flamingo, *BRIEF)
    assert (code, out) == (0, wanted + "\n")
    assert found["parts"] != document(run, "complete", "Output:", "--model", flamingo, *BRIEF)[0]["parts"]


def test_images_that_are_written_become_files(run, monkeypatch, tmp_path):
    """The next free numbers, and none is written over."""

    class Drawing:
        card = catalog.info("clip/b32")

        def complete(self, document, **options):
            assert document == ["a story"]
            return ["a red square", Image.new("RGB", (4, 4), "red"), "and a blue one", Image.new("RGB", (4, 4), "blue")]

    monkeypatch.setattr("rebus.cli.verbs.complete.open_model", lambda *_: Drawing())
    out = tmp_path / "new"
    found, _ = document(run, "complete", "a story", "--out", out)
    names = [str(out / "image-1.png"), str(out / "image-2.png")]
    assert found["parts"] == [
        {"text": "a red square"},
        {"image": names[0]},
        {"text": "and a blue one"},
        {"image": names[1]},
    ]
    assert Image.open(names[1]).getpixel((0, 0)) == (0, 0, 255)
    code, said, _ = run("complete", "a story", "--out", out)
    assert code == 0
    assert said.splitlines()[1] == str(out / "image-3.png")
    assert Image.open(names[0]).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "words, said",
    [
        ((" ",), "empty"),
        (("ct.png", "Output:"), "no such file"),
        (("BAD", "Output:"), "HTML"),
        (("a text", "--out", "BAD"), "no such folder"),
    ],
)
def test_what_is_wrong_with_a_document_is_said_before_a_model_is_loaded(run, tmp_path, monkeypatch, words, said):
    monkeypatch.setattr("rebus.cli.verbs.complete.open_model", lambda *_: pytest.fail("a model was loaded"))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"<html>")
    code, out, err = run("complete", *(bad if word == "BAD" else word for word in words))
    assert code in (1, 2)
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_words_that_name_no_file_are_text(run, flamingo, tmp_path, monkeypatch):
    """A sentence about a file, a very long one, and control tokens as a user types them."""
    monkeypatch.chdir(tmp_path)
    for words in (("what is in a.jpg ?",), ("a cat " * 50,), ("<image> Output:",), ("مرحبا",)):
        found, _ = document(run, "complete", *words, "--model", flamingo, *BRIEF)
        assert "text" in found["parts"][0]
