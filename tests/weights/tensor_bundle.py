"""Writes a checkpoint as TensorFlow 1 does, for tests of what reads one."""

from pathlib import Path

import torch
from torch import Tensor

DTYPES = {torch.float32: 1, torch.float64: 2, torch.int32: 3, torch.int64: 9, torch.bfloat16: 14, torch.float16: 19}
BLOCK, RESTART = 4096, 16  # bytes of a block of the index, entries between two whole keys


def _step(register: int) -> int:
    for _ in range(8):
        register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register


STEPS = [_step(byte) for byte in range(256)]


def checksum(data: bytes) -> int:
    """CRC-32C as it stands in files, a byte at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        register = STEPS[(register ^ byte) & 0xFF] ^ (register >> 8)
    register ^= 0xFFFFFFFF
    return (((register >> 15) | (register << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    found = b""
    while value >= 0x80:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value) if value else b""


def entry(tensor: Tensor, shard: int, offset: int, data: bytes, crc: int | None = None) -> bytes:
    shape = b"".join(field(2, field(1, n)) for n in tensor.shape)
    head = field(1, DTYPES[tensor.dtype]) + field(2, shape) + field(3, shard) + field(4, offset) + field(5, len(data))
    return head + varint(6 << 3 | 5) + (checksum(data) if crc is None else crc).to_bytes(4, "little")


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    data, restarts, before = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % RESTART == 0:
            restarts.append(len(data))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    data += b"".join(r.to_bytes(4, "little") for r in [*restarts, len(restarts)])
    return data


def table(entries: list[tuple[bytes, bytes]]) -> bytes:
    data, index, waiting = b"", [], []

    def write(several: list[tuple[bytes, bytes]]) -> bytes:
        nonlocal data
        content = block(several)
        place = varint(len(data)) + varint(len(content))
        data += content + b"\0" + checksum(content + b"\0").to_bytes(4, "little")
        return place

    for one in sorted(entries):
        waiting.append(one)
        if sum(len(k) + len(v) for k, v in waiting) > BLOCK:
            index.append((waiting[-1][0], write(waiting)))
            waiting = []
    if waiting:
        index.append((waiting[-1][0] + b"\xff", write(waiting)))
    places = write([]) + write(index)
    return data + places.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def write_bundle(prefix: Path, tensors: dict[str, Tensor], *, shards: int = 1, strings: bool = False) -> Path:
    """The `.index` of a checkpoint; tensors go into the shards in turn."""
    files = [b"" for _ in range(shards)]
    entries = [(b"", field(1, shards) + field(3, field(1, 1)))]
    for i, (name, tensor) in enumerate(tensors.items()):
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        shard = i % shards
        entries.append((name.encode(), entry(tensor, shard, len(files[shard]), data)))
        files[shard] += data
    if strings:
        entries.append((b"_OBJECTS", field(1, 7) + field(5, 3)))
    for shard, data in enumerate(files):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(data)
    path = prefix.with_name(f"{prefix.name}.index")
    path.write_bytes(table(entries))
    return path
