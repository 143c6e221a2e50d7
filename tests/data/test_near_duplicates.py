"""What an image looks like in 64 bits, and which images look alike."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from rebus.core.errors import UsageError
from rebus.data.near_duplicates import MOST_BITS, Looks, look_of, looks_of
from rebus.data.record import Record
from tests.data.test_filters import Listed


@pytest.fixture(scope="module")
def photos(shared):
    files = sorted((shared / "flickr8k_1k" / "images").iterdir())[:60]
    assert len(files) == 60
    return files


def apart(one: int, other: int) -> int:
    return bin(one ^ other).count("1")


def test_it_is_the_hash_of_the_imagehash_package():
    """`imagehash.phash` of version 4.3.2 for the same pixels."""
    draws = random.Random(0)
    pixels = bytes(draws.randrange(256) for _ in range(7 * 5 * 3))
    image = Image.frombytes("RGB", (7, 5), pixels).resize((40, 28), Image.Resampling.BICUBIC)
    assert f"{look_of(image):016x}" == "f4e36c84fe78007a"


def test_plain_images_look_alike_and_not_by_chance():
    looks = {look_of(Image.new("RGB", size, colour)) for size in ((9, 9), (64, 30)) for colour in ("white", "#5a7a33")}
    assert looks == {1 << 63}


def test_other_sizes_and_qualities_look_alike_and_other_photos_do_not(photos):
    looks = [look_of(photo) for photo in photos]
    assert min(apart(a, b) for i, a in enumerate(looks) for b in looks[:i]) > MOST_BITS
    known = Looks(np.array(looks[::2], dtype=np.uint64))
    for n, photo in enumerate(photos):
        with Image.open(photo) as image:
            data = io.BytesIO()
            image.resize((image.width // 2, 120)).save(data, "JPEG", quality=40)
        assert known.has(data.getvalue()) == (n % 2 == 0)


def test_a_data_set_without_images_is_nothing_to_compare_with():
    with pytest.raises(UsageError, match="none of the images to compare with could be read"):
        looks_of([Listed((Record(key="a", captions=("x",)), None))])


def test_each_image_is_looked_at_once_and_told():
    image, told = np.full((4, 4, 3), 200, np.uint8), []
    found = looks_of([Listed((Record(key="a", image=image), Record(key="b", image=image)))] * 2, lambda: told.append(1))
    assert (len(told), found.bits.tolist(), found.damaged) == (4, [1 << 63], 0)
