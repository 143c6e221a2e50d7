import contextlib
import errno
import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from rebus.core.errors import CannotWrite, MissingFile, NetworkError, UnknownName
from rebus.weights import hub
from rebus.weights.checkpoint_files import open_weights, read_config

from .fake_hub import FakeHub

WEIGHTS = save({"a": torch.arange(4000.0)})


@pytest.fixture
def online(tmp_path, monkeypatch):
    """A running Hub, an empty cache, and the network switched on for it alone."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with FakeHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.repos["org/model"] = {
            "config.json": b'{"model_type": "clip"}',
            "model.safetensors": WEIGHTS,
            "pytorch_model.bin": b"pickle",
            "onnx/model.onnx": b"onnx",
            "README.md": b"# model",
            "tokenizer.json": b"{}",
        }
        yield server


def test_a_local_directory_or_file_is_itself(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    assert hub.find(tmp_path) == tmp_path
    assert hub.find(str(tmp_path / "model.safetensors")) == tmp_path / "model.safetensors"


def test_a_mistyped_path_is_not_taken_for_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "final").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFile, match=r'no directory or file "./finall"; did you mean final\?'):
        hub.find("./finall")
    with pytest.raises(MissingFile, match="did you mean"):
        hub.find(str(tmp_path / "fimal"))
    (tmp_path / "runs" / "clip").mkdir(parents=True)
    with pytest.raises(MissingFile, match="runs/clip"):
        hub.find("runs/clio")
    with pytest.raises(MissingFile):
        hub.find("weights.safetensors")
    with pytest.raises(UnknownName, match="organisation/name"):
        hub.find("clipp")
    for nothing in ("", " ", "a\0b"):
        with pytest.raises(UnknownName, match="directory or a Hub id"):
            hub.find(nothing)


def test_a_repository_is_fetched_once_and_then_used_offline(online, monkeypatch):
    folder = hub.find("org/model")
    assert {p.name for p in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert read_config(folder) == {"model_type": "clip"}
    assert open_weights(folder)["a"].load().equal(torch.arange(4000.0))
    asked = len(online.asked)
    assert hub.find("org/model") == folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.find("org/model", "main") == folder
    assert hub.cached("org/model") == folder
    assert len(online.asked) == asked, "what is whole in the cache asks nobody"


def test_sharded_weights_and_the_preferred_layout():
    names = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "open_clip_model.safetensors",
        "open_clip_config.json",
        "tokenizer.model",
        "flax_model.msgpack",
        "onnx/model.onnx",
        "onnx/config.json",
    ]
    wanted = hub.needed_files(names)
    assert wanted == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "open_clip_config.json",
        "tokenizer.model",
    ]
    assert "open_clip_model.safetensors" in hub.needed_files(names, "open_clip")
    assert "model-00001-of-00002.safetensors" not in hub.needed_files(names, "open_clip")
    assert hub.needed_files(["pytorch_model.bin", "config.json"]) == ["config.json", "pytorch_model.bin"]
    assert hub.needed_files(["a.npz"]) == ["a.npz"]
    assert hub.needed_files(["README.md"]) == []


def test_a_repository_of_big_vision_is_its_archive(online):
    online.repos["org/jax"] = {"siglip.npz": b"PK", "README.md": b""}
    found = hub.find("org/jax")
    assert found.name == "siglip.npz"
    asked = len(online.asked)
    assert hub.find("org/jax") == found
    assert len(online.asked) == asked


def test_fault_25_a_full_disk_while_downloading_says_where(online, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(CannotWrite, match=r"org/model: it needs 0.02 MB, and .*hf.hub has"):
        hub.find("org/model")


def test_fault_24_network_errors_say_which_and_what_to_do(online, tmp_path, monkeypatch):
    online.status["org/gated"] = (403, {"X-Error-Code": "GatedRepo"})
    online.status["org/secret"] = (401, {"X-Error-Code": "RepoNotFound"})
    online.status["org/busy"] = (429, {"Retry-After": "7"})
    online.status["org/token"] = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    online.status["org/down"] = (503, {})
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for repo, kind, words in (
        ("org/gated", NetworkError, "gated: accept its licence"),
        ("org/secret", UnknownName, "private"),
        ("org/none", UnknownName, "check the name"),
        ("org/busy", NetworkError, "429.*Wait 7 s"),
        ("org/token", NetworkError, "HF_TOKEN"),
        ("org/down", NetworkError, "503"),
    ):
        with pytest.raises(kind, match=words) as caught:
            hub.find(repo)
        assert repo in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnknownName, match='no revision "v9"'):
        hub.find("org/model", "v9")
    online.repos["org/empty"] = {"README.md": b"x"}
    with pytest.raises(UnknownName, match="holds no weights"):
        hub.find("org/empty")


def test_fault_24_no_network(online, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match="cannot be reached"):
        hub.find("org/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match=r"downloads are disabled \(HF_HUB_OFFLINE\).*hf download org/model"):
        hub.find("org/model")


def test_fault_24_a_whole_cache_serves_when_the_hub_is_down(online, monkeypatch):
    folder = hub.find("org/model")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.find("org/model", "main") == folder


def test_fault_24_hash_mismatch(online):
    online.lie.add("model.safetensors")
    with pytest.raises(NetworkError, match=r"hash mismatch in model.safetensors"):
        hub.find("org/model")
    online.lie.clear()
    assert open_weights(hub.find("org/model"))["a"].load()[3] == 3


def test_fault_24_half_a_download_resumes(online, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    online.break_after = 5000
    with contextlib.suppress(NetworkError):
        hub.find("org/model")
    folder = hub.find("org/model")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert any(wanted.startswith("bytes=") and wanted != "bytes=0-" for _, _, wanted in online.asked)


def test_fault_24_half_a_cache_is_refused_offline(online, monkeypatch):
    shards = {f"model-0000{i}-of-00002.safetensors": save({f"w{i}": torch.ones(2)}) for i in (1, 2)}
    table = {"w1": "model-00001-of-00002.safetensors", "w2": "model-00002-of-00002.safetensors"}
    index = json.dumps({"metadata": {}, "weight_map": table}).encode()
    online.repos["org/big"] = {"config.json": b"{}", "model.safetensors.index.json": index, **shards}
    folder = hub.find("org/big")
    assert set(open_weights(folder)) == {"w1", "w2"}
    (folder / "model-00002-of-00002.safetensors").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match=r"only a part of org/big"):
        hub.find("org/big")


def test_a_cache_that_the_hub_library_wrote_is_read_in_place(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    root = tmp_path / "models--org--old"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("a" * 40)
    snapshot = root / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(WEIGHTS)
    assert hub.find("org/old") == snapshot


def test_a_folder_that_looks_alike_does_not_hide_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--openai--clip-vit-base-patch32" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "openai" / "clip-vit-base-patch16").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.find("openai/clip-vit-base-patch32") == snapshot


def test_caches_follow_the_environment(tmp_path, monkeypatch):
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REBUS_HOME", str(tmp_path))
    assert hub.cache_home() == tmp_path
    assert hub.hub_cache() == tmp_path / "hub"
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    assert hub.hub_cache() == Path("/elsewhere/hub")
    monkeypatch.delenv("REBUS_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert hub.cache_home() == Path("/caches/rebus")
