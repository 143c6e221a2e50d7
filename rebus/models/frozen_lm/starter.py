"""`flamingo/photos`: captions of real photos, offline, by SmolLM2-135M over EfficientNet-Lite0, both of the package
index. What was learned between them is in this package.

`flamingo/starter` is the same before it has learned: with its gates closed it is the language model.
"""

from dataclasses import replace

import torch

from rebus.backbones.starter_networks import packaged, starter_encoder, starter_language_model
from rebus.core.system import Assembled
from rebus.models.frozen_lm.bridge import GatedCrossAttention, Resampler
from rebus.models.frozen_lm.flamingo_config import PRESETS, part
from rebus.weights.checkpoint_files import open_weights


def assemble_photos() -> Assembled:
    """The model behind `flamingo/photos`. Raises `MissingExtra` where its packages are not installed."""
    begun = assemble_starter("flamingo/photos")
    learned = open_weights(packaged("flamingo_photos") / "learned.safetensors")
    return begun._replace(tensors={**begun.tensors, **{name: one.load().float() for name, one in learned.items()}})


def assemble_starter(name: str = "flamingo/starter") -> Assembled:
    """The model behind `flamingo/starter`, always the same. Raises `MissingExtra` where its packages are not
    installed."""
    from rebus.models.frozen_lm.flamingo_layouts import join  # which builds on this file

    text, image = starter_language_model(name), starter_encoder(name)
    cfg = replace(PRESETS["starter"], text=part("llama", text.config), image=part("efficientnet", image.config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        resampler = Resampler(1280, cfg.resampler)
        places = cfg.cross.places(text.config.num_layers)
        cross = torch.nn.ModuleList(GatedCrossAttention(text.config.width, resampler.width, cfg.cross) for _ in places)
    tensors = {
        **{f"text.{name}": tensor for name, tensor in text.tensors.items()},
        **{f"image.{name}": tensor for name, tensor in image.tensors.items()},
        **{f"resampler.{name}": tensor for name, tensor in resampler.state_dict().items()},
        **{f"cross.{name}": tensor for name, tensor in cross.state_dict().items()},
        # an image stands where a text begins: at the vector of the token that begins and ends texts
        "added.weight": text.tensors["tokens.weight"].load()[:1].clone(),
    }
    return Assembled(cfg, tensors, join(cfg, text.processor, image.processor))
