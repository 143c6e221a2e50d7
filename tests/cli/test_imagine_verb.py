"""imagine: images of prompts, in files."""

import json
import signal

import pytest
import torch
from PIL import Image

from rebus import catalog
from rebus.api import Model
from rebus.recipes import recipe
from rebus.train import override
from rebus.train.final_model import save_final
from rebus.train.setup import open_data

SMALL = [
    *(f"model.text.{name}" for name in ("width=16", "head_width=4", "num_layers=1", "mlp_width=16")),
    *("model.image.multiples=[1,1]", "model.image.image_size=4", "starts=[]"),
]


@pytest.fixture(scope="module")
def draws(tmp_path_factory):
    """A model with random weights that writes images of 2 × 2 codes."""
    config = override(recipe("chameleon_scenes_first"), SMALL)
    torch.manual_seed(0)
    network = catalog.system("chameleon").build(config.model)
    return save_final(config, network, open_data(config).processor, tmp_path_factory.mktemp("drawing") / "model")


def test_a_prompt_is_drawn_into_the_file_that_is_named(draws, run, tmp_path):
    code, out, err = run("imagine", "a red circle", "--out", tmp_path / "one.webp", "--model", draws, "--seed", 3)
    assert (code, out) == (0, f"{tmp_path / 'one.webp'}\n")
    assert "was trained on synthetic shapes only" in err
    with Image.open(tmp_path / "one.webp") as image:
        assert (image.size, image.format) == ((4, 4), "WEBP")
    assert [file.name for file in tmp_path.iterdir()] == ["one.webp"]  # no draft is left


def test_several_images_go_into_a_folder_by_the_words_of_their_prompts(draws, run, tmp_path):
    prompts = ("a red circle", "A red: circle?", "../a/b", "一只猫", "?!")
    code, out, err = run("imagine", *prompts, "--count", 2, "--out", tmp_path / "in", "--model", draws, "--json")
    assert code == 0, err
    rows = json.loads(out)["results"]
    assert [row["prompt"] for row in rows] == [prompt for prompt in prompts for _ in range(2)]
    assert [row["seed"] - rows[0]["seed"] for row in rows] == [0, 1] * 5
    names = [row["image"].removeprefix(f"{tmp_path / 'in'}/") for row in rows]
    circles = ["a-red-circle.png", "a-red-circle-2.png", "a-red-circle-3.png", "a-red-circle-4.png"]
    assert names == [*circles, "a-b.png", "a-b-2.png", "一只猫.png", "一只猫-2.png", "image.png", "image-2.png"]
    assert sorted(file.name for file in (tmp_path / "in").iterdir()) == sorted(names)


def test_the_same_seed_draws_the_same_whatever_else_is_drawn(draws, run, tmp_path):
    model = ("--model", draws, "--seed", 5)
    run("imagine", "a blue star", "a red circle", "--count", 3, "--out", tmp_path / "all", "--batch-size", 6, *model)
    run("imagine", "a red circle", "--out", tmp_path / "one.png", *model)
    run("imagine", "a red circle", "--out", tmp_path / "guided.png", "--guidance", 9, *model)
    of = {name: Image.open(tmp_path / name).tobytes() for name in ("all/a-red-circle.png", "one.png", "guided.png")}
    assert of["one.png"] == of["all/a-red-circle.png"]
    assert of["one.png"] != of["guided.png"]
    assert of["one.png"] != Image.open(tmp_path / "all" / "a-red-circle-2.png").tobytes()


def test_files_that_are_there_stay_unless_told_otherwise(draws, run, tmp_path):
    kept = tmp_path / "a-red-circle.png"
    kept.write_bytes(b"mine")
    words = ("imagine", "a red circle", "a blue star", "--out", tmp_path, "--model", draws)
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert f"{kept} exists already (1 of 2): --overwrite replaces it" in err
    assert kept.read_bytes() == b"mine"
    assert not (tmp_path / "a-blue-star.png").exists()
    assert run(*words, "--overwrite")[0] == 0
    assert kept.read_bytes() != b"mine"


@pytest.mark.parametrize(
    "words, code, said",
    [
        (("a", "b", "--out", "x.png"), 2, "--out x.png: 2 images need a folder"),
        (("a", "--out", "x.gif"), 2, "--out x.gif: an image ends in .png, .jpg, .jpeg, .webp; got .gif"),
        (("a", "--out", "no/x.png"), 1, "no: no such folder"),
        ((" ", "--out", "x.png"), 2, "a prompt is empty"),
        (("a", "--out", "x.png", "--count", "0"), 2, "--count: expected a whole number above 0"),
        (("a", "--out", "x.png", "--seed", "9" * 30), 2, "--seed: expected a whole number from 0 to below 2^62"),
        (("a", "--out", "x.png", "--seed=-1"), 2, "--seed: expected a whole number from 0 to below 2^62; got '-1'"),
        (("a",), 2, "--out"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(run, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rebus.cli.verbs.imagine.open_model", None)
    found, out, err = run("imagine", *words)
    assert (found, out) == (code, "")
    assert said in err
    assert not list(tmp_path.iterdir())


def test_without_a_model_that_draws_photos_it_says_what_to_load(bundled, run, tmp_path, monkeypatch):
    code, _, err = run("imagine", "a cat", "--out", tmp_path / "cat.png")
    assert code == 1
    assert "no model on this machine can imagine photos" in err
    assert "chameleon/anole-7b" in err
    assert "rebus models --task imagine lists all" in err


def test_guidance_that_is_no_number_is_refused(draws, run, tmp_path):
    code, _, err = run("imagine", "a", "--guidance", "nan", "--out", tmp_path / "x.png", "--model", draws)
    assert code == 2
    assert "guidance of an image is a number" in err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_keeps_what_is_drawn(draws, run, tmp_path, monkeypatch):
    imagine, calls = Model.imagine, []

    def interrupted(self, prompts, **options):
        calls.append(prompts)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return imagine(self, prompts, **options)

    monkeypatch.setattr(Model, "imagine", interrupted)
    words = ("--out", tmp_path / "in", "--model", draws, "--batch-size", 1, "--json")
    code, out, err = run("imagine", "a", "b", "c", *words)
    assert code == 130
    assert "interrupted after 1 of 3 images" in err
    found = json.loads(out)
    assert found["interrupted"] is True
    assert [row["prompt"] for row in found["results"]] == ["a"]
    assert [file.name for file in (tmp_path / "in").iterdir()] == ["a.png"]
