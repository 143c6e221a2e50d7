import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from rebus.core.config import from_dict
from rebus.core.errors import BadCheckpoint, BadConfig, MissingFile
from rebus.core.specs import TextSpec
from rebus.weights.checkpoint_files import open_weights, read_config, weight_file

WEIGHTS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.ones(3, dtype=torch.bfloat16),
    "c": torch.tensor([True, False, True]),
    "d": torch.tensor(7, dtype=torch.int64),
    "e": torch.zeros(0, 4),
    "f": torch.ones(5, dtype=torch.float8_e4m3fn),
}


def write(path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def same(found, wanted) -> None:
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        got = found[name].load()
        assert found[name].shape == tuple(tensor.shape) == tuple(got.shape)
        assert found[name].dtype == tensor.dtype == got.dtype
        assert got.contiguous().view(-1).view(torch.uint8).equal(tensor.contiguous().view(-1).view(torch.uint8))


def test_safetensors_are_read_as_written(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    same(open_weights(tmp_path), WEIGHTS)
    same(open_weights(tmp_path / "model.safetensors"), WEIGHTS)


def test_values_at_odd_places_and_parts_of_them(tmp_path):
    header = {
        "x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "y": {"dtype": "F32", "shape": [4, 2], "data_offsets": [1, 33]},
    }
    values = torch.arange(8.0)
    write(tmp_path / "m.safetensors", header, b"\1" + values.numpy().tobytes())
    found = open_weights(tmp_path)
    assert found["y"].load().equal(values.view(4, 2))
    assert found["y"].part(1, 2).load().equal(values.view(4, 2)[2:])
    assert found["y"].at(3).load().equal(values[6:])
    assert found["y"].turned().load().equal(values.view(4, 2).T)
    assert found["y"].turned().part(1, 2).load().equal(values.view(4, 2).T[1:])
    found["y"].release()
    assert found["y"].load().equal(values.view(4, 2))


def test_writing_to_a_tensor_never_reaches_the_file(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    open_weights(tmp_path)["a"].load().add_(1)
    assert load_file(tmp_path / "model.safetensors")["a"].equal(torch.zeros(3))


def test_shards_are_read_through_their_index(tmp_path):
    index = {"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, shard in index["weight_map"].items():
        save_file({name: WEIGHTS[name]}, tmp_path / shard)
    same(open_weights(tmp_path), {name: WEIGHTS[name] for name in "ab"})

    save_file({"a": WEIGHTS["a"], "z": WEIGHTS["a"].clone()}, tmp_path / "m-1.safetensors")
    with pytest.raises(BadCheckpoint, match=r'"z" is in m-1.safetensors, where the index does not expect it'):
        open_weights(tmp_path)
    save_file({"z": WEIGHTS["a"]}, tmp_path / "m-1.safetensors")
    with pytest.raises(BadCheckpoint):
        open_weights(tmp_path)
    (tmp_path / "m-1.safetensors").unlink()
    with pytest.raises(MissingFile, match=r"names m-1.safetensors, which is not in"):
        open_weights(tmp_path)
    for outside in ("../m-2.safetensors", "/etc/passwd", "sub/m.safetensors", "..", "a\\b.safetensors"):
        index["weight_map"]["a"] = outside
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(BadCheckpoint, match="outside the folder"):
            open_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    with pytest.raises(BadCheckpoint, match="weight_map"):
        open_weights(tmp_path)


def test_safetensors_go_before_pickles_and_a_layout_can_be_preferred(tmp_path):
    for name in ("pytorch_model.bin", "open_clip_model.safetensors"):
        (tmp_path / name).touch()
    assert weight_file(tmp_path).name == "open_clip_model.safetensors"
    (tmp_path / "model.safetensors").touch()
    assert weight_file(tmp_path).name == "model.safetensors"
    assert weight_file(tmp_path, prefer="open_clip").name == "open_clip_model.safetensors"
    for name in ("pytorch_model.bin", "open_clip_model.safetensors", "model.safetensors"):
        (tmp_path / name).unlink()
    with pytest.raises(MissingFile, match="is empty"):
        weight_file(tmp_path)
    for name in ("a.npz", "b.npz"):
        (tmp_path / name).touch()
    with pytest.raises(MissingFile, match="2 files of weights"):
        weight_file(tmp_path)
    with pytest.raises(MissingFile, match="no weights at"):
        open_weights(tmp_path / "none.safetensors")


def test_fault_21_headers_that_lie(tmp_path):
    path = tmp_path / "m.safetensors"
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    for data, words in (
        (b"", "empty file"),
        (b"abc", "truncated"),
        (struct.pack("<Q", 1 << 60) + b"{}", "bad header length"),
        (b"<html><body>not found</body>", "bad header length"),
        (struct.pack("<Q", 3) + b"abc" + b"12", "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "object"),
    ):
        path.write_bytes(data)
        with pytest.raises(BadCheckpoint, match=words):
            open_weights(path)
    for header, size, words in (
        ({"w": good}, 7, r'truncated; weight "w" ends at byte'),
        ({"w": good}, 9, "at the end belong to no weight"),
        ({"w": good, "v": {**good, "data_offsets": [4, 12]}}, 12, '"w" and "v" overlap'),
        ({"w": good, "v": {**good, "data_offsets": [12, 20]}}, 20, '4 bytes before weight "v"'),
        ({"w": {**good, "dtype": "F99"}}, 8, "\"w\" has type 'F99'"),
        ({"w": {**good, "dtype": ["F32"]}}, 8, '"w" has type'),
        ({"w": {**good, "shape": [3]}}, 8, r'"w" of shape \[3\] and type F32 expects 12 bytes'),
        ({"w": {**good, "shape": [-2]}}, 8, '"w" has an impossible shape'),
        ({"w": {**good, "shape": [2.0]}}, 8, '"w" has an impossible shape'),
        ({"w": {**good, "data_offsets": [8, 0]}}, 8, '"w"'),
        ({"w": {**good, "data_offsets": 8}}, 8, '"w" lacks'),
        ({"w": {"dtype": "F32"}}, 8, '"w" lacks'),
        ({"w": 3}, 8, '"w" lacks'),
    ):
        write(path, header, bytes(size))
        with pytest.raises(BadCheckpoint, match=words):
            open_weights(path)


class Canary:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("ending", ["bin", "pt", "pth"])
@pytest.mark.parametrize("zipped", [True, False])
def test_fault_19_code_in_a_pickle_is_refused_and_never_run(tmp_path, ending, zipped):
    canary = tmp_path / "canary"
    path = tmp_path / f"m.{ending}"
    torch.save({"a": torch.zeros(2), "b": Canary(canary)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadCheckpoint, match="nothing was run"):
        open_weights(path)
    path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(BadCheckpoint):
        open_weights(path)
    assert not canary.exists()


def test_fault_19_a_torchscript_archive_is_refused_with_what_to_use(tmp_path):
    path = tmp_path / "ViT-B-32.pt"
    with zipfile.ZipFile(path, "w") as archive:  # laid out as torch.jit.save does
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "data/0", "version"):
            archive.writestr(f"ViT-B-32/{name}", b"")
    with pytest.raises(BadCheckpoint, match=r"TorchScript.*openai/clip-vit-base-patch32"):
        open_weights(path)


def test_pickles_of_weights_alone_are_read(tmp_path):
    wanted = {name: WEIGHTS[name] for name in "abcd"}
    for zipped in (True, False):
        torch.save(wanted, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        same(open_weights(tmp_path), wanted)
    torch.save({"epoch": 3, "state_dict": wanted}, tmp_path / "epoch.pt")
    same(open_weights(tmp_path / "epoch.pt"), wanted)
    for content, words in (([1], "expected names and tensors; got list"), ({"a": 3}, '"a" is no tensor')):
        torch.save(content, tmp_path / "m.pt")
        with pytest.raises(BadCheckpoint, match=words):
            open_weights(tmp_path / "m.pt")


def test_damaged_pickles_and_other_files_are_refused(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.zeros(100)}, path)
    whole = path.read_bytes()
    for data in (b"", b"<html>", whole[:200]):
        path.write_bytes(data)
        with pytest.raises(BadCheckpoint):
            open_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.txt", "no")
    with pytest.raises(BadCheckpoint):
        open_weights(path)
    (tmp_path / "m.onnx").write_bytes(b"GGUF")
    with pytest.raises(BadCheckpoint, match=r"weights are .safetensors"):
        open_weights(tmp_path / "m.onnx")


def test_fault_20_a_configuration_is_data(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(MissingFile, match=r"no config.json in .*holds model.safetensors"):
        read_config(tmp_path)
    for text, words in (
        ('{"a": 1,\n  "b": }', r"config.json: line 2, column 8"),
        ("[]", "expected an object; got list"),
        ("[" * 100_000, "not a JSON file"),
        ("\udcff", "not a JSON file"),
        ("", "line 1, column 1"),
    ):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(BadConfig, match=words):
            read_config(tmp_path)
    path.write_text('{"context": -1, "pad_id": 1e99, "_secret": 1, "contxt": 2}')
    with pytest.raises(BadConfig) as caught:
        from_dict(TextSpec, read_config(tmp_path))
    for words in ("context: -1 is outside", "pad_id: expected int", "_secret: unknown field", "did you mean context?"):
        assert words in str(caught.value)
    monkeypatch.setattr("rebus.weights.checkpoint_files.MAX_JSON", 10)
    with pytest.raises(BadConfig, match="limit of 10"):
        read_config(tmp_path)
