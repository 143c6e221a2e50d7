"""What `benchmarks/photo_captions.py` begins with: a Keras ResNet in torchvision's names, and word pieces of MiniLM."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks.keras_resnet import EPS, MEAN, converted
from benchmarks.photo_captions import SPECIAL, Remembered, RememberedTexts, write_words
from rebus.backbones.text import llama_layouts
from rebus.backbones.text.llama import Llama
from rebus.backbones.vision.resnet import ResNet, ResNetConfig, image_spec
from rebus.codec.tokenizers import load_tokenizer
from rebus.core import extras
from rebus.open_checkpoint import open_checkpoint


class Theirs(dict):
    """Random weights under any of Keras' names."""

    def __missing__(self, name):
        shape = (2, 2) if name == "fc1000/kernel" else (1, 1, 2, 2) if name.endswith("kernel") else (2,)
        self[name] = torch.rand(shape) + 0.5
        return self[name]


def test_the_stem_of_keras_takes_our_pixels():
    torch.manual_seed(0)
    theirs = Theirs({"conv1/kernel": torch.randn(7, 7, 3, 2)})
    ours = converted(theirs)
    image = torch.rand(1, 3, 30, 30) * 255
    spec = image_spec(ResNetConfig())
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    norm = [ours[f"bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    got = F.batch_norm(F.conv2d((image / 255 - mean) / std, ours["conv1.weight"], stride=2), *norm, eps=1e-5)
    blue_first = (image - MEAN[:, None, None]).flip(1)
    x = F.conv2d(blue_first, theirs["conv1/kernel"].permute(3, 2, 0, 1), theirs["conv1/bias"], stride=2)
    norm = [theirs[f"bn_conv1/{name}"] for name in ("moving_mean", "moving_variance", "gamma", "beta")]
    torch.testing.assert_close(got, F.batch_norm(x, *norm, eps=EPS), rtol=1e-4, atol=1e-3)


def test_the_names_are_those_of_resnet_50():
    with torch.device("meta"):
        wanted = ResNet(ResNetConfig()).net.state_dict()
    assert converted(Theirs({"conv1/kernel": torch.randn(7, 7, 3, 2)})).keys() == wanted.keys()


def test_an_image_that_was_seen_is_not_looked_at_again():
    torch.manual_seed(0)
    network = ResNet(ResNetConfig(variant="resnet18", num_classes=0, depths=(1, 1, 1, 1), channels=(4, 4, 4, 4))).eval()
    pixels, seen = torch.randn(3, 3, 32, 32), []
    network.net.conv1.register_forward_hook(lambda *call: seen.append(len(call[1][0])))
    with torch.no_grad():
        wanted = network.feature_map(pixels)
        with Remembered():
            network.feature_map(pixels[:2])
            got = network.feature_map(pixels)
        network.feature_map(pixels)
    torch.testing.assert_close(got, wanted)
    assert seen == [3, 2, 1, 3]


@torch.no_grad()
def test_a_text_that_was_read_is_not_read_again():
    """By the blocks that are remembered; with padding, and beside texts that are new."""
    torch.manual_seed(0)
    network, read = Llama(llama_layouts.PRESETS["tiny"]).eval(), []
    network.blocks[0].mlp.register_forward_hook(lambda *call: read.append(len(call[1][0])))
    tokens = torch.randint(5, 50, (3, 7))
    real = torch.arange(7) < torch.tensor([7, 4, 6])[:, None]
    wanted = network.decode(network.embed(tokens), real)
    with RememberedTexts(1):
        network.decode(network.embed(tokens[:2, :4]), real[:2, :4])
        got = network.decode(network.embed(tokens), real)
        again = network.decode(network.embed(tokens), real)
    torch.testing.assert_close(got[real], wanted[real])
    torch.testing.assert_close(again[real], wanted[real])
    assert read == [3, 2, 2]  # all; two texts; the whole of the first and the third


@pytest.mark.skipif(
    any(find_spec(name) is None for name in extras.PACKAGES["starter"]), reason='the extra "starter" is not installed'
)
def test_the_pieces_of_captions_keep_their_embeddings(tmp_path):
    captions = ["A snowboarder skis .", "Two dogs"]
    number = write_words(tmp_path, captions)
    small, table = load_tokenizer(tmp_path), open_checkpoint(tmp_path).tensors["tokens.weight"].load()
    assert small.vocab_size == len(table) == number < 120
    ids = small.encode("two SNOWBOARDER")
    assert small.decode(ids) == "two snowboarder"
    source = Path(find_spec(extras.PACKAGES["starter"][-1]).origin).parent / "model"
    whole, tensors = load_tokenizer(source), open_checkpoint(source).tensors
    torch.testing.assert_close(table[ids], tensors["tokens.weight"].load()[whole.encode("two snowboarder")])
    assert [small.id_of(name) for name in SPECIAL] == [0, 1, 2, 3, 4]
