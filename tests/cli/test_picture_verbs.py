"""classify, match, caption, ask: on tiny bundled models."""

import json
import signal

import pytest
from PIL import Image

LABELS = "red circle,blue star,green heart"


def document(run, *words):
    code, out, err = run(*words, "--json")
    assert code == 0, err
    return json.loads(out), err


def test_classify_says_which_model_it_chose(bundled, pictures, run):
    code, out, err = run("classify", pictures, "--labels", LABELS, "--top", 2)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert all(line.count("%") == 2 for line in out.splitlines())
    assert "using siglip/scenes" in err


def test_classify_json(bundled, pictures, run):
    found, err = document(run, "classify", pictures, "--labels", LABELS, "--batch-size", 2)
    assert found["model"] == "siglip/scenes"
    assert found["failed"] == 0
    assert [row["image"] for row in found["results"]] == [str(pictures / f"{n}.png") for n in "abc"]
    ranking = found["results"][0]["ranking"]
    assert found["results"][0]["label"] == ranking[0]["label"]
    assert sum(entry["probability"] for entry in ranking) == pytest.approx(1, abs=1e-4)
    assert "using" in err


def test_labels_from_a_file_equal_typed_ones(bundled, pictures, tmp_path, run):
    (tmp_path / "labels.txt").write_text("\n".join(LABELS.split(",")) + "\n\n")
    typed = document(run, "classify", pictures, "--labels", LABELS)[0]
    assert document(run, "classify", pictures, "--labels-file", tmp_path / "labels.txt")[0] == typed
    code, _, err = run("classify", pictures, "--labels-file", tmp_path / "none.txt")
    assert code == 1
    assert "no such file" in err


def test_templates(bundled, pictures, run):
    plain = document(run, "classify", pictures, "--labels", LABELS)[0]
    dressed = document(run, "classify", pictures, "--labels", LABELS, "--templates", "an image of a {}")[0]
    assert plain != dressed


def test_repeated_labels_are_reported_on_stderr(bundled, pictures, run):
    found, err = document(run, "classify", pictures, "--labels", "red circle,red circle,blue star")
    assert len(found["results"][0]["ranking"]) == 2
    assert "more than once" in err


def test_match_scores_and_finds(bundled, pictures, run):
    words = ("match", pictures, "--text", "a red circle", "--text", "a blue star")
    found = document(run, *words)[0]
    assert found["texts"] == ["a red circle", "a blue star"]
    assert [len(row["scores"]) for row in found["results"]] == [2, 2, 2]
    code, out, _ = run(*words, "--top", 1)
    best = max(found["results"], key=lambda row: row["scores"][0])
    assert code == 0
    assert out.splitlines()[0] == "a red circle"
    assert out.splitlines()[1].endswith(best["image"])


def test_caption_and_ask(bundled, pictures, run):
    code, out, err = run("caption", pictures / "a.png", "--max-new-tokens", 4)
    assert code == 0
    assert "using paligemma/scenes" in err
    found = document(run, "caption", pictures / "a.png", "--max-new-tokens", 4)[0]
    assert out == found["results"][0]["caption"] + "\n"
    found = document(run, "ask", pictures, "how many objects are there?", "--max-new-tokens", 3)[0]
    assert found["question"] == "how many objects are there?"
    assert [type(row["answer"]) for row in found["results"]] == [str, str, str]
    code, out, _ = run("ask", pictures, "how many objects are there?", "--max-new-tokens", 3)
    assert [line.partition(":")[0] for line in out.splitlines()] == [row["image"] for row in found["results"]]


def test_decoding_options_are_passed_on(bundled, pictures, run):
    words = ("caption", pictures / "a.png", "--max-new-tokens", 4, "--strategy", "sample", "--temperature", 5)
    same = [document(run, *words, "--seed", seed)[0] for seed in (1, 1, 2)]
    assert same[0] == same[1]
    assert same[0] != same[2]
    code, _, err = run("caption", pictures / "a.png", "--num-beams", 2)
    assert code == 2
    assert "beam" in err


@pytest.mark.parametrize(
    "words, said",
    [
        (("--model", "clip/b23"), 'did you mean "clip/b32"'),
        (("--model", "siglip/scenes"), "models that can: paligemma/scenes"),
        (("--model", "clip/b32"), "models that can: paligemma/scenes"),
        (("--device", "cuda:99"), "Try --device cpu"),
        (("--device", "abacus"), "Try --device cpu"),
    ],
    ids=str,
)
def test_a_model_that_cannot_is_wrong_usage(bundled, pictures, run, words, said):
    code, out, err = run("caption", pictures / "a.png", *words)
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]


def test_a_directory_without_weights_fails(bundled, pictures, tmp_path, run):
    code, _, err = run("caption", pictures / "a.png", "--model", tmp_path)
    assert code == 1
    assert str(tmp_path) in err


def test_ctrl_c_in_the_middle_keeps_what_is_done(bundled, pictures, run, monkeypatch):
    from rebus.tasks import classify as task

    real, calls = task.classify, []

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(*args, **options)

    monkeypatch.setattr(task, "classify", interrupted)
    words = ("classify", pictures, "--labels", LABELS, "--batch-size", 1)
    code, out, err = run(*words)
    assert code == 130
    assert len(out.splitlines()) == 1
    assert err.splitlines()[-1] == "rebus: interrupted after 1 of 3 images"
    calls.clear()
    code, out, _ = run(*words, "--json")
    assert code == 130
    assert json.loads(out)["interrupted"] is True
    assert len(json.loads(out)["results"]) == 1


def test_out_of_memory_halves_the_batch(bundled, pictures, run, monkeypatch):
    import torch

    from rebus.tasks import classify as task

    real = task.classify

    def small_device(model, images, *args):
        if len(images) > 1:
            raise torch.OutOfMemoryError("too much")
        return real(model, images, *args)

    monkeypatch.setattr(task, "classify", small_device)
    code, out, err = run("classify", pictures, "--labels", LABELS)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert "not enough memory" in err


def test_fault_34_images_too_large_to_be_open_together(bundled, pictures, run, monkeypatch):
    with Image.open(pictures / "a.png") as image:
        pixels = image.width * image.height
        image.save(pictures / "d.png")
    found, _ = document(run, "classify", pictures, "--labels", LABELS)
    monkeypatch.setenv("REBUS_MAX_IMAGE_MEMORY", str(12 * pixels))  # one may be decoded, three may be open
    halved, err = document(run, "classify", pictures, "--labels", LABELS)
    assert halved["results"] == found["results"]
    assert "not enough memory for 4 images at a time: going on with 2" in err
    monkeypatch.setenv("REBUS_MAX_IMAGE_MEMORY", str(pixels))
    code, out, _ = run("classify", pictures, "--labels", LABELS, "--json")
    assert code == 1
    assert all("MAX_IMAGE_MEMORY" in row["error"] for row in json.loads(out)["results"])


def test_fault_16_a_text_that_is_cut_is_said_once_unless_allowed(bundled, pictures, run):
    words = ("match", pictures, "--text", "red " * 100, "--text", "a red circle")
    found, err = document(run, *words)
    assert err.count("1 of 2 texts are longer than the 32 tokens that the model reads (up to 10") == 1
    allowed, err = document(run, *words, "--truncate")
    assert "longer than" not in err
    assert allowed == found
    code, out, err = run("ask", pictures / "a.png", "red " * 9000)
    assert code == 1
    assert "allow it to be cut (--truncate)" in out + err
    assert run("ask", pictures / "a.png", "red " * 9000, "--truncate")[0] == 0
