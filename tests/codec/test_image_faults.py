"""The faults of an image, one named test each: what is refused says so, what is odd has one defined answer."""

import binascii
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from rebus.codec import image_formats as formats
from rebus.codec.images import ImagePipeline, open_image, open_images
from rebus.core.errors import BadImage, LimitExceeded, MissingExtra, MissingFile, UsageError
from rebus.core.specs import ImageSpec
from tests.codec.pictures import encoded, photo


@pytest.fixture(params=[False, True], ids=["exact", "fast"])
def pipeline(request):
    return ImagePipeline(ImageSpec(size=(32, 32)), fast=request.param, threads=2)


def png(width: int, height: int, bits: int = 8, colour: int = 2, data: bytes = b"\0") -> bytes:
    """A PNG that claims a size, whatever its data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", binascii.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def test_fault_01_empty_file(tmp_path, pipeline):
    good, empty = tmp_path / "good.jpg", tmp_path / "empty.jpg"
    good.write_bytes(encoded(photo(), "JPEG"))
    empty.touch()
    with pytest.raises(BadImage, match=r"empty\.jpg: empty file"):
        open_image(empty)
    with pytest.raises(BadImage, match=r"images\[1\]: .*empty\.jpg: empty file"):
        pipeline([good, empty])
    batch, failures = pipeline.readable([good, empty, good])
    assert batch["pixels"].shape == (2, 3, 32, 32)
    assert batch["pixels"].equal(pipeline([good, good])["pixels"])
    assert list(failures) == [1]
    assert "empty file" in str(failures[1])
    assert len(str(failures[1]).splitlines()) == 1


def test_fault_01_open_images_goes_on_without_the_bad_row():
    pictures, failures = open_images([photo(), b"", photo()], on_error="skip")
    assert [p is None for p in pictures] == [False, True, False]
    assert isinstance(failures[1], BadImage)
    with pytest.raises(BadImage, match=r"images\[1\].*empty"):
        open_images([photo(), b""])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WebP"])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_fault_02_truncated(format, share, pipeline):
    data = encoded(photo(300, 200), format)
    with pytest.raises(BadImage):
        open_image(data[: int(len(data) * share)])
    with pytest.raises(BadImage):
        pipeline([data[: int(len(data) * share)]])


def test_fault_02_truncated_jpeg_says_so_and_can_be_allowed(pipeline):
    data = encoded(photo(300, 200), "JPEG", quality=95)
    half = data[: len(data) // 2]
    with pytest.raises(BadImage, match="ends early"):
        open_image(half)
    whole, kept = (np.asarray(open_image(d, allow_truncated=True)).astype(int) for d in (data, half))
    assert kept.shape == whole.shape
    assert (kept[:40] == whole[:40]).all()  # what came is untouched
    assert (kept[-20:] != whole[-20:]).mean() > 0.9
    lenient = ImagePipeline(pipeline.spec, fast=pipeline.fast, allow_truncated=True)
    assert lenient([half])["pixels"].isfinite().all()
    with pytest.raises(BadImage):  # leniency in one place is leniency there only
        open_image(half)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<!DOCTYPE html><html><head><title>404</title>", "an HTML page"),
        (b"\n\n  <html lang='en'>", "an HTML page"),
        (b'{"error": "not found"}', "a JSON document"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a Git LFS pointer"),
        (b"PK\x03\x04abcd", "a ZIP archive"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "a video"),
        (b"just some words", "text"),
        (b"\x00\x01\x02\x03" * 9, "unknown data"),
    ],
)
def test_fault_03_says_what_it_really_is(tmp_path, data, said):
    path = tmp_path / "cat.jpg"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=rf"cat\.jpg: not an image that can be opened, but {said}"):
        open_image(path)


def test_fault_03_wrong_extension_is_opened_by_its_contents(tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(encoded(photo(), "PNG"))
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(photo()))


def test_fault_04_small_file_of_huge_size_is_refused_before_decoding(pipeline, monkeypatch):
    data = png(13_000, 13_000, bits=1, colour=0, data=bytes(13_000 * (1 + 13_000 // 8)))
    assert len(data) < 30_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(LimitExceeded, match=r"169,000,000 passes the limit MAX_PIXELS = 100,000,000"):
        open_image(data)
    with pytest.raises(LimitExceeded, match=r"60,000 × 60,000 pixels.*MAX_PIXELS"):
        pipeline([png(60_000, 60_000)])
    with pytest.raises(LimitExceeded, match="MAX_SIDE"):
        open_image(png(40_000, 1000))


def test_fault_04_limits_can_be_set(monkeypatch):
    monkeypatch.setenv("REBUS_MAX_PIXELS", "100")
    with pytest.raises(LimitExceeded, match="MAX_PIXELS = 100 "):
        open_image(encoded(photo(), "PNG"))
    with pytest.raises(LimitExceeded, match="MAX_PIXELS = 100 "):
        open_image(photo())
    monkeypatch.setenv("REBUS_MAX_IMAGE_BYTES", "50")
    with pytest.raises(LimitExceeded, match="MAX_IMAGE_BYTES = 50 "):
        open_image(encoded(photo(), "PNG"))
    monkeypatch.setenv("REBUS_MAX_IMAGES", "1")
    with pytest.raises(LimitExceeded, match="MAX_IMAGES = 1 "):
        open_images([photo(), photo()])


def test_fault_04_a_decoders_own_refusal_is_a_limit_too():
    size = (16_383).to_bytes(3, "little")
    data = b"RIFF" + (30).to_bytes(4, "little") + b"WEBPVP8X" + (10).to_bytes(4, "little") + bytes(4) + size + size
    with pytest.raises((LimitExceeded, BadImage)):
        open_image(data)


def test_fault_05_one_pixel_and_long_strips(pipeline):
    assert pipeline([photo(1, 1)])["pixels"].shape == (1, 3, 32, 32)
    assert pipeline([encoded(photo(1, 400), "JPEG")])["pixels"].isfinite().all()
    cropping = ImagePipeline(ImageSpec(size=(8, 8), resize="shorter"), fast=pipeline.fast)
    assert cropping([photo(1, 1), photo(1, 400), photo(400, 1)])["pixels"].shape == (3, 3, 8, 8)
    patches = ImagePipeline(ImageSpec(size=(0, 0), resize="patches", patch_size=4, max_patches=9), fast=pipeline.fast)
    assert patches([photo(1, 1), photo(1, 400)])["grid"].tolist() == [[3, 3], [9, 1]]
    with pytest.raises(LimitExceeded, match="MAX_ASPECT"):
        pipeline([photo(1, 10_000)])
    with pytest.raises(BadImage, match="the image is empty"):
        open_image(Image.new("RGB", (0, 5)))


def test_fault_06_cmyk():
    picture = photo().convert("CMYK")
    opened = open_image(encoded(picture, "JPEG", quality=100))
    assert opened.mode == "RGB"
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(photo())).mean() < 4


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_fault_06_sixteen_bit_grey_is_scaled(format):
    deep = np.linspace(0, 65_535, 64 * 48).round().astype(np.uint16).reshape(48, 64)
    picture = open_image(encoded(Image.fromarray(deep), format))
    grey = np.asarray(picture)
    assert picture.mode == "RGB"
    assert (grey == np.rint(deep / 257)[..., None]).all()
    assert np.array_equal(np.asarray(open_image(deep)), grey)


def test_fault_06_deep_integers_and_floats_out_of_range_are_refused():
    assert np.asarray(open_image(Image.fromarray(np.full((4, 4), 65_535, np.int32)))).min() == 255
    with pytest.raises(BadImage, match="32-bit grey"):
        open_image(Image.fromarray(np.full((4, 4), 70_000, np.int32)))
    assert np.asarray(open_image(Image.fromarray(np.full((4, 4), 0.5, np.float32)))).max() == 128
    with pytest.raises(BadImage, match=r"\[0, 1\]"):
        open_image(Image.fromarray(np.full((4, 4), 99.0, np.float32)))


def palette_with_transparency() -> bytes:
    picture = Image.new("P", (4, 2), 0)
    picture.putpalette([200, 10, 20, 0, 0, 250] + [0] * 750)
    picture.paste(1, (2, 0, 4, 2))
    return encoded(picture, "PNG", transparency=0)


def translucent(mode: str) -> Image.Image:
    bands = [Image.new("L", (4, 2), value) for value in ((200, 10, 20) if mode == "RGBA" else (90,))]
    return Image.merge(mode, [*bands, Image.new("L", (4, 2), 0)])


@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_fault_06_transparency_is_laid_on_white_or_dropped(alpha):
    bare = {"white": (255, 255, 255), "drop": (200, 10, 20)}[alpha]
    assert open_image(palette_with_transparency(), alpha=alpha).getpixel((0, 0)) == bare
    assert open_image(palette_with_transparency(), alpha=alpha).getpixel((3, 1)) == (0, 0, 250)
    assert open_image(translucent("RGBA"), alpha=alpha).getpixel((0, 0)) == bare
    webp = encoded(translucent("RGBA"), "WebP", lossless=True, exact=True)
    assert open_image(webp, alpha=alpha).getpixel((0, 0)) == bare
    grey = {"white": (255, 255, 255), "drop": (90, 90, 90)}[alpha]
    assert open_image(translucent("LA"), alpha=alpha).getpixel((0, 0)) == grey
    assert open_image(encoded(translucent("LA"), "PNG"), alpha=alpha).getpixel((0, 0)) == grey
    coloured = encoded(Image.new("RGB", (4, 2), (200, 10, 20)), "PNG", transparency=(200, 10, 20))
    assert open_image(coloured, alpha=alpha).getpixel((0, 0)) == bare


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "LA", "PA", "RGBA", "RGBX", "YCbCr", "HSV", "RGBa", "La", "I;16", "LAB", "I"]
)
def test_fault_06_every_mode_becomes_rgb(mode, pipeline):
    picture = photo()
    for step in {"RGBa": ["RGBA"], "La": ["LA"], "PA": ["P"], "I;16": ["L"]}.get(mode, []) + [mode]:
        picture = picture.convert(step)
    assert open_image(picture).mode == "RGB"
    assert pipeline([picture])["pixels"].isfinite().all()


@pytest.mark.parametrize("format", ["GIF", "WebP", "PNG", "TIFF"])
def test_fault_06_animations_give_their_first_frame(format):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    pixel = np.array(open_image(data).getpixel((5, 5)))
    assert np.abs(pixel - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP", "TIFF"])
def test_fault_07_exif_orientation(orientation, format):
    upright = photo(64, 48)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that lay the image as a camera would
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WebP": {"lossless": True}}.get(format, {})
    data = encoded(stored, format, exif=exif, **options)
    opened = open_image(data)
    assert opened.size == upright.size
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(upright)).max() <= (6 if format == "JPEG" else 0)
    for spec in (ImageSpec(size=(24, 16)), ImageSpec(size=(20, 20), resize="shorter")):
        alike = ImagePipeline(spec)([data])["pixels"] - ImagePipeline(spec)([opened])["pixels"]
        assert alike.abs().max() == 0
        fast = ImagePipeline(spec, fast=True)([data])["pixels"] - ImagePipeline(spec)([opened])["pixels"]
        assert fast.abs().max() * 127.5 <= 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_fault_07_orientation_out_of_range_and_broken_exif_are_left_as_they_lie():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert open_image(encoded(photo(64, 48), "JPEG", exif=exif)).size == (64, 48)
    assert open_image(encoded(photo(64, 48), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).size == (64, 48)


HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40)
AVIF = b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1avifmiaf" + bytes(40)


def test_fault_08_heic_without_its_plugin_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtra, match=r'HEIC image needs the extra "heic".*pip install "rebus-vlm\[heic\]"'):
        open_image(HEIC)
    with pytest.raises(MissingExtra, match=r"images\[1\]"):
        open_images([photo(), HEIC])


def test_fault_08_avif_without_its_decoder_names_the_extra(monkeypatch):
    monkeypatch.setattr(formats.features, "check", lambda name: False)
    with pytest.raises(MissingExtra, match=r'AVIF image needs the extra "heic"'):
        open_image(AVIF)


def test_fault_08_avif_where_pillow_has_it():
    if not formats.features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert open_image(encoded(photo(64, 48), "AVIF")).size == (64, 48)
    with pytest.raises(BadImage, match="AVIF"):
        open_image(AVIF)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "an EPS or PostScript drawing"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "an EPS drawing"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"<svg width='1'/>", "an SVG drawing"),
        (b"8BPS\x00\x01" + bytes(40), "a Photoshop document"),
        (b"\x00\x00\x01\x00\x01\x00", "an icon"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    ],
)
def test_fault_09_formats_that_are_not_allowed(data, said, pipeline):
    with pytest.raises(BadImage, match=rf"{said}.*Allowed: JPEG, PNG, WebP"):
        pipeline([data])


@pytest.mark.parametrize(
    "address", ["http://example.com/cat.jpg", "HTTPS://x/y", "file:///etc/passwd", "ftp://a/b", "data:text/html,hello"]
)
def test_fault_10_addresses_are_refused(address, pipeline):
    with pytest.raises(BadImage, match=r"a URL .*not downloaded.*give its path"):
        pipeline([address])


def test_missing_files_name_their_neighbours(tmp_path):
    (tmp_path / "kitten.jpg").touch()
    (tmp_path / "dog.png").touch()
    with pytest.raises(MissingFile, match=r"kiten\.jpg: no such file\. Did you mean kitten\.jpg\?"):
        open_image(tmp_path / "kiten.jpg")
    with pytest.raises(MissingFile, match=r"Did you mean kitten\.jpg\?"):
        open_image(tmp_path / "Kitten.JPG")
    with pytest.raises(MissingFile, match="has this name"):
        open_image(tmp_path / "zebra.tiff")
    with pytest.raises(MissingFile, match=r"There is no folder .*nowhere either"):
        open_image(str(tmp_path / "nowhere" / "a.jpg"))
    with pytest.raises(MissingFile):
        open_image("")


def test_folders_devices_and_impossible_names(tmp_path):
    with pytest.raises(BadImage, match="a folder, not an image"):
        open_image(tmp_path)
    with pytest.raises(BadImage, match="a device or a pipe"):
        open_image("/dev/null")
    with pytest.raises(BadImage, match="cannot be read"):
        open_image("a\0b.jpg")
    with pytest.raises(BadImage, match="cannot be read"):
        open_image("x" * 5000)


def test_odd_names_stay_on_one_line_and_can_be_printed(tmp_path):
    path = tmp_path / "two\nlines \udce9.jpg"
    path.touch()
    with pytest.raises(BadImage, match=r"two\\nlines \\udce9\.jpg: empty file") as raised:
        open_image(path)
    str(raised.value).encode()
    path.write_bytes(encoded(photo(), "PNG"))
    assert open_image(path).size == photo().size


def test_things_that_are_no_pictures():
    for thing in (None, 3, ["a.jpg"], {"a": 1}):
        with pytest.raises(BadImage, match="an image is a path"):
            open_image(thing)
    for thing in (None, {"a": photo()}, {1, 2}, (p for p in [photo()])):
        with pytest.raises(UsageError, match="expected a list of images; got"):
            open_images(thing)
    with pytest.raises(UsageError, match=r"Put it in brackets"):
        ImagePipeline(ImageSpec(size=(8, 8)))("cat.jpg")
    with pytest.raises(UsageError):
        ImagePipeline(ImageSpec(size=(8, 8)))(np.zeros((5, 5, 3), np.uint8))


def test_random_damage_never_escapes_as_another_error():
    rng = np.random.default_rng(0)
    refused = 0
    for format in ("JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "PPM"):
        data = np.frombuffer(encoded(photo(), format), np.uint8)
        for _ in range(40):
            spoiled = data.copy()
            spoiled[rng.integers(2, len(data), 6)] = rng.integers(0, 256, 6)
            _, failures = open_images([spoiled.tobytes()], on_error="skip")  # anything but a RebusError would escape
            assert all(isinstance(e, BadImage | LimitExceeded) for e in failures.values())
            refused += len(failures)
    assert refused > 20
