"""Regions as the sum of their crops' vectors, and proposals in pixels of the given image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import rebus
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.region_crops import crop, enlarged
from rebus.core.errors import UnsupportedTask
from rebus.core.outputs import RegionFeatures
from rebus.core.specs import ImageSpec
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
    """Finds three regions, in shares of its image."""

    def region_features(self, pixels, num_regions=36):
        boxes = torch.tensor([[0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0], [0.0, 0.6, 1.0, 0.9]])[:num_regions]
        return [RegionFeatures(boxes, torch.zeros(len(boxes), 1), torch.ones(len(boxes)))]


@pytest.mark.parametrize(
    "spec, wanted",
    [
        (ImageSpec(size=(80, 80)), [[100, 0, 200, 50], [0, 0, 200, 100]]),
        # On a square canvas the image fills the upper half: of the first box the whole, of the last nothing.
        (ImageSpec(size=(80, 80), resize="longer", pad="end"), [[100, 0, 200, 100], [0, 0, 200, 100]]),
    ],
    ids=["stretched", "padded"],
)
def test_proposals_are_in_pixels_of_the_image(clip, spec, wanted):
    model = SimpleNamespace(
        network=Prominent(),
        processor=Processor(ImagePipeline(spec), None),
        device=torch.device("cpu"),
        dtype=torch.float32,
        system=clip.system,
    )
    image = Image.new("RGB", (200, 100))
    assert propose_regions(model, image, 300).tolist()[:2] == wanted
    assert len(propose_regions(model, image, 300)) == (3 if spec.pad is None else 2)
    assert propose_regions(model, image, 1).tolist() == wanted[:1]


def test_who_finds_no_regions_proposes_none(clip):
    with pytest.raises(UnsupportedTask, match="clip finds no regions"):
        propose_regions(clip, Image.new("RGB", (20, 10)), 5)
