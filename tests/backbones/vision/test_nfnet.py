"""NFNet: the counts of the releases, timm's own networks by its files, and the grid that Flamingo reads."""

from dataclasses import replace

import pytest
import timm
import torch

from rebus import catalog
from rebus.backbones.text import gpt2
from rebus.backbones.vision.nfnet import PRESETS, SYSTEM, NFNet, image_spec, read_timm
from rebus.core.config import to_dict
from rebus.core.errors import BadConfig, UnknownName
from rebus.models.frozen_lm.flamingo_config import FlamingoConfig, part

SMALL = replace(PRESETS["f0"], depths=(1, 1, 1, 1), num_classes=11)


def count(name, classes):
    with torch.device("meta"):
        return sum(p.numel() for p in NFNet(replace(PRESETS[name], num_classes=classes)).parameters())


def test_counts_are_published():
    """F0 71.5M and F6 438.4M (Brock et al., 2021, Table 6); Flamingo's encoder, F6 without classifier, 435M."""
    assert [round(count(name, 1000) / 1e6, 1) for name in ("f0", "f6")] == [71.5, 438.4]
    assert round(count("f6", 0) / 1e6) == 435


def test_timms_network_in_its_own_names():
    torch.manual_seed(0)
    theirs = timm.create_model("dm_nfnet_f0", depths=(1, 1, 1, 1), num_classes=11).eval()
    for name, parameter in theirs.named_parameters():  # branches begin with a gain of zero
        if name.endswith("skipinit_gain"):
            torch.nn.init.constant_(parameter, 0.7)
    ours = NFNet(SMALL).eval()
    ours.net.load_state_dict(theirs.state_dict())
    pixels = torch.randn(2, 3, 65, 70)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=1e-5, atol=1e-5)
        grid = ours.feature_map(pixels)
    assert grid.shape == (2, 1536, 3, 3)
    assert ours.width == 1536


def test_files_of_timm():
    layout = SYSTEM.layouts["timm"]
    data = {"architecture": "dm_nfnet_f6.dm_in1k", "num_classes": 1000}
    assert layout.recognises(data)
    assert read_timm(data) == PRESETS["f6"]
    assert layout.write_config(replace(PRESETS["f3"], num_classes=0)) == {
        "architecture": "dm_nfnet_f3",
        "num_classes": 0,
    }
    with pytest.raises(UnknownName, match="dm_nfnet_f6"):
        read_timm({"architecture": "dm_nfnet_f7"})
    data = layout.write_config(PRESETS["tiny"])
    assert read_timm(data) == PRESETS["tiny"]
    theirs = timm.create_model("dm_nfnet_f0", num_classes=11, **data["model_args"]).state_dict()
    ours = NFNet(PRESETS["tiny"]).net.state_dict()
    assert {name: t.shape for name, t in theirs.items()} == {name: t.shape for name, t in ours.items()}
    for wrong in ({"depths": [1, -1, 1, 1]}, {"stem_chs": 10**9}, {"alpha": 0.1}):
        with pytest.raises(BadConfig):
            read_timm({"architecture": "dm_nfnet_f0", "model_args": wrong})
    assert (image_spec(PRESETS["f6"]).size, image_spec(PRESETS["f6"]).side) == ((448, 448), 468)


def test_flamingo_reads_the_grid_of_its_last_stage():
    """A resampler of width 1536 over 14 x 14 places, as DeepMind's."""
    cfg = FlamingoConfig(text=part("gpt2", gpt2.PRESETS["tiny"]), image=part("nfnet", PRESETS["f6"]))
    with torch.device("meta"):
        network = catalog.system("flamingo").build(cfg)
        assert network.resampler.width == 1536
        assert network.image.feature_map(torch.empty(1, 3, 448, 448)).shape == (1, 1536, 14, 14)
    assert to_dict(cfg)["image"]["system"] == "nfnet"
