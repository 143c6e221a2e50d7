"""Whole tiny models with tokenizers, for tests of what stands on top of networks."""

from pathlib import Path

import torch

import rebus
from rebus.api import Model
from rebus.codec.processor import Processor
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizers import word_level_tokenizer

WORDS = [
    *"a an the photo of red green blue small large circle square what is where left right".split(),
    *"caption en answer detect segment yes no cat dog ; .".split(),
]
TOWER = {"width": 32, "num_layers": 2, "num_heads": 4, "mlp_width": 48}


def with_words(model: Model) -> Model:
    """The same model with a word-level tokenizer that fits its vocabulary."""
    spec = model.system.text_spec(model.config)
    writer = spec.generates
    tokenizer = word_level_tokenizer(
        WORDS, ("<pad>", "<eos>", "<bos>", "<unk>"), locations=1024 if writer else 0, segments=128 if writer else 0
    )
    model.processor = Processor(model.processor.image, TextPipeline(tokenizer, spec))
    return model


def clip(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    image = {**TOWER, "image_size": 32, "patch_size": 8}
    text = {**TOWER, "vocab_size": 64, "context": 12}
    return rebus.create("clip/b32", image=image, text=text, embed=16)


def siglip(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    image = {**TOWER, "image_size": 32, "patch_size": 8}
    return rebus.create(
        "siglip/b16-224", image=image, text={**TOWER, "vocab_size": 64, "context": 12}, embed=32, pad_id=0
    )


def paligemma(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    text = {**TOWER, "vocab_size": 1280, "num_kv_heads": 1, "head_width": 8}
    image = {**TOWER, "image_size": 32, "patch_size": 8}
    return rebus.create("paligemma/3b-mix-224", image=image, text=text, image_id=1279)


ALL = {"clip": clip, "siglip": siglip, "paligemma": paligemma}


def saved(name: str, folder: Path) -> Path:
    """A directory of the tiny model in the transformers layout."""
    model = ALL[name]()
    if name != "clip":
        model = with_words(model)
    return model.save(folder / name)
