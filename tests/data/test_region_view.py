"""Image, boxes, masks and the teacher's boxes go through one view."""

import numpy as np
import pytest
from PIL import Image

from rebus.data.region_view import View, jittered, whole

WIDTH, HEIGHT = 80, 60
BOX = np.array([[30.0, 20.0, 50.0, 40.0]])
FILL = (9, 9, 9)


def scene():
    """A white square on black, and its mask."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[20:40, 30:50] = True
    return Image.fromarray(np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)), mask


def white_box(pixels):
    """Where the white is, to a pixel."""
    rows, columns = np.nonzero(pixels[:, :, 0] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("seed", range(12))
def test_boxes_and_masks_are_where_the_image_has_their_object(seed):
    image, mask = scene()
    view = jittered(image.size, 64, (0.6, 1.8), True, np.random.default_rng(seed))
    (box,) = view.boxes(BOX)
    pixels = view.image(image, FILL)
    assert pixels.shape == (64, 64, 3)
    if (box[2:] - box[:2] < 3).any():
        return  # out of sight
    assert abs(white_box(pixels) - box).max() <= 1.01
    cells = view.mask(mask, box, 16)
    assert (cells > 250).mean() > 0.95, "the mask fills its box, wherever that was cut"


def test_flips_cuts_and_padding_by_hand():
    """Twice as large, seen from (60, 20) on, mirrored: x' = 64 − (2x − 60), y' = 2y − 20."""
    view = View((WIDTH, HEIGHT), (160, 120), (60, 20), 64, flipped=True)
    assert view.boxes(BOX).tolist() == [[24.0, 20.0, 64.0, 60.0]]
    small = View((WIDTH, HEIGHT), (40, 30), (0, 0), 64, flipped=True)
    assert small.seen == (40, 30)
    assert small.boxes(BOX).tolist() == [[15.0, 10.0, 25.0, 20.0]]
    pixels = small.image(scene()[0], FILL)
    assert (pixels[30:] == 9).all()
    assert (pixels[:, 40:] == 9).all()
    assert white_box(pixels).tolist() == [15, 10, 25, 20]
    assert whole((WIDTH, HEIGHT), 40) == View((WIDTH, HEIGHT), (40, 30), (0, 0), 40)


def test_a_mask_is_mirrored_with_its_box():
    mask = scene()[1].copy()
    mask[20:40, 40:50] = False  # the left half of the box
    view = View((WIDTH, HEIGHT), (WIDTH, HEIGHT), (0, 0), 80, flipped=True)
    (box,) = view.boxes(BOX)
    cells = view.mask(mask, box, 4)
    assert cells.tolist() == [[0, 0, 255, 255]] * 4


def test_half_are_flipped_and_sizes_are_spread():
    views = [jittered((WIDTH, HEIGHT), 64, (0.1, 2.0), True, np.random.default_rng(i)) for i in range(400)]
    assert 0.4 < np.mean([v.flipped for v in views]) < 0.6
    sizes = np.array([v.scaled[0] / 64 for v in views])
    assert sizes.min() < 0.2
    assert sizes.max() > 1.9
    assert abs(sizes.mean() - 1.05) < 0.1
    assert all(0 <= c <= max(0, s - 64) for v in views for c, s in zip(v.corner, v.scaled, strict=True))
    assert not any(jittered((9, 9), 8, (1, 1), False, np.random.default_rng(i)).flipped for i in range(20))


def test_the_thinnest_image_is_seen():
    view = jittered((10_000, 1), 64, (0.1, 0.2), False, np.random.default_rng(0))
    assert view.image(Image.new("RGB", (10_000, 1), "white"), FILL).shape == (64, 64, 3)
