"""`rebus plan` and `rebus bench --train`: what a person sees, what a program reads, what is refused."""

import json

import pytest

from rebus import catalog

BASE = ("plan", "clip/b32", "--data", "coyo-700m", "--gpus", "64xh100")
TRAINED = {name for name in catalog.SYSTEMS if catalog.system(name).objective is not None}  # others are put together
SIZED = [card.name for card in catalog.ROWS.values() if card.parameters and card.system in TRAINED]


def test_a_person_sees_time_cost_parts_memory_and_assumptions(run):
    code, out, err = run(*BASE)
    assert (code, err) == (0, "")
    for text in ("time ", "GPU hours", "cost ", "image_proj", "text ", "87,456,000", "151,277,313", "optimiser"):
        assert text in out
    assert "assumptions" in out
    assert "224 × 224 is 49 patches, with 77 tokens" in out
    assert "40%" in out
    assert "coyo-700m: 746,972,269 pairs" in out
    assert "$2.50 a GPU hour (a round number" in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REBUS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


FEW = ("clip/rn50", "siglip/v2-b16-naflex", "paligemma/v2-3b-mix-224")


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in SIZED])
def test_every_published_size_prints(run, name):
    code, out, _ = run("plan", name, "--data", "1M", "--gpus", "256xh200")
    assert code == 0
    assert f"{catalog.info(name).parameters:,}" in out


def test_json_is_one_document_with_the_same_numbers(run):
    code, out, err = run(*BASE, "--json", "--epochs", 2, "--batch", 32768, "--price", 3)
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["examples"] == 2 * 746_972_269
    assert found["cost"] == pytest.approx(3 * found["gpu_hours"])
    assert found["gpu_hours"] == pytest.approx(64 * 24 * found["days"])
    assert sum(part["params"] for part in found["parts"]) == 151_277_313
    held = found["memory"]
    kinds = ("weights", "copies", "gradients", "optimiser", "loss", "activations")
    assert held["total"] == sum(held[kind] for kind in kinds) <= held["available"]
    assert found["assumptions"]


def test_bundled_checkpoints_have_plans(bundled, run):
    for name in ("siglip/scenes", "paligemma/scenes"):
        code, out, _ = run("plan", name, "--data", "60k", "--gpus", "4090", "--precision", "fp32")
        assert code == 0
        assert "float32 throughout" in out


def test_what_learns_can_be_chosen(run):
    def trained(*words):
        found = json.loads(run(*BASE, "--json", *words)[1])
        return [part["trained"] for part in found["parts"]]

    assert trained("--freeze", "image,image_proj") == [0, 0, 63_165_952, 262_144, 1]
    assert trained("--train", "text,text_proj") == [0, 0, 63_165_952, 262_144, 0]
    assert trained("--train", "text.blocks") == [0, 0, 12 * 3_152_384, 0, 0]
    assert trained("--lora", 4) == [0, 0, 12 * 4 * (8 * 512 + 2 * (512 + 2048)), 0, 0]


def test_what_does_not_fit_says_what_helps(run):
    code, out, err = run("plan", "paligemma/v2-28b-pt-448", "--data", "10k", "--gpus", "h100")
    assert code == 0
    assert "DOES NOT FIT" in out
    assert "not even one example" in out
    assert "--checkpointing" in err
    assert "--lora" in err


def test_pictures_of_another_size(run):
    found = json.loads(run(*BASE, "--json", "--image-size", 448)[1])
    assert found["patches"] == 196


@pytest.mark.parametrize(
    "words, said",
    [
        (("plan", "clip/b23", "--data", "coco", "--gpus", "h100"), 'did you mean "clip/b32"'),
        (("plan", "clip/b32", "--data", "cooc", "--gpus", "h100"), 'did you mean "coco"'),
        (("plan", "clip/b32", "--data", "coco", "--gpus", "8xh10"), 'did you mean "h100"'),
        (("plan", "clip/b32", "--gpus", "h100"), "--data coyo-700m"),
        (("plan", "clip/b32", "--data", "coco"), "--gpus 8xh100"),
        (("plan", "asif/starter", "--data", "coco", "--gpus", "h100"), "nothing to train"),
        ((*BASE, "--freeze", "imag"), 'did you mean "image"'),
        ((*BASE, "--train", "txt"), 'did you mean "text"'),
        ((*BASE, "--freeze", "image", "--train", "text"), "not both"),
        ((*BASE, "--epochs", "1", "--examples", "1M"), "not both"),
        ((*BASE, "--examples", "many"), "12.8B"),
        ((*BASE, "--batch", "1000"), "960 or 1,024"),
        ((*BASE, "--image-size", "8"), "patch of 32"),
        ((*BASE, "--utilisation", "1.5"), "measured"),
        ((*BASE, "--price", "nan"), "above 0"),
        ((*BASE, "--gpus", "60xh100", "--tensor-parallel", "5"), "12 heads"),
        ((*BASE, "--sharding", "fsd"), "fsdp"),
        ((*BASE, "--lora", "4", "--freeze", "image"), "--train"),
        (("bench", "clip/b32", "--steps", "2"), "--train"),
        (("bench", "clip/b32", "--train", "--dtype", "float16"), "bfloat16"),
        (("bench", "clip/b23", "--train"), 'did you mean "clip/b32"'),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, tuple) else None,
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("rebus: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("name, objective", [("siglip/scenes", "sigmoid"), ("paligemma/scenes", "next token")])
def test_bench_train(bundled, run, name, objective, monkeypatch):
    from rebus.train import bench

    monkeypatch.setattr(bench, "best_product", lambda device, dtype: 1e12)
    words = ("bench", name, "--train", "--batch-size", 4, "--steps", 1)
    found = json.loads(run(*words, "--accumulate", 2, "--json")[1])
    assert found["objective"] == objective
    assert found["examples_per_second"] == pytest.approx(4 / found["seconds_per_step"])
    rate = found["flops_per_example"] * found["examples_per_second"]
    assert found["utilisation"] == pytest.approx(rate / 1e12)
    assert found["planned_memory_bytes"] > 0
    code, out, _ = run(*words)
    assert code == 0
    assert "examples" in out
    assert "1,000 GFLOP/s (a large product in float32, timed here)" in out


def test_bench_train_refuses_a_batch_that_does_not_divide(bundled, run):
    code, _, err = run("bench", "siglip/scenes", "--train", "--batch-size", 3, "--accumulate", 2)
    assert code == 2
    assert "does not divide" in err


def test_utilisation_can_be_measured(run, monkeypatch):
    monkeypatch.setattr(
        "rebus.cli.training_speed.training_speed",
        lambda *args, **options: {"utilisation": 0.25, "peak_from": "a product"},
    )
    monkeypatch.setattr(
        "rebus.api.create", lambda name: type("Model", (), {"network": None, "system": None, "config": None})
    )
    code, out, err = run(*BASE, "--utilisation", "measured")
    assert code == 0
    assert "25%" in out
    assert "measured here with clip/b32 in its place" in out
    assert "measuring" in err


def test_all_that_is_missing_is_named_at_once(run):
    code, _, err = run("plan", "clip/b32")
    assert code == 2
    assert "plan needs --data coyo-700m and --gpus 8xh100, for example" in err
    assert "--gpus" not in run("plan", "clip/b32", "--gpus", "t4")[2]


def test_data_of_a_folder_are_counted(pictures, run):
    words = ("plan", "clip/b32", "--data", pictures, "--gpus", "rtx 3060", "--json")
    code, out, err = run(*words)
    assert code == 0, err
    found = json.loads(out)
    assert found["examples"] == found["data"]["examples"] == 3
    assert found["gpus"]["title"] == "NVIDIA RTX 3060"
    assert found["batch"] == 3


def test_little_data_gets_a_batch_with_which_it_can_learn(run):
    batches = {}
    for data in ("800", "100k", "1M", "coyo-700m"):
        found = json.loads(run("plan", "clip/b32", "--data", data, "--gpus", "h100", "--json")[1])
        batches[data] = found["batch"]
    assert batches == {"800": 32, "100k": 256, "1M": 4096, "coyo-700m": 32_768}


@pytest.mark.parametrize(
    "text, number, name",
    [
        ("rtx 3060", 1, "3060"),
        ("RTX-3060", 1, "3060"),
        ("4x rtx 3060", 4, "3060"),
        ("NVIDIA GeForce RTX 4090", 1, "4090"),
        ("2xt4", 2, "t4"),
        ("Tesla T4", 1, "t4"),
        ("l4", 1, "l4"),
        ("8xA10", 8, "a10"),
        ("a100 80", 1, "a100-80"),
    ],
)
def test_gpus_are_called_as_people_call_them(text, number, name):
    from rebus.plan import read_gpus

    found, gpu = read_gpus(text)
    assert (found, gpu.name) == (number, name)


def test_bench_says_why_it_uses_so_many_threads(monkeypatch):
    import os

    import torch

    from rebus.evaluate.bench import threads_from

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert threads_from() == "OMP_NUM_THREADS=3"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert threads_from() == "PyTorch's default on 2 cores"
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 0.0, 0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert "load 9.0 on 2 cores: OMP_NUM_THREADS=1 may be faster" in threads_from()
