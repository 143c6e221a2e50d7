import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rebus.codec import resize
from rebus.codec.images import ImagePipeline, open_image, open_images
from rebus.core.errors import BadConfig, BadImage, UsageError
from rebus.core.specs import ImageSpec
from tests.codec.pictures import encoded, photo

SQUASH = ImageSpec(size=(24, 32))
CROP = ImageSpec(size=(24, 24), resize="shorter")
NAFLEX = ImageSpec(size=(0, 0), resize="patches", resample="bilinear", patch_size=4, max_patches=20)


def sources(tmp_path):
    """One image in every form that is accepted."""
    picture = photo(50, 40)
    path = tmp_path / "picture.png"
    picture.save(path)
    pixels = np.asarray(picture)
    return {
        "str": str(path),
        "path": path,
        "bytes": path.read_bytes(),
        "bytearray": bytearray(path.read_bytes()),
        "PIL": picture,
        "array": pixels,
        "array, not contiguous": np.asfortranarray(pixels),
        "array of floats": pixels / 255,
        "tensor": torch.from_numpy(pixels / 255).permute(2, 0, 1).float(),
        "tensor of bytes": torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        "half tensor with a gradient": (torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255).requires_grad_(),
    }


@pytest.mark.parametrize("spec", [SQUASH, CROP, NAFLEX], ids=["squash", "crop", "naflex"])
def test_every_kind_of_source_gives_the_same_tensor(tmp_path, spec):
    every = sources(tmp_path)
    batch = ImagePipeline(spec)(list(every.values()))
    for name, row in zip(every, batch["pixels"], strict=True):
        assert row.equal(batch["pixels"][0]), name
        assert open_image(every[name]).size == (50, 40), name


def test_grey_arrays_and_tensors():
    grey = np.asarray(photo(50, 40).convert("L"))
    want = ImagePipeline(SQUASH)([photo(50, 40).convert("L")])["pixels"]
    for source in (grey, grey[..., None], torch.from_numpy(grey.copy())[None], np.repeat(grey[..., None], 3, axis=2)):
        assert ImagePipeline(SQUASH)([source])["pixels"].equal(want)
    assert (np.asarray(open_image(grey > 100)) == np.where(grey > 100, 255, 0)[..., None]).all()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((3, 9, 9), np.uint8), "arrays are"),
        (np.zeros((9, 9, 5), np.uint8), "1 to 4 channels"),
        (np.zeros(9, np.uint8), r"\(H, W\)"),
        (np.zeros((0, 9, 3), np.uint8), "the image is empty"),
        (np.zeros((9, 9, 3), np.int64), r"must be uint8; got int64.*astype"),
        (np.full((9, 9, 3), 255.0), r"\[0, 1\]; got 255 to 255"),
        (np.full((9, 9, 3), np.nan), r"\[0, 1\]"),
        (torch.zeros(9, 9, 3), r"\(3, H, W\)"),
        (torch.full((3, 9, 9), 1.5), r"\[0, 1\]; got 1.5.*before normalisation"),
        (torch.full((3, 9, 9), float("nan")), r"\[0, 1\]"),
        (torch.zeros(3, 9, 9, dtype=torch.int64), r"floats in \[0, 1\]; got torch.int64"),
    ],
)
def test_arrays_and_tensors_that_are_refused(source, said):
    with pytest.raises(BadImage, match=said):
        open_image(source)


def test_pictures_given_are_left_as_they_were():
    picture = photo(50, 40).convert("RGBA")
    picture.info["transparency"] = None
    before = (picture.mode, picture.size, picture.tobytes(), dict(picture.info))
    ImagePipeline(CROP, fast=True)([picture])
    assert (picture.mode, picture.size, picture.tobytes(), dict(picture.info)) == before


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("spec", [SQUASH, CROP, NAFLEX], ids=["squash", "crop", "naflex"])
def test_a_batch_changes_nothing_and_threads_neither(spec, fast):
    pictures = [encoded(photo(90 + 7 * i, 60 + 5 * i, seed=i), "JPEG") for i in range(5)]
    many = ImagePipeline(spec, fast=fast, threads=3)(pictures)
    for i, picture in enumerate(pictures):
        alone = ImagePipeline(spec, fast=fast, threads=1)([picture])
        assert all(alone[name][0].equal(rows[i]) for name, rows in many.items())


def test_no_pictures_make_an_empty_batch():
    assert ImagePipeline(SQUASH)([])["pixels"].shape == (0, 3, 24, 32)
    assert open_images([]) == ([], {})


def test_an_array_of_pictures_is_a_list_of_them():
    batch = np.stack([np.asarray(photo(50, 40, seed=i)) for i in range(3)])
    assert ImagePipeline(SQUASH)(batch)["pixels"].equal(ImagePipeline(SQUASH)(list(batch))["pixels"])


def test_values_are_normalised_channel_by_channel():
    spec = ImageSpec(size=(2, 2), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    pixels = ImagePipeline(spec)([Image.new("RGB", (5, 5), (0, 51, 255))])["pixels"][0]
    assert pixels[:, 0, 0].tolist() == pytest.approx([-0.2, 0.0, 5.6], abs=1e-6)


@pytest.mark.parametrize(("offset", "left"), [("down", 1), ("even", 2)])
def test_odd_margins(offset, left):
    picture = np.zeros((4, 7, 3), np.uint8)
    picture[:, left] = 255  # 7 - 4 = 3: a margin of 1.5
    spec = ImageSpec(size=(4, 4), resize="shorter", crop_offset=offset, mean=(0, 0, 0), std=(1, 1, 1))
    assert ImagePipeline(spec)([picture])["pixels"][0, 0, 0].tolist() == [1, 0, 0, 0]


def padded(**fields) -> list[list[float]]:
    """The red values of a white image of 2 × 4 in a square of 4."""
    spec = ImageSpec(size=(4, 4), resize="longer", mean=(0.25, 0, 0), std=(1, 1, 1), resample="nearest", **fields)
    return ImagePipeline(spec)([np.full((2, 4, 3), 255, np.uint8)])["pixels"][0, 0].tolist()


def test_what_is_smaller_is_padded():
    white, blank, dark = [0.75] * 4, [0.0] * 4, [-0.25] * 4
    assert padded(pad="end") == [white, white, blank, blank]
    assert padded(pad="centre") == [blank, white, white, blank]
    assert padded(pad="centre", pad_colour=(0, 255, 255)) == [dark, white, white, dark]
    assert padded(pad="end", side=2) == [[0.75, 0.75, 0, 0], blank, blank, blank]


@pytest.mark.parametrize("size", [(9, 6), (40, 31), (20, 11)])
def test_tensorflow_1_reads_a_pixel_at_its_number_times_the_ratio(size):
    width, height = size
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    spec = ImageSpec(size=(20, 20), resize="longer", rounding="even", pad="end", resample="bilinear_tf1")
    found = ImagePipeline(spec, fast=True)([image])["pixels"][0]
    wide, high = 20, round(height * 20 / width)
    normal = (image / 255 - 0.5) / 0.5
    for row in (0, 1, high // 2, high - 1):
        for column in (0, 3, 18, 19):
            y, x = row * height / high, column * width / wide
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            up = normal[top, left] + (normal[top, right] - normal[top, left]) * (x - left)
            down = normal[bottom, left] + (normal[bottom, right] - normal[bottom, left]) * (x - left)
            assert found[:, row, column].tolist() == pytest.approx((up + (down - up) * (y - top)).tolist(), abs=1e-5)
    assert found.shape == (3, 20, 20)
    assert not found[:, high:].any()


@pytest.mark.parametrize(("rounding", "other"), [("down", 12), ("even", 12), ("up", 13)])
def test_the_other_side_is_rounded_as_the_reference_rounds(rounding, other):
    longer = ImageSpec(size=(20, 20), resize="longer", pad="end", rounding=rounding)
    assert resize.resized(longer, 40, 25) == (20, other)  # 12.5
    assert resize.resized(longer, 25, 40) == (other, 20)
    assert resize.resized(longer, 4000, 1) == (20, 1)


def test_exactly_resized_and_cut():
    spec = ImageSpec(size=(8, 10), side=16)
    assert resize.resized(spec, 33, 20) == (16, 16)
    whole = ImagePipeline(ImageSpec(size=(16, 16)))([photo(33, 20)])["pixels"]
    assert ImagePipeline(spec)([photo(33, 20)])["pixels"].equal(whole[..., 4:12, 3:13])


def test_shorter_side_larger_than_the_crop():
    spec = ImageSpec(size=(8, 10), resize="shorter", side=16)
    assert resize.resized(spec, 33, 20) == (26, 16)
    assert resize.resized(spec, 20, 33) == (16, 26)
    assert ImagePipeline(spec)([photo(33, 20)])["pixels"].shape == (1, 3, 8, 10)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ImageSpec(size=(0, 8)), "at least 1"),
        (ImageSpec(size=(8, 8), resize="patches"), "patch_size and max_patches"),
        (ImageSpec(size=(8, 16), resize="shorter"), "does not fit"),
        (ImageSpec(size=(8, 8), resize="shorter", side=4), "does not fit"),
        (ImageSpec(size=(8, 8), side=4), "does not fit"),
        (ImageSpec(size=(8, 8), resize="longer"), "must be padded"),
        (ImageSpec(size=(8, 16), resize="longer", pad="end"), "longer side of 16 pixels"),
        (ImageSpec(size=(8, 8), resize="shorter", pad="end"), 'padded where resize is "longer"'),
        (ImageSpec(size=(8, 8), std=(1, 0, 1)), "std"),
    ],
)
def test_impossible_specs_are_refused(spec, said):
    with pytest.raises(BadConfig, match=said):
        ImagePipeline(spec)


def test_threads_must_be_counted():
    with pytest.raises(UsageError, match="threads"):
        ImagePipeline(SQUASH, threads=0)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 32), st.integers(1, 400))
def test_naflex_grids_hold_the_most_patches_that_fit(width, height, patch, most):
    rows, columns = resize.naflex_grid(width, height, patch, most)
    assert rows >= 1
    assert columns >= 1
    if max(width, height) <= 200 * min(width, height):
        assert rows * columns <= max(most, max(rows, columns))  # one row or column is the least
    if min(rows, columns) > 3:
        assert rows / columns == pytest.approx(height / width, rel=0.6)


def test_naflex_patches_are_square_and_masked():
    batch = ImagePipeline(NAFLEX)([photo(80, 40), photo(20, 60)])
    assert batch["pixels"].shape == (2, 20, 48)
    assert batch["grid"].tolist() == [[3, 6], [6, 2]]
    assert batch["patch_mask"].sum(dim=1).tolist() == [18, 12]
    assert batch["pixels"][~batch["patch_mask"]].abs().sum() == 0
    whole = np.asarray(photo(80, 40).resize((24, 12), Image.Resampling.BILINEAR)) / 127.5 - 1
    rows, columns = 1, 2  # the patch in row 1, column 2
    wanted = torch.from_numpy(whole[4 * rows : 4 * rows + 4, 4 * columns : 4 * columns + 4]).flatten()
    assert torch.allclose(batch["pixels"][0, rows * 6 + columns].double(), wanted, atol=1e-6)


@pytest.mark.parametrize(
    "how", [{}, {"resize": "shorter"}, {"resize": "longer", "pad": "centre"}], ids=["exact", "shorter", "longer"]
)
@pytest.mark.parametrize("size", [(640, 480), (641, 483), (479, 601), (100, 80), (33, 900)])
def test_the_fast_path_stays_close(how, size):
    spec = ImageSpec(size=(56, 56), **how)
    data = encoded(photo(*size), "JPEG", quality=92)
    drift = (ImagePipeline(spec, fast=True)([data])["pixels"] - ImagePipeline(spec)([data])["pixels"]).abs() * 127.5
    assert drift.mean() < 0.6
    assert drift.max() < 9
    lossless = encoded(photo(*size), "PNG")
    drift = (ImagePipeline(spec, fast=True)([lossless])["pixels"] - ImagePipeline(spec)([lossless])["pixels"]).abs()
    assert drift.max() * 127.5 < 2.01


def test_the_fast_path_decodes_no_more_than_it_needs(monkeypatch):
    seen = []
    monkeypatch.setattr(resize, "fast", lambda decoded, spec: seen.append(decoded) or np.zeros((24, 32, 3), np.uint8))
    ImagePipeline(SQUASH, fast=True)([encoded(photo(801, 603), "JPEG")])
    assert seen[0].image.size == (101, 76)  # an eighth, and at least twice 32 × 24
    assert seen[0].box == (0, 0, 801 / 8, 603 / 8)
    assert seen[0].full_size == (801, 603)


def test_pipelines_can_be_pickled_for_workers():
    import pickle

    again = pickle.loads(pickle.dumps(ImagePipeline(CROP, fast=True)))
    assert again([photo()])["pixels"].equal(ImagePipeline(CROP, fast=True)([photo()])["pixels"])


def photo_on_its_side(orientation: int) -> Image.Image:
    """As a phone writes it: 64 × 48 stored, its size and how it is to be turned in the EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({0xA002: 64, 0xA003: 48})
    return Image.open(io.BytesIO(encoded(photo(64, 48), "JPEG", exif=exif)))


def test_a_picture_that_was_turned_by_hand_is_not_turned_again():
    picture = photo_on_its_side(6)
    by_hand = picture.transpose(Image.Transpose.ROTATE_270)
    assert by_hand.getexif()[0x0112] == 6  # Pillow copies it along
    assert open_image(by_hand).tobytes() == by_hand.tobytes()
    assert open_image(picture).tobytes() == by_hand.tobytes()
    small = picture.resize((32, 24)).rotate(-90, expand=True)
    assert open_image(small).size == (24, 32)


def test_a_picture_that_was_only_converted_is_still_turned():
    assert open_image(photo_on_its_side(6).convert("RGB")).size == (48, 64)
    assert open_image(photo_on_its_side(8).resize((32, 24))).size == (24, 32)
