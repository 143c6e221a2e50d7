"""A dual encoder on cut-out regions: what is cut out, how it is scored, and the starter on photos."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rebus.backbones.vision.yolo import Candidates
from rebus.core import extras
from rebus.models.distillation.crops import PRESETS, CropDetector

needs_packages = pytest.mark.skipif(not extras.installed("starter"), reason='the extra "starter" is not installed')


class Colours(nn.Module):
    """The mean colour of an image; texts are colours already."""

    def embed_image(self, pixels):
        return F.normalize(pixels.mean(dim=(2, 3)), dim=-1)

    def embed_text(self, tokens, mask=None):
        return F.normalize(tokens, dim=-1)


class Wide(Colours):
    """The same without a space of unit vectors."""

    is_dense = False
    embed_text = None

    def image_vectors(self, pixels):
        return 3 * pixels.mean(dim=(2, 3))

    def text_vectors(self, tokens, mask=None):
        return 5 * tokens

    def score(self, image, text):
        return F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


def built(encoder, boxes, objectness, **settings):
    """A network whose detector always gives these boxes."""
    cfg = replace(PRESETS["tiny"], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), detector_sizes=(64,), **settings)
    network = CropDetector(cfg, encoder=encoder)
    found = Candidates(torch.tensor([boxes]), torch.tensor([objectness]), torch.zeros(1, len(boxes), 3))
    network.detector = lambda pixels: found
    return network


RED, GREEN, BLUE = torch.eye(3)
IMAGE = torch.zeros(3, 80, 80)
IMAGE[0, :, :40], IMAGE[1, :, 40:] = 1, 1  # red on the left, green on the right
LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]


def test_what_is_cut_out_is_the_box_and_its_surroundings_inside_the_image():
    network = built(Colours(), [LEFT], [0.9])
    columns = torch.arange(80.0).expand(3, 80, 80) / 80
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.75], [0.0, 0.0, 1.0, 1.0], [0.999, 0.999, 1.0, 1.0]])
    tight, wide = (network.cut_out(columns, boxes, scale) for scale in (1.0, 2.0))
    assert tight.shape == wide.shape == (3, 3, 16, 16)
    assert tight[0, 0, 0].tolist() == pytest.approx([(20 + 1.25 * i + 0.125) / 80 for i in range(16)], abs=0.01)
    assert (float(wide[0].min()), float(wide[0].max())) == pytest.approx((0.125, 0.625), abs=0.02)
    torch.testing.assert_close(tight[1], wide[1])  # there is nothing beyond the image
    assert tight[2].isfinite().all()  # a pixel at least
