"""One side of a dual encoder reads text as the whole does, and holds no weight of the other."""

import json
import subprocess
import sys

import pytest
import torch

import rebus
from rebus import catalog
from rebus.core.errors import UnsupportedTask
from rebus.core.extras import installed
from rebus.index.text_encoder import fingerprint_of_text, fingerprints, load_text_encoder
from rebus.open_checkpoint import open_checkpoint

BOTH = {"embed_images", "embed_texts"}
DUAL = [name for name in catalog.bundled() if catalog.info(name).tasks >= BOTH]
TEXTS = ["a red circle", "what is left of the small green square"]


@pytest.mark.parametrize("name", DUAL)
def test_equals_the_whole(name):
    whole, side = rebus.load(name), load_text_encoder(name)
    assert torch.equal(whole.embed_texts(TEXTS), side.embed_texts(TEXTS))
    assert side.tasks == {"embed_texts"}
    assert side.num_parameters() < whole.num_parameters()
    assert not any(key.startswith("image.") for key in side.state_dict())
    with pytest.raises(UnsupportedTask):
        side.embed_images(["cat.jpg"])


def test_every_dual_encoder_says_its_text_side():
    lacking = []
    for name in catalog.SYSTEMS:
        system = catalog.system(name)
        able = {task for config in system.presets.values() for task in catalog.tasks_of(system, config)}
        if able >= BOTH and system.text_side is None:
            lacking.append(name)
    assert not lacking


def test_needs_neither_timm_nor_torchvision():
    """Though its image encoder is one of timm's."""
    name = "asif/starter"
    if not installed(str(catalog.info(name).extra)):
        pytest.skip(f"the parts of {name} are not installed")
    code = (
        "import sys; from rebus.index import load_text_encoder\n"
        f"v = load_text_encoder({name!r}).embed_texts('a dog'); assert abs(float(v.norm()) - 1) < 1e-4\n"
        "sys.exit(str({'timm', 'torchvision', 'lancedb'} & set(sys.modules) or '') or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_what_is_no_dual_encoder_is_refused():
    with pytest.raises(UnsupportedTask, match="dual encoder"):
        load_text_encoder("paligemma/scenes")


def test_fingerprints_tell_weights_tokens_and_preprocessing_apart(tmp_path):
    model = rebus.load("clip/scenes")
    model.save(tmp_path / "first")
    prints = fingerprints(open_checkpoint(tmp_path / "first"))
    assert prints == fingerprints(open_checkpoint(tmp_path / "first"))
    assert prints[0] == fingerprint_of_text(open_checkpoint(tmp_path / "first"))
    with torch.no_grad():
        model.network.image.norm.bias.add_(1e-3)
    model.save(tmp_path / "image")
    other = fingerprints(open_checkpoint(tmp_path / "image"))
    assert other[0] == prints[0]
    assert other[1] != prints[1]
    with torch.no_grad():
        model.network.text.norm.bias.add_(1e-3)
    model.save(tmp_path / "text")
    assert fingerprint_of_text(open_checkpoint(tmp_path / "text")) != prints[0]
    settings = tmp_path / "image" / "preprocessor_config.json"
    data = json.loads(settings.read_text())
    data["image_mean"][0] += 0.01
    settings.write_text(json.dumps(data))
    assert fingerprints(open_checkpoint(tmp_path / "image"))[1] != other[1]
