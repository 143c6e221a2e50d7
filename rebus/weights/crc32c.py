"""CRC-32C (Castagnoli), which TensorFlow puts beside each tensor, at the speed of NumPy.

The register is linear over the bytes: what a piece contributes is the piece's own register, moved on by as many zero
bytes as follow. So thousands of pieces of equal length are computed in parallel and then joined in pairs.
"""

from functools import cache

import numpy as np

_POLYNOMIAL = 0x82F63B78
_ALL = 0xFFFFFFFF
_PIECES = 2**14

Matrix = np.ndarray  # (32,) uint32: what each bit of the register becomes


def crc32c(data: np.ndarray | bytes | memoryview) -> int:
    """The checksum of bytes, uint8 (n,)."""
    values = np.frombuffer(data, dtype=np.uint8) if not isinstance(data, np.ndarray) else data
    pieces = min(_PIECES, 1 << max(0, len(values) // 64).bit_length())
    length = -(-len(values) // pieces)
    padded = np.zeros(pieces * length, dtype=np.uint8)
    padded[len(padded) - len(values) :] = values  # zeros in front leave an empty register empty
    table, registers = _table(), np.zeros(pieces, dtype=np.uint32)
    for column in np.ascontiguousarray(padded.reshape(pieces, length).T):
        registers = table[(registers ^ column) & 0xFF] ^ (registers >> np.uint32(8))
    zeros = _power(length)
    while len(registers) > 1:
        registers = _apply(zeros, registers[0::2]) ^ registers[1::2]
        zeros = _apply(zeros, zeros)
    start = _apply(_power(len(values)), np.array([_ALL], dtype=np.uint32))
    return int(registers[0] ^ start[0]) ^ _ALL


def masked(checksum: int) -> int:
    """As it stands in a file: turned and moved, so that a checksum over data that holds checksums stays meaningful."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & _ALL


@cache
def _table() -> np.ndarray:
    """(256,) uint32: what a byte leaves in an empty register."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


def _power(number: int) -> Matrix:
    """What `number` zero bytes do to the register."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    result, step = bits, _table()[bits & 0xFF] ^ (bits >> np.uint32(8))
    while number:
        if number & 1:
            result = _apply(step, result)
        step = _apply(step, step)
        number >>= 1
    return result


def _apply(matrix: Matrix, registers: np.ndarray) -> np.ndarray:
    result = np.zeros_like(registers)
    for bit in range(32):
        result ^= np.where((registers >> np.uint32(bit)) & 1, matrix[bit], np.uint32(0))
    return result
