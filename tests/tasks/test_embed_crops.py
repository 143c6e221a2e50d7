"""Regions as the sum of their crops' vectors, and proposals in pixels of the given image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import rebus
from rebus.codec.region_crops import crop, enlarged
from rebus.core.errors import UnsupportedTask
from rebus.core.outputs import RegionFeatures
from rebus.data.scenes import scene
from rebus.tasks.embed_crops import embed_crops, propose_regions


@pytest.fixture(scope="module")
def clip():
    return rebus.load("clip/scenes", device="cpu")


def test_a_region_is_the_sum_of_two_crops(clip):
    image, boxes = scene(3).image, np.array(scene(3).boxes, dtype=np.float32)
    found = embed_crops(clip, image, boxes)
    for box, vector in zip(boxes, found, strict=True):
        left, top, right, bottom = box.tolist()
        low = (1.25 * left - 0.25 * right, 1.25 * top - 0.25 * bottom)
        high = (1.25 * right - 0.25 * left, 1.25 * bottom - 0.25 * top)
        crops = [crop(image, box.tolist()), crop(image, (*low, *high))]
        total = clip.embed_images(crops).sum(dim=0)
        np.testing.assert_allclose(vector, total / total.norm(), atol=1e-5)
    assert embed_crops(clip, image, boxes[:0]).shape == (0, found.shape[1])


def test_boxes_are_enlarged_about_their_centre_and_cut_to_the_image():
    box = torch.tensor([10.0, 20.0, 30.0, 60.0])
    assert enlarged(box, 1.5).tolist() == [5, 10, 35, 70]
    assert enlarged(box, 1.0).tolist() == box.tolist()
    image = Image.new("RGB", (40, 40))
    assert crop(image, (5, 10, 35, 70)).size == (30, 30)
    assert crop(image, (3.2, 3.9, 4.1, 4.05)).size == (2, 2), "every pixel that is touched"
    assert crop(image, (-9, -9, -3, -3)).size == (1, 1)
    assert crop(image, (39.5, 39.5, 99, 99)).size == (1, 1)


class Prominent:
    """Finds two regions, in shares of its image."""

    def region_features(self, pixels, num_regions=36):
        boxes = torch.tensor([[0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]])[:num_regions]
        return [RegionFeatures(boxes, torch.zeros(len(boxes), 1), torch.ones(len(boxes)))]


def test_proposals_are_in_pixels_of_the_image(clip):
    model = SimpleNamespace(
        network=Prominent(),
        processor=clip.processor,
        device=torch.device("cpu"),
        dtype=torch.float32,
        system=clip.system,
    )
    image = Image.new("RGB", (200, 100))
    assert propose_regions(model, image, 300).tolist() == [[100, 0, 200, 50], [0, 0, 200, 100]]
    assert propose_regions(model, image, 1).tolist() == [[100, 0, 200, 50]]
    with pytest.raises(UnsupportedTask, match="clip finds no regions"):
        propose_regions(clip, image, 5)
