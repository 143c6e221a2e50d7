"""Drawings: the image itself stays, marks are where they belong, odd boxes do no harm."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from rebus.core import fonts
from rebus.core.answers import Box, Mask
from rebus.core.errors import UsageError
from rebus.core.fonts import font_for
from rebus.tasks.draw import draw_boxes, draw_masks, encoded


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 90, 90))


def test_a_box_is_drawn_on_its_edge_and_nowhere_inside():
    picture = grey(640, 480)
    drawn = np.asarray(draw_boxes(picture, [Box((200, 200, 400, 400), "cat", 0.9)]))
    changed = (drawn != 90).any(axis=2)
    assert changed[202, 300]
    assert changed[300, 398]
    assert not changed[220:380, 220:380].any()
    assert np.asarray(picture).max() == 90


def test_small_pictures_are_enlarged_by_whole_numbers():
    drawn = draw_boxes(grey(96, 48), [Box((0, 0, 96, 48), "all", 1.0)])
    assert drawn.size == (96 * 4, 48 * 4)


@pytest.mark.parametrize(
    "xyxy", [(-50, -50, 5000, 5000), (10, 10, 10, 10), (400, 300, 20, 10), (639, 479, 640, 480)], ids=str
)
def test_boxes_outside_empty_or_reversed_are_drawn_without_fault(xyxy):
    assert draw_boxes(grey(640, 480), [Box(xyxy, "a very long label " * 5, 0.5)]).size == (640, 480)


def test_labels_of_crowded_boxes_do_not_cover_each_other():
    boxes = [Box((100, 100 + i, 300, 200 + i), "cat", 0.9) for i in range(3)]
    assert draw_boxes(grey(640, 480), boxes).size == (640, 480)


def test_a_mask_is_tinted_inside_only():
    inside = np.zeros((480, 640), bool)
    inside[200:300, 200:300] = True
    mask = Mask(inside, (200, 200, 300, 300), "square", 0.9)
    drawn = np.asarray(draw_masks(grey(640, 480), [mask]))
    changed = (drawn != 90).any(axis=2)
    assert changed[200:300, 200:300].all()
    assert not changed[310:, :].any()
    assert not changed[:, 420:].any()


def test_an_empty_mask_and_no_mask():
    nothing = Mask(np.zeros((48, 64), bool), (0, 0, 0, 0), "nothing", 0.1)
    assert draw_masks(grey(64, 48), [nothing]).size == (320, 240)
    assert draw_masks(grey(640, 480), []).size == (640, 480)


@pytest.mark.parametrize("ending, form", [(".png", "PNG"), (".JPG", "JPEG"), (".webp", "WEBP")])
def test_the_ending_says_the_format(ending, form):
    with Image.open(io.BytesIO(encoded(grey(8, 8), ending))) as picture:
        assert picture.format == form


def test_another_ending_is_wrong_usage():
    with pytest.raises(UsageError, match=r"got \.bmp"):
        encoded(grey(8, 8), ".bmp")


@pytest.mark.parametrize("label", ["café", "кот", "犬", "고양이"])
def test_labels_beyond_latin_are_drawn(label, caplog):
    with caplog.at_level(logging.WARNING, "rebus"):
        font = font_for(label, 32)
        drawn = draw_boxes(grey(640, 480), [Box((200, 200, 400, 400), label, 0.9)])
    assert not caplog.records
    nothing = bytes(font.getmask("\U0010ffff"))
    assert all(bytes(font.getmask(character)) != nothing for character in label)
    other = draw_boxes(grey(640, 480), [Box((200, 200, 400, 400), "\U0010ffff" * len(label), 0.9)])
    assert drawn != other


def test_text_that_no_font_has_is_said(caplog, monkeypatch):
    monkeypatch.setattr(fonts, "_PACKAGED", ())
    fonts._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "rebus"):
        font_for("a 犬", 32)
        font_for("a 犬", 16)
    assert [record.getMessage() for record in caplog.records] == [
        'no font on this machine has 犬, drawn as boxes. Install some: pip install "rebus-vlm[fonts]"'
    ]
