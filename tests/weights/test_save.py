import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rebus.core.errors import BadCheckpoint, CannotWrite, MissingFile
from rebus.weights import save
from rebus.weights.checkpoint_files import open_weights, read_config
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.save import MANIFEST, save_directory, verify

WEIGHTS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.ones(3, dtype=torch.bfloat16),
    "c": torch.tensor([True, False, True]),
    "d": torch.tensor(7),
    "e": torch.zeros(0, 4),
}


def tree(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_saved_is_read_back_and_by_safetensors_too(tmp_path):
    save_directory(tmp_path / "x" / "m", {"model_type": "clip"}, WEIGHTS, {"tokenizer.json": b"{}"})
    folder = tmp_path / "x" / "m"
    assert set(tree(folder)) == {"config.json", "model.safetensors", "tokenizer.json", MANIFEST}
    assert read_config(folder) == {"model_type": "clip"}
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert tensor.dtype == WEIGHTS[name].dtype
        assert tensor.equal(WEIGHTS[name])
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert open_weights(folder)["b"].load().equal(WEIGHTS["b"])
    verify(folder)
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def test_weights_are_sharded_as_transformers_does(tmp_path):
    tensors = {f"w{i}": torch.full((10,), float(i)) for i in range(5)}
    save_directory(tmp_path / "m", {}, tensors, shard_bytes=100, weights_name="open_clip_model", config_name="c.json")
    names = set(tree(tmp_path / "m"))
    assert names == {
        "c.json",
        MANIFEST,
        "open_clip_model.safetensors.index.json",
        *(f"open_clip_model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)),
    }
    index = json.loads((tmp_path / "m" / "open_clip_model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 200
    found = open_weights(tmp_path / "m" / "open_clip_model.safetensors.index.json")
    assert all(found[name].load().equal(tensor) for name, tensor in tensors.items())


def test_tied_weights_are_written_once_and_views_in_full(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    save_directory(
        tmp_path / "m", {}, {"a": base, "tied": base, "turned": base.T, "row": base[1], "lazy": LazyTensor.of(base)}
    )
    found = open_weights(tmp_path / "m")
    assert set(found) == {"a", "turned", "row"}
    assert found["turned"].load().equal(base.T)
    assert found["row"].load().equal(base[1])


def test_a_directory_that_exists_is_replaced_and_foreign_files_stay(tmp_path):
    folder = tmp_path / "m"
    save_directory(folder, {"v": 1}, WEIGHTS, {"labels.txt": b"old"}, shard_bytes=10)
    (folder / "README.md").write_text("mine")
    (folder / "logs").mkdir()
    (folder / "logs" / "1.txt").write_text("log")
    save_directory(folder, {"v": 2}, {"a": torch.ones(1)})
    names = {"config.json", "model.safetensors", MANIFEST, "README.md", "logs/1.txt"}
    assert set(tree(folder)) == names
    assert (folder / "README.md").read_text() == "mine"
    assert read_config(folder) == {"v": 2}
    verify(folder)
    (tmp_path / "link").symlink_to(folder)
    save_directory(tmp_path / "link", {"v": 3}, {"a": torch.ones(1)})
    assert (tmp_path / "link").is_symlink()
    assert read_config(folder) == {"v": 3}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "m"]


def test_without_an_exchange_of_directories_two_renames_do(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "_exchange", lambda one, other: False)
    folder = tmp_path / "m"
    save_directory(folder, {"v": 1}, WEIGHTS)
    (folder / "note").write_text("mine")
    save_directory(folder, {"v": 2}, WEIGHTS)
    assert read_config(folder) == {"v": 2}
    assert (folder / "note").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_targets_and_names_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotWrite, match="is a file"):
        save_directory(tmp_path / "file", {}, WEIGHTS)
    monkeypatch.chdir(tmp_path)
    for here in (".", tmp_path, tmp_path.parent, "/"):
        with pytest.raises(CannotWrite, match="working directory"):
            save_directory(here, {}, WEIGHTS)
    for name in ("../x", "a/b", "", ".", MANIFEST):
        with pytest.raises(CannotWrite, match="cannot be the name"):
            save_directory(tmp_path / "m", {}, WEIGHTS, {name: b""})
    with pytest.raises(CannotWrite, match=r'"z" has type torch.complex64'):
        save_directory(tmp_path / "m", {}, {"z": torch.zeros(1, dtype=torch.complex64)})
    assert not (tmp_path / "m").exists()


def test_a_damaged_copy_is_found(tmp_path):
    save_directory(tmp_path / "m", {}, WEIGHTS)
    path = tmp_path / "m" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadCheckpoint, match=r"model.safetensors: differs"):
        verify(tmp_path / "m")
    path.write_bytes(data[:-1])
    with pytest.raises(BadCheckpoint, match=r"where rebus_manifest.json says"):
        open_weights(tmp_path / "m")
    path.rename(tmp_path / "m" / "other.safetensors")
    with pytest.raises(MissingFile, match=r"lists model.safetensors"):
        open_weights(tmp_path / "m")
    (tmp_path / "m" / MANIFEST).write_text("[]")
    with pytest.raises(BadCheckpoint):
        verify(tmp_path / "m")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("step", range(7))
def test_fault_25_a_failed_write_leaves_the_old_state(tmp_path, monkeypatch, number, step):
    folder = tmp_path / "m"
    save_directory(folder, {"v": 1}, WEIGHTS)
    before = tree(tmp_path)
    calls = iter(range(1000))

    def failing(function):
        def call(*args, **kwargs):
            if next(calls) == step:
                raise OSError(number, os.strerror(number), "somewhere")
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(shutil, "disk_usage", failing(shutil.disk_usage))
    monkeypatch.setattr(save, "_carry_over", failing(save._carry_over))
    with pytest.raises(CannotWrite, match="not saved") as caught:
        save_directory(folder, {"v": 2}, {"a": torch.ones(100)}, shard_bytes=4)
    monkeypatch.undo()
    if number in (errno.ENOSPC, errno.EDQUOT):
        assert "it needs 0.00 MB and the disk has" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_fault_25_a_failure_after_the_rename_keeps_both_states(tmp_path, monkeypatch):
    folder = tmp_path / "m"
    save_directory(folder, {"v": 1}, WEIGHTS)
    flush = save.flush

    def failing(path):
        if path == tmp_path:
            raise OSError(errno.EIO, "Input/output error")
        flush(path)

    monkeypatch.setattr(save, "flush", failing)
    with pytest.raises(CannotWrite, match="is saved, but the disk then failed: Input/output error"):
        save_directory(folder, {"v": 2}, WEIGHTS)
    assert read_config(folder) == {"v": 2}
    [old] = [p for p in tmp_path.iterdir() if p != folder]
    assert read_config(old) == {"v": 1}


def test_fault_25_a_disk_that_is_full_is_seen_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CannotWrite, match=r"it needs 4.00 MB and the disk has 1.00 MB free"):
        save_directory(tmp_path / "m", {}, {"a": torch.zeros(10**6)})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="limits on files are POSIX")
def test_fault_25_a_file_size_limit_really_met(tmp_path):
    save_directory(tmp_path / "m", {"v": 1}, WEIGHTS)
    code = """
        import resource, signal, sys, torch
        from rebus.weights.save import save_directory
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            save_directory(sys.argv[1], {"v": 2}, {"a": torch.zeros(10_000)})
        except Exception as error:
            print(type(error).__name__, error)
    """
    run = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "m")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert "CannotWrite" in done.stdout, done.stderr
    assert "it needs 0.04 MB" in done.stdout
    assert read_config(tmp_path / "m") == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


KILLER = """
    # Calls that reach the disk are counted; before the one whose turn it is, the process kills itself for good.
    import builtins, itertools, os, pathlib, shutil, signal, sys, torch
    from rebus.weights import save
    folder, exchange = sys.argv[1], sys.argv[2] == "exchange"
    if not exchange:
        save._exchange = lambda one, other: False
    for turn in itertools.count():
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            print("killed" if os.WIFSIGNALED(status) else "done", flush=True)
            # What a reader finds after each death goes to the log.
            from rebus.weights.checkpoint_files import open_weights, read_config
            version = read_config(folder)["v"]
            values = {name: t.load() for name, t in open_weights(folder).items()}
            assert all(v.equal(torch.full((5,), float(version))) for v in values.values()), values
            assert len(values) == 3
            print("version", version, flush=True)
            if not os.WIFSIGNALED(status):
                break
        else:
            left = [turn]
            def deadly(function):
                def call(*args, **kwargs):
                    left[0] -= 1
                    if left[0] < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*args, **kwargs)
                return call
            for name in ("fsync", "rename", "open", "link", "unlink", "rmdir", "mkdir", "scandir"):
                setattr(os, name, deadly(getattr(os, name)))
            for name in ("open", "mkdir", "write_bytes"):
                setattr(pathlib.Path, name, deadly(getattr(pathlib.Path, name)))
            shutil.rmtree = deadly(shutil.rmtree)
            save._exchange = deadly(save._exchange)
            save._safetensors = deadly(save._safetensors)
            tensors = {name: torch.full((5,), 2.0) for name in "abc"}
            save.save_directory(folder, {"v": 2}, tensors, {"x.txt": b"x"}, shard_bytes=30)
            os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_fault_26_killed_at_every_step_a_reader_finds_the_old_state_or_the_new(tmp_path, way):
    folder = tmp_path / "m"
    save_directory(folder, {"v": 1}, {name: torch.full((5,), 1.0) for name in "abc"})
    (folder / "note").write_text("mine")
    run = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLER), str(folder), way]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    words = done.stdout.split()
    assert words.count("killed") >= 20
    assert words[-3:] == ["done", "version", "2"]
    versions = [w for w in words if w in "12"]
    assert versions == sorted(versions), "once the new state is there it stays"
    verify(folder)
    assert (folder / "note").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["m"], "the next save sweeps what the dead left"
