"""Checkpoints of TensorFlow 1, on ones that a small writer makes."""

import numpy as np
import pytest
import torch

from rebus.core.errors import BadCheckpoint, MissingFile
from rebus.weights.checkpoint_files import open_weights
from rebus.weights.crc32c import crc32c, masked
from rebus.weights.tf_bundle import open_bundle
from tests.weights.tensor_bundle import block, checksum, entry, field, table, write_bundle


def some_tensors():
    torch.manual_seed(0)
    found = {f"net/conv2d_{i}/kernel": torch.randn(3, 3, i + 1, 4) for i in range(40)}
    found |= {f"net/batch_normalization_{i}/{kind}": torch.randn(4) for i in range(40) for kind in ("beta", "gamma")}
    found |= {
        "global_step": torch.tensor(180_000),
        "half": torch.randn(5, 2).half(),
        "brain": torch.randn(3).bfloat16(),
        "nothing": torch.zeros(0, 3),
    }
    return found


@pytest.mark.parametrize("shards", [1, 3])
def test_what_is_written_is_read(tmp_path, shards):
    tensors = some_tensors()
    index = write_bundle(tmp_path / "model.ckpt-180000", tensors, shards=shards, strings=True)
    found = open_bundle(index)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].shape, found[name].dtype) == (tuple(tensor.shape), tensor.dtype)
        assert torch.equal(found[name].load(), tensor), name
    whole, part = found["net/conv2d_7/kernel"], found["net/conv2d_7/kernel"].between(1, 3)
    assert torch.equal(part.load(), whole.load()[1:3])
    assert open_weights(tmp_path).keys() == tensors.keys(), "a directory with one checkpoint"


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    index = write_bundle(tmp_path / "model", some_tensors())
    data = tmp_path / "model.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    raw[0] ^= 1
    data.write_bytes(raw)
    found = open_bundle(index)
    assert len(found["brain"].load()) == 3
    with pytest.raises(BadCheckpoint, match='"net/conv2d_0/kernel" is damaged: checksum'):
        found["net/conv2d_0/kernel"].load()


def test_the_checksum_is_the_published_one():
    for data, wanted in ((b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)):
        assert crc32c(data) == wanted  # RFC 3720, B.4
    random = np.random.default_rng(0)
    for number in (0, 1, 63, 64, 65, 1000, 20_001):
        data = random.integers(0, 256, number, dtype=np.uint8)
        assert masked(crc32c(data)) == checksum(data.tobytes())


def spoiled(tmp_path, change):
    index = write_bundle(tmp_path / "model", {"a/kernel": torch.randn(4, 3), "b": torch.randn(7)})
    index.write_bytes(change(bytearray(index.read_bytes())))
    return index


def flip(at):
    def change(data):
        data[at] ^= 1
        return data

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "not the index of a TensorFlow checkpoint"),
        (lambda data: data[-20:], "not the index of a TensorFlow checkpoint"),
        (flip(3), "the checksum of the block at byte 0 is another"),
        (flip(-45), "damaged index"),
        (lambda data: data[:-48] + b"\xff" * 40 + data[-8:], "a number without an end"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, change, message):
    with pytest.raises(BadCheckpoint, match=message):
        open_bundle(spoiled(tmp_path, change))


def test_every_flipped_bit_of_an_index_is_noticed_or_harmless(tmp_path):
    index = write_bundle(tmp_path / "model", {"a/kernel": torch.randn(4, 3), "b": torch.randn(7)})
    raw, whole = index.read_bytes(), open_bundle(index)
    for at in range(0, len(raw), 3):
        index.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :])
        try:
            found = open_bundle(index)
        except BadCheckpoint:
            continue
        assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in whole.items()}


def test_a_lacking_or_short_shard_is_named(tmp_path):
    index = write_bundle(tmp_path / "model", some_tensors(), shards=2)
    shard = tmp_path / "model.data-00001-of-00002"
    raw = shard.read_bytes()
    shard.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BadCheckpoint, match=r"00001-of-00002: truncated; weight"):
        open_bundle(index)
    shard.unlink()
    with pytest.raises(MissingFile, match=r"names model\.data-00001-of-00002, which is not in"):
        open_bundle(index)


HEADER = (b"", field(1, 1))
ONE = torch.zeros(2)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(b"", field(1, 1) + field(2, 1))], "big-endian"),
        ([(b"", field(1, 100_000))], "100,000 shards"),
        ([], "0 shards"),
        ([HEADER, (b"w", entry(ONE, 3, 0, bytes(8)))], "is in shard 3 of 1"),
        ([HEADER, (b"w", entry(ONE, 0, 0, bytes(4)))], r"of shape \[2\] has 4 bytes"),
        ([HEADER, (b"w", entry(ONE, 0, 2**40, bytes(8)))], "truncated"),
        ([HEADER, (b"w", entry(ONE, 0, 0, bytes(8)) + field(7, b"slice"))], "is stored in slices"),
        ([HEADER, (b"w", field(1, 8))], "has type 8"),
        ([HEADER, (b"w", b"\x0b")], "a field of kind 3"),
        ([HEADER, (b"w", b"\x12\x7f")], "a field goes beyond its entry"),
    ],
)
def test_entries_that_cannot_be_are_refused(tmp_path, entries, message):
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes(8))
    (tmp_path / "model.index").write_bytes(table(entries))
    with pytest.raises(BadCheckpoint, match=message):
        open_bundle(tmp_path / "model.index")


def test_a_compressed_block_is_refused(tmp_path):
    content = block([HEADER])
    data = content + b"\1" + checksum(content + b"\1").to_bytes(4, "little")
    (tmp_path / "model.index").write_bytes(table([HEADER]).replace(content + b"\0", content + b"\1", 1))
    with pytest.raises(BadCheckpoint, match="checksum of the block"):
        open_bundle(tmp_path / "model.index")
    whole = table([HEADER])
    (tmp_path / "model.index").write_bytes(data + whole[len(data) :])
    with pytest.raises(BadCheckpoint, match=r"compressed \(kind 1\)"):
        open_bundle(tmp_path / "model.index")
