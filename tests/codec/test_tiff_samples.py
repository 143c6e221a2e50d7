"""TIFFs of other samples than 8-bit black-is-zero: the brightness that the tags say, or a refusal (TIFF 6.0)."""

import contextlib
import io
import struct

import numpy as np
import pytest
from PIL import Image

from rebus.codec.decode_image import open_image
from rebus.core.errors import BadImage


def tiff(bits: int, data: bytes, *, white_is_zero: bool = False, sample_format: int = 1) -> bytes:
    """Three grey pixels in one strip."""
    tags = {256: 3, 257: 1, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8 + 2 + 10 * 12 + 4, 277: 1, 278: 1}
    tags |= {279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, v) for tag, v in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def greys(data: bytes) -> list[int]:
    return np.asarray(open_image(data))[0, :, 0].tolist()


DEEP = np.array([0, 16_448, 65_535], "<u2").tobytes()
FLOAT = np.array([0, 0.2, 1], "<f4").tobytes()
TWELVE = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0])  # 0, 2048, 4095


@pytest.mark.parametrize(
    ("bits", "data", "settings", "seen"),
    [
        (16, DEEP, {}, [0, 64, 255]),
        (16, DEEP, {"white_is_zero": True}, [255, 191, 0]),
        (32, FLOAT, {"sample_format": 3}, [0, 51, 255]),
        (32, FLOAT, {"sample_format": 3, "white_is_zero": True}, [255, 204, 0]),
        (12, TWELVE, {}, [0, 128, 255]),
        (8, bytes([0, 64, 255]), {"white_is_zero": True}, [255, 191, 0]),
        (4, bytes([0x07, 0xF0]), {"white_is_zero": True}, [255, 136, 0]),
    ],
)
def test_brightness_is_what_the_tags_say(bits: int, data: bytes, settings: dict, seen: list[int]) -> None:
    assert greys(tiff(bits, data, **settings)) == seen


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize(("bits", "data"), [(8, bytes([128, 0, 127])), (16, np.array([-5, 0, 7], "<i2").tobytes())])
def test_signed_samples_are_refused(bits: int, data: bytes, white_is_zero: bool) -> None:
    with pytest.raises(BadImage):
        greys(tiff(bits, data, sample_format=2, white_is_zero=white_is_zero))


@pytest.mark.parametrize("compression", ["packbits", "tiff_lzw", "tiff_adobe_deflate"])
def test_what_libtiff_finds_wrong_stays_off_the_terminal(compression, capfd):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "TIFF", compression=compression)
    data = bytearray(file.getvalue())
    data[2000:2060] = bytes(range(60))
    with contextlib.suppress(BadImage):
        open_image(bytes(data))
    assert capfd.readouterr().err == ""
