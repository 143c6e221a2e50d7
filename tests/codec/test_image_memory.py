"""Fault 34: images below the pixel limit whose decoding would take gigabytes, alone or together."""

import io
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from rebus.codec import convert_to_rgb
from rebus.codec.convert_to_rgb import to_rgb
from rebus.codec.images import ImagePipeline, open_image, open_images
from rebus.core.errors import LimitExceeded
from rebus.core.memory_budget import MemoryBudget
from rebus.core.specs import ImageSpec
from tests.codec.pictures import encoded, photo

BOMBS = """
import io, resource, sys
from PIL import Image
from rebus.codec.images import ImagePipeline, open_image
from rebus.core.specs import ImageSpec

file = io.BytesIO()
Image.new("P", (3000, 3000)).save(file, "PNG", transparency=0)
assert len(file.getvalue()) < 20_000
pipeline = ImagePipeline(ImageSpec(size=(32, 32)), threads=6)
pipeline([Image.new("RGBA", (300, 200))] * 2)
megabytes = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = megabytes()
open_image(file.getvalue())
one = megabytes() - before
pipeline([file.getvalue()] * 6)
print(one, megabytes() - before)
"""


def test_fault_34_a_palette_with_transparency_and_six_of_them(monkeypatch):
    monkeypatch.setenv("REBUS_MAX_IMAGE_MEMORY", "200000000")
    done = subprocess.run([sys.executable, "-c", BOMBS], capture_output=True, text=True, check=True, timeout=120)
    one, six = map(int, done.stdout.split())
    assert one < 75, "nine million pixels: one byte each for the palette, four for RGB, and a strip"
    assert six < 300, "two at a time, and what the allocator keeps"


def test_fault_34_an_image_larger_than_the_budget_is_refused(monkeypatch):
    data = encoded(photo(300, 200), "PNG")
    monkeypatch.setenv("REBUS_MAX_IMAGE_MEMORY", "100000")
    with pytest.raises(LimitExceeded, match="MAX_IMAGE_MEMORY = 100,000"):
        open_image(data)
    batch, failures = ImagePipeline(ImageSpec(size=(8, 8))).readable([data, encoded(photo(30, 20), "PNG")])
    assert list(failures) == [0]
    assert len(batch["pixels"]) == 1


def test_fault_34_images_that_are_held_open_together(monkeypatch):
    data = encoded(photo(100, 100), "PNG")
    monkeypatch.setenv("REBUS_MAX_IMAGE_MEMORY", "150000")  # each takes 120,000 to decode, 40,000 to keep
    assert len(open_images([data] * 3)[0]) == 3
    for on_error in ("raise", "skip"):
        with pytest.raises(LimitExceeded, match="opened at once, give fewer"):
            open_images([data] * 4, on_error)


def test_the_budget_is_shared_and_given_back(monkeypatch):
    monkeypatch.setenv("REBUS_MAX_IMAGE_MEMORY", "10")
    budget, most, running, lock = MemoryBudget("MAX_IMAGE_MEMORY"), 0, 0, threading.Lock()

    def work():
        nonlocal most, running
        with budget.held(4, "it"):
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            with lock:
                running -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 2
    with pytest.raises(ZeroDivisionError), budget.held(10, "it"):
        raise ZeroDivisionError
    with budget.held(10, "it"):
        pass


@pytest.mark.parametrize("mode", ["P", "PA", "LA", "RGBA", "La", "RGBa", "CMYK", "L", "1", "I", "I;16", "F"])
@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_strips_give_the_same_bytes_as_the_whole(mode, alpha, monkeypatch):
    rng = np.random.default_rng(0)
    if mode in ("I", "I;16"):
        picture = Image.fromarray(rng.integers(0, 65536, (23, 17), dtype=np.uint16))
        picture = picture.convert("I") if mode == "I" else picture
    elif mode == "F":
        picture = Image.fromarray(rng.random((23, 17), dtype=np.float32))
    else:
        picture = Image.fromarray(rng.integers(0, 256, (23, 17, 4), dtype=np.uint8))
        if mode == "P":
            file = io.BytesIO()
            picture.convert("RGB").quantize(64).save(file, "PNG", transparency=bytes(range(64)))
            picture = Image.open(file)
        elif mode == "La":
            picture = picture.convert("LA").convert("La")
        else:
            picture = picture.convert("RGB").convert(mode) if mode in ("CMYK", "L", "1") else picture.convert(mode)
    assert picture.mode == mode
    whole = to_rgb(picture, alpha, "it")
    monkeypatch.setattr(convert_to_rgb, "_STRIP", 17 * 5)
    strips = to_rgb(picture, alpha, "it")
    assert strips.tobytes() == whole.tobytes()
    assert strips.info == whole.info
