"""ResNet: torchvision's numbers from torchvision's names."""

from dataclasses import replace

import pytest
import timm
import torch
import torchvision

from rebus.backbones.vision.resnet import VARIANTS, ResNet, ResNetConfig, keys
from rebus.core.config import from_dict
from rebus.core.errors import BadConfig
from rebus.weights.load_weights import load_into


@pytest.mark.parity
def test_equals_torchvision_on_random_weights():
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(num_classes=9).eval()
    for name, buffer in reference.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    cfg = ResNetConfig(variant="resnet18", num_classes=9)
    network = ResNet(cfg).eval()
    load_into(network, keys(cfg).to_ours(reference.state_dict()), device="cpu", dtype=torch.float32)
    pixels = torch.randn(2, 3, 67, 45)
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), reference(pixels), atol=1e-4, rtol=1e-5)
        weight, bias = network.rows
        torch.testing.assert_close(network.features(pixels) @ weight.T + bias, network(pixels))
    assert keys(cfg).to_theirs(network.state_dict()).keys() == reference.state_dict().keys()


def test_the_classifier_may_be_left_out():
    cfg = ResNetConfig(variant="resnet18", num_classes=0)
    with torch.device("meta"):
        network, whole = ResNet(cfg), torchvision.models.resnet18()
    assert keys(cfg).to_ours(whole.state_dict()).keys() == network.state_dict().keys()


def test_an_unknown_variant_is_refused():
    with pytest.raises(BadConfig, match="resnet51"):
        from_dict(ResNetConfig, {"variant": "resnet51"})


def test_strides_in_the_first_convolution_skip_every_second_place():
    """The middle convolution then sees the places that are left: as with dilated kernels on all of them."""
    torch.manual_seed(0)
    cfg = ResNetConfig(num_classes=0, channels=(4, 4, 4, 4), depths=(1, 2, 1, 1), strided="first")
    network, dilated = ResNet(cfg).eval(), ResNet(replace(cfg, strided="middle")).eval()
    dilated.load_state_dict(network.state_dict())
    for stage in (dilated.net.layer2, dilated.net.layer3, dilated.net.layer4):
        stage[0].conv2.dilation = stage[0].conv2.padding = (2, 2)
    pixels = torch.randn(2, 3, 70, 45)
    with torch.no_grad():
        torch.testing.assert_close(network.feature_map(pixels), dilated.feature_map(pixels))


@pytest.mark.parametrize("fields", [{"variant": "resnet34"}, {"stride": 16}])
def test_only_bottlenecks_take_strides_first(fields):
    with pytest.raises(BadConfig, match="bottlenecks"):
        ResNetConfig(strided="first", **fields)


@pytest.mark.parity
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_timm_at_every_variant_and_stride(variant, stride):
    torch.manual_seed(0)
    theirs = timm.create_model(
        variant, num_classes=5, channels=(8, 8, 16, 16), output_stride=stride, zero_init_last=False
    ).eval()
    for name, buffer in theirs.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    cfg = ResNetConfig(variant=variant, num_classes=5, channels=(8, 8, 16, 16), stride=stride)
    network = ResNet(cfg).eval()
    load_into(network, keys(cfg).to_ours(theirs.state_dict()))
    pixels = torch.randn(2, 3, 70, 45)
    with torch.no_grad():
        torch.testing.assert_close(network.feature_map(pixels), theirs.forward_features(pixels), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(network(pixels), theirs(pixels), atol=1e-4, rtol=1e-4)


def test_every_block_begins_as_what_comes_in():
    network = ResNet(ResNetConfig(num_classes=0, channels=(4, 4, 4, 4), depths=(2, 1, 1, 1)))
    block = network.net.layer1[1]
    x = torch.rand(1, 16, 6, 5)
    assert torch.equal(block(x), x)
