"""models, info, train, eval, bench, check, tour."""

import json
import signal

import pytest

from rebus import catalog
from rebus.cli import main
from tests.cli.conftest import SIZES

SHORT = ["steps=4", "batch_size=4", "save_every=2", "eval_every=0", "workers=0", *SIZES["siglip"]]
SET = [word for setting in SHORT for word in ("--set", setting)]


def test_models_and_info(bundled, run):
    code, out, err = run("models", "--task", "caption")
    assert code == 0
    assert out.splitlines()[0].split() == ["name", "size", "tasks", "licence", "weights"]
    assert out.splitlines()[1].startswith("paligemma/scenes")
    assert "bundled" in out.splitlines()[1]
    assert "models" in err
    rows = json.loads(run("models", "--family", "contrastive", "--released", "--json")[1])
    assert {row["family"] for row in rows} == {"contrastive"}
    assert all(row["released"] and row["repo"] for row in rows)
    code, out, _ = run("info", "siglip/b16-224")
    assert code == 0
    assert "203,155,970" in out
    assert "google/siglip-base-patch16-224" in out
    card = json.loads(run("info", "paligemma/scenes", "--json")[1])
    assert card["weights"] == "bundled"
    assert card["scores"]["scores"] == {"questions": 0.5}
    assert card["prompts"]["ask"]


def test_train_show_fields_and_help(run):
    shown = json.loads(run("train", "siglip_scenes", "--show", "--set", "optim.lr=3e-4")[1])
    assert shown["optim"]["lr"] == 3e-4
    assert "optim.lr" in run("train", "siglip_scenes", "--fields")[1]
    assert "optim.warmup" in run("train", "--help", "siglip_scenes")[1]


def test_train_leaves_a_model_and_goes_on(tmp_path, pictures, run):
    out_dir = tmp_path / "run"
    code, out, err = run("train", "siglip_scenes", "--out", out_dir, *SET, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["step"] == 4
    assert "step 4 of 4" in err
    assert len((out_dir / "metrics.jsonl").read_text().splitlines()) == 4
    code, out, _ = run("classify", pictures, "--labels", "red circle,blue star", "--model", found["final"])
    assert code == 0
    code, _, err = run("train", "siglip_scenes", "--out", out_dir, *SET)
    assert code == 0, err
    assert "all 4 steps are done already" in err
    code, _, err = run("train", "siglip_scenes", "--out", out_dir, *SET, "--set", "steps=6")
    assert code == 0, err
    assert "resuming after step 4 of 6" in err
    code, _, err = run("train", "siglip_scenes", "--out", out_dir, *SET, "--set", "steps=6", "--set", "seed=7")
    assert code == 2
    assert "seed was 0 and is 7" in err
    assert "resuming" not in err


def test_ctrl_c_in_training_says_how_to_go_on(tmp_path, run, monkeypatch):
    from rebus.train import loop

    real, calls = loop.rate_at, []

    def third_step(*args):
        calls.append(args)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(loop, "rate_at", third_step)
    code, out, err = run("train", "siglip_scenes", "--out", tmp_path / "run", *SET)
    assert (code, out) == (130, "")
    assert "interrupted at step 3; the checkpoint of step 3 is saved. Run the same command to resume" in err
    monkeypatch.setattr(loop, "rate_at", real)
    code, _, err = run("train", "siglip_scenes", "--out", tmp_path / "run", *SET)
    assert code == 0
    assert "resuming after step 3" in err


def test_ctrl_c_before_the_first_step_says_that_nothing_is_kept(tmp_path, run, monkeypatch):
    from rebus.train import loop

    def begin(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Run, "go_on_or_begin", begin)
    code, _, err = run("train", "siglip_scenes", "--out", tmp_path / "run", *SET)
    assert code == 130
    assert "there is no checkpoint yet. Run the same command to start again" in err


def test_train_into_what_cannot_be_a_folder(tmp_path, run):
    (tmp_path / "file").write_text("")
    code, _, err = run("train", "siglip_scenes", "--out", tmp_path / "file" / "run", *SET)
    assert code == 1
    assert err.count("\n") == 1


def test_eval(bundled, run, monkeypatch):
    from rebus.evaluate import scenes

    monkeypatch.setattr(scenes, "evaluate", lambda model, **how: {"image_to_text": 0.25, "scenes": how["number"]})
    code, out, _ = run("eval", "siglip/scenes", "scenes", "--number", 100, "--json")
    assert code == 0
    assert json.loads(out)["image_to_text"] == 0.25
    assert "0.250" in run("eval", "siglip/scenes", "scenes", "--number", 100)[1]


@pytest.mark.parametrize("name", ["siglip/scenes", "paligemma/scenes"])
def test_bench(bundled, run, name):
    found = json.loads(run("bench", name, "--runs", 1, "--batch-size", 2, "--json")[1])
    assert found["model"] == name
    assert found["peak_memory_bytes"] > 0
    speed = "images_per_second" if name.startswith("siglip") else "tokens_per_second"
    assert found[speed] > 0
    code, out, _ = run("bench", name, "--runs", 1, "--batch-size", 1)
    assert code == 0
    assert "/s" in out


@pytest.mark.parametrize("name", ["siglip/scenes", "paligemma/scenes"])
def test_check(bundled, run, name):
    code, out, err = run("check", name, "--json")
    checks = {row["name"]: row for row in json.loads(out)["checks"]}
    assert code == 0, (checks, err)
    assert checks["stored reference"]["passed"] is None
    assert checks["images: batch = single"]["passed"]
    assert checks["typed control tokens"]["passed"]


def test_check_against_stored_outputs(checkpoints, tmp_path, run):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(checkpoints / "siglip_scenes", folder)
    code, out, err = run("check", folder, "--record")
    assert code == 0, out + err
    stored = json.loads((folder / "reference.json").read_text())
    stored["images"][0][0] += 0.1
    (folder / "reference.json").write_text(json.dumps(stored))
    code, out, err = run("check", folder)
    assert code == 1
    assert "FAIL  stored reference" in out
    assert "1 of 9 checks failed" in err


def test_tour(bundled, tmp_path, run, monkeypatch):
    monkeypatch.setattr("rebus.tour.scenes.NUM_WRITTEN", 2)
    code, out, err = run("tour", "--out", tmp_path / "tour", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert {line["model"] for line in found["results"]} == {"siglip/scenes", "paligemma/scenes"}
    assert "starter" in found["missing"][0]
    page = (tmp_path / "tour" / "index.html").read_text()
    assert page.count("<img") >= 8 + 2 * 3
    assert "http" not in page.replace("http-equiv", "")


def test_tour_with_nothing_to_show(bundled, tmp_path, run, monkeypatch):
    monkeypatch.setattr(catalog, "checkpoint_folder", lambda: tmp_path / "none")
    code, _, err = run("tour", "--out", tmp_path / "tour")
    assert code == 1
    assert "starter" in err


def test_main_is_the_entry_point():
    assert main(["--version"]) == 0
