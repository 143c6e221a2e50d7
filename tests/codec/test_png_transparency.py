"""A transparent colour in a PNG, at each depth at which a file can state it (PNG specification, §11.3.2)."""

import binascii
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rebus.codec.images import open_image

WHITE = [255, 255, 255]


def png(samples: list[int], bits: int, colour: int, transparent: list[int]) -> bytes:
    """One row of `samples`, grey (`colour` 0) or RGB (2), and the colour that is transparent."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", binascii.crc32(name + data))

    number = sum(sample << bits * i for i, sample in enumerate(reversed(samples)))
    row = b"\0" + number.to_bytes(len(samples) * bits // 8, "big")
    header = struct.pack(">IIBBBBB", len(samples) // (3 if colour else 1), 1, bits, colour, 0, 0, 0)
    clear = struct.pack(f">{len(transparent)}H", *transparent)
    chunks = [(b"IHDR", header), (b"tRNS", clear), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


def pixels(source: bytes | Image.Image, **options) -> list[list[int]]:
    return np.asarray(open_image(source, **options))[0].tolist()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [0, 1])
def test_grey_of_few_bits(bits, clear):
    samples = [i % 2**bits for i in range(8)]
    data = png(samples, bits, 0, [clear])
    bare = [[sample * 255 // (2**bits - 1)] * 3 for sample in samples]
    laid = [WHITE if sample == clear else pixel for sample, pixel in zip(samples, bare)]
    assert pixels(data) == laid
    assert pixels(data, alpha="drop") == bare
    picture = Image.open(io.BytesIO(data))
    assert pixels(picture) == laid
    assert picture.info["transparency"] == (255 * clear if bits == 1 else clear)  # the caller's image stays as it was


def test_grey_of_16_bits():
    data = png([0, 1000, 1001, 30_000], 16, 0, [1000])
    assert pixels(data) == [[0] * 3, WHITE, [4] * 3, [117] * 3]
    assert pixels(data, alpha="drop") == [[0] * 3, [4] * 3, [4] * 3, [117] * 3]


def test_colours_of_16_bits():
    data = png([30_000, 100, 65_535, 1000, 1001, 1002], 16, 2, [1000, 1001, 1002])
    assert pixels(data) == [[117, 0, 255], WHITE]
    assert pixels(data, alpha="drop") == [[117, 0, 255], [3, 3, 3]]
