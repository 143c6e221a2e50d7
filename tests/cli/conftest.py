"""Tiny untrained checkpoints where the bundled ones would lie, and a few images."""

import json
from pathlib import Path

import pytest
import torch

from rebus import catalog
from rebus.api import Model
from rebus.backbones.vision.mask_vqvae import SMALL, MaskVQVAE, save_npz
from rebus.cli import choose_model as choosing
from rebus.cli import main
from rebus.core import extras
from rebus.data.scenes import scene
from rebus.recipes import recipe
from rebus.train import override
from rebus.train.final_model import save_final
from rebus.train.setup import open_data

IMAGE = ["model.image.width=32", "model.image.num_layers=1", "model.image.mlp_width=32", "model.image.patch_size=24"]
TEXT = ["model.text.width=32", "model.text.num_layers=1", "model.text.mlp_width=32"]
SIZES = {
    "siglip": [*IMAGE, *TEXT, "model.embed=32", "start_from=none"],
    "paligemma": [*IMAGE, *TEXT, "model.text.head_width=8", "data.patch=24", "start_from=none"],
}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Path:
    """A folder like `rebus/checkpoints` with siglip/scenes and paligemma/scenes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, sizes in SIZES.items():
        config = override(recipe(f"{name}_scenes"), sizes)
        torch.manual_seed(0)
        network = catalog.system(name).network(config.model)
        target = save_final(config, network, open_data(config).processor, folder / f"{name}_scenes")
        card = {
            "name": f"{name}/scenes",
            "system": name,
            "parameters": sum(p.numel() for p in network.parameters()),
            "command": f"rebus train {name}_scenes",
            "seed": 0,
            "scores": {"questions": 0.5},
        }
        (target / "card.json").write_text(json.dumps(card))
    save_npz(MaskVQVAE(SMALL), folder / "paligemma_scenes" / "vae-oid.npz")
    return folder


def _brief(generate):
    """Untrained writers never come to an end by themselves."""

    def at_most_six(self, *, max_new_tokens: int = 64, **options):
        return generate(self, max_new_tokens=min(6, max_new_tokens), **options)

    return at_most_six


@pytest.fixture
def bundled(checkpoints, monkeypatch) -> Path:
    """The checkpoints are those of the package; nothing else is on this machine."""
    monkeypatch.setattr(catalog, "checkpoint_folder", lambda: checkpoints)
    # What the functions ask, not the functions: a command imported now would keep those for the tests that follow.
    monkeypatch.setattr(extras, "PACKAGES", dict.fromkeys(extras.PACKAGES, ("not_installed",)))
    monkeypatch.setattr(choosing, "_traces", lambda repo: False)
    monkeypatch.setattr(Model, "generate", _brief(Model.generate))
    catalog.bundled.cache_clear()
    yield checkpoints
    catalog.bundled.cache_clear()


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of three scenes: a.png, b.png, c.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        scene(seed, "test").image.save(folder / f"{name}.png")
    return folder


@pytest.fixture
def run(capsys):
    """Run a command: (exit code, stdout, stderr)."""

    def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command
