"""Damaged and crafted files of weights: each is one line that names the file, whatever a parser raises."""

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from rebus.core.errors import BadCheckpoint, MissingFile, RebusError
from rebus.weights.checkpoint_files import open_weights, read_json
from rebus.weights.hub import cached, find
from rebus.weights.save import MANIFEST

DIGITS = "9" * 5000


def refused(path: Path, kind: type[RebusError] = RebusError) -> str:
    with pytest.raises(kind) as caught:
        for tensor in open_weights(path).values():
            tensor.load()
    said = str(caught.value)
    assert path.name in said
    assert said.isprintable(), said
    return said


@pytest.mark.parametrize("text", ['{"a": ' + DIGITS + "}", "[" * 100_000, "\xff", "[]"], ids=range(4))
def test_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RebusError, match=r"config\.json"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize("header", ['{"a": ' + DIGITS + "}", "[" * 50_000, "\xff", "3", '{"a": {"dtype": []}}'])
def test_safetensors_headers(header: str, tmp_path: Path) -> None:
    data = header.encode("latin-1")
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)
    refused(tmp_path / "model.safetensors", BadCheckpoint)


def npz(path: Path, member: bytes) -> bytearray:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", member)
    return bytearray(path.read_bytes())


def npy(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16)


def test_npz_encrypted_of_unknown_method_and_version(tmp_path: Path) -> None:
    path, stream = tmp_path / "a.npz", io.BytesIO()
    np.save(stream, np.ones(4, np.float32))
    whole = npz(path, stream.getvalue())
    assert open_weights(path)["a"].load().tolist() == [1.0] * 4
    centre = whole.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 97), (6, 99)):  # of the central directory: flags, method, version needed
        data = bytearray(whole)
        data[centre + offset] = value
        data[offset - 2] = value
        path.write_bytes(data)
        refused(path, BadCheckpoint)
    data = bytearray(whole)  # a name that says it is UTF-8, and is not
    data[centre + 9] |= 8
    data[centre + 46] = 0xFF
    path.write_bytes(data)
    refused(path, BadCheckpoint)


@pytest.mark.parametrize(
    "shape", ["(-1,)", f"({DIGITS},)", "(2**62,)", "(4611686018427387904, 4)", "('a',)", "(True,)"]
)
def test_npz_shapes(shape: str, tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", npy(shape))
    refused(tmp_path / "a.npz", BadCheckpoint)


def test_pickles_damaged_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path)
    whole = path.read_bytes()
    pickled = whole.index(b"data.pkl") + 60
    for at in (
        *range(pickled, pickled + 60, 7),
        *range(len(whole) - 22, len(whole), 3),
        whole.index(b"PK\x01\x02") + 20,
    ):
        data = bytearray(whole)
        data[at] ^= 0xFF
        path.write_bytes(data)
        with contextlib.suppress(RebusError):  # or what was changed says nothing
            open_weights(path)


def test_pickles_of_other_than_dense_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a\x1b[2J": torch.eye(2).to_sparse()}, path)
    assert '\\x1b[2J" is a sparse tensor; weights are dense' in refused(path, BadCheckpoint)


def test_manifests_with_text_for_a_size(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    entry = {"bytes": "many\n"}
    (tmp_path / MANIFEST).write_text(json.dumps({"files": {"model.safetensors": entry}}))
    with pytest.raises(BadCheckpoint, match=r'1 bytes where .* says "many'):
        open_weights(tmp_path)


def test_long_names_and_loops_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / ("x" * 300), tmp_path / ("x" * 300 + ".safetensors")):
        with pytest.raises(MissingFile):
            find(path)
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(MissingFile):
        open_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize("reference", [b"\xff\xfe", b"../../../secret", b"a" * 5000, b"a\0b", b"..", b""])
def test_references_of_a_hub_cache(reference: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    root = tmp_path / "hub" / "models--a--b"
    for folder in (root / "refs", root / "snapshots", tmp_path / "secret"):
        folder.mkdir(parents=True)
    for place in (tmp_path / "secret", root, root / "snapshots"):
        (place / "config.json").write_text("{}")
        (place / "model.safetensors").write_bytes(b"x")
    (root / "refs" / "main").write_bytes(reference)
    assert cached("a/b") is None


def test_fault_37_pipes_and_devices_in_place_of_files(tmp_path: Path) -> None:
    """In a process of its own: whoever opens a pipe waits for ever."""
    readers = {
        "config.json": "read_json",
        "model.safetensors": "open_weights",
        "model.npz": "open_weights",
        "model.bin": "open_weights",
        "model.safetensors.index.json": "open_weights",
    }
    lines = ["import sys, resource", "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))"]
    lines += ["from pathlib import Path", "from rebus.core.errors import RebusError"]
    lines += ["from rebus.weights.checkpoint_files import open_weights, read_json"]
    for kind in ("pipe", "zero"):
        (tmp_path / kind).mkdir()
        for name, reader in readers.items():
            path = tmp_path / kind / name
            os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
            lines += ["try:", f"    {reader}(Path({str(path)!r}))", "except RebusError as error:", "    print(error)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done
    said = done.stdout.splitlines()
    assert len(said) == 2 * len(readers)
    for line, name in zip(said, [*readers, *readers], strict=True):
        assert name in line
        assert "a device or a pipe" in line or (name == "model.bin" and "no weights at" in line)


@pytest.mark.parametrize("kind", ["pipe", "zero", "large"])
def test_fault_37_pipes_devices_and_large_files_in_place_of_small_ones(kind: str, tmp_path: Path) -> None:
    """What is read of a saved model, a claim, a run and a card; in a process of its own, as above."""
    for name in ("rebus_manifest.json", "results.json", "config.json", "card.json", "preprocessor_config.json"):
        path = tmp_path / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "zero":
            path.symlink_to("/dev/zero")
        else:
            with path.open("wb") as file:
                file.truncate(21_000_000)
    lines = [
        "import resource",
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))",
        "from pathlib import Path",
        "from rebus.codec.processor import load_processor",
        "from rebus.core.card import domain_in",
        "from rebus.core.errors import RebusError",
        "from rebus.recipes import recipe",
        "from rebus.reproduce import find",
        "from rebus.reproduce.run_claim import begun",
        "from rebus.train.run_directory import check_claim",
        "from rebus.weights.save import verify",
        f"folder = Path({str(tmp_path)!r})",
        "works = [lambda: verify(folder), lambda: begun(find('clip'), folder)]",
        "works += [lambda: check_claim(recipe('clip_scenes'), folder), lambda: domain_in(folder)]",
        "works += [lambda: load_processor(folder, None, None)]",
        "for work in works:",
        "    try:",
        "        print(work())",
        "    except RebusError as error:",
        "        print(error)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done
    verified, claimed, begun, domain, processor = done.stdout.splitlines()
    assert verified.endswith("rebus_manifest.json: damaged")
    assert "results.json: not the results of a claim" in claimed
    assert f"{tmp_path} was started with other settings" in begun
    assert domain == "photos"
    if kind == "large":  # what is no file is as good as not there
        assert "preprocessor_config.json: cannot be read (21,000,000 bytes pass the limit" in processor
