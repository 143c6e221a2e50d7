"""The captioners of photos begin with a whole image encoder and word embeddings, and only the rest learns."""

import pytest
import torch

from rebus import catalog
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.recipes import recipe


@pytest.mark.parametrize("name", ["virtex_photos", "simvlm_photos", "visualgpt_photos"])
def test_what_is_locked_was_trained_before(name):
    config = recipe(name)
    with torch.device("meta"):
        tensors = catalog.system(config.system).build(config.model).state_dict()
        resnet = ResNet(ResNetConfig()).state_dict()
    encoder, words = config.starts[:-1], config.starts[-1]
    filled = {
        start.into + key.removeprefix(start.take) for start in encoder for key in resnet if key.startswith(start.take)
    }
    assert config.freeze == ("image",)
    assert filled == {key for key in tensors if key.startswith("image.")}
    assert tensors[f"{words.into}.weight"].shape[1] == 384, "MiniLM's embeddings"
