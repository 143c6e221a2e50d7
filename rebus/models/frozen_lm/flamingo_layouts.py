"""Flamingo in files: our own, IDEFICS as transformers has it, and what OpenFlamingo released; and its `SYSTEM`."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rebus.backbones.examples import example_pixels, generator
from rebus.backbones.text.causal import Decoder
from rebus.codec.processor import Processor, load_processor
from rebus.codec.text import TextPipeline
from rebus.codec.tokenizer_files import read_definition
from rebus.codec.tokenizers import Tokenizer
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig
from rebus.core.released_config import HARMLESS
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Find, Layout, System
from rebus.models.frozen_lm import idefics, openflamingo
from rebus.models.frozen_lm.flamingo import Flamingo
from rebus.models.frozen_lm.flamingo_config import END, IMAGE, PRESETS, FlamingoConfig
from rebus.models.frozen_lm.starter import assemble_photos, assemble_starter
from rebus.weights.keymap import OwnNames

_BEAMS = {"strategy": "beam", "num_beams": 3, "length_penalty": 0.0}
_DECODING: dict[str, Any] = {
    "caption": {**_BEAMS, "max_new_tokens": 20, "stop": "Output"},
    "ask": {**_BEAMS, "max_new_tokens": 5, "stop": ["Question", "Answer", "Short"]},
}
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def join(cfg: FlamingoConfig, text: Processor, image: Processor) -> Processor:
    """The processor of a language model, whose tokenizer learns the new tokens, and that of an image encoder."""
    words = text.text
    if words is not None:
        definition = read_definition(words.tokenizer.files, cfg.added)
        tokenizer = words.tokenizer if definition is None else Tokenizer(definition, words.tokenizer.files)
        words = TextPipeline(tokenizer, _spec(cfg, tokenizer, words.spec))
    sources = {**text.sources, **image.sources}
    return Processor(image.image, words, sources=sources, sees_clips=cfg.resampler.num_frames > 1)


def _spec(cfg: FlamingoConfig, tokenizer: Tokenizer, own: TextSpec) -> TextSpec:
    """How texts are read by this tokenizer. Raises `BadConfig` where the tokenizer has other ids for new tokens."""
    for name in cfg.added:
        if tokenizer.id_of(name) != cfg.id_of(name):
            raise BadConfig(
                f"the tokenizer has {name} at id {tokenizer.id_of(name)}, the network at {cfg.id_of(name)}: give "
                f"first_added={tokenizer.id_of(cfg.added[0])}, or the tokenizer of this language model"
            )
    return with_images(cfg, own)


def with_images(cfg: FlamingoConfig, own: TextSpec) -> TextSpec:
    """How a language model reads texts, with images in them."""
    return replace(
        own,
        vocab_size=cfg.vocabulary + len(cfg.added),
        added_tokens=cfg.added,
        eos_id=own.eos_id if cfg.end is None else cfg.id_of(cfg.end),
        image_token_id=cfg.image_id,
        num_image_tokens=1,
        image_around_id=None if len(cfg.mark) == 1 else cfg.id_of(cfg.mark[0]),
        bos_first=True,
    )


def write_config(cfg: FlamingoConfig) -> dict[str, Any]:
    """`config.json`: model_type "flamingo", both networks and the settings."""
    return {"model_type": "flamingo", "architectures": ["Flamingo"], **to_dict(cfg)}


@cache
def frozen_lm(find: Find) -> System:
    """The system, given the look-up of those that its parts are of."""

    def own_text_spec(cfg: FlamingoConfig) -> TextSpec:
        text, own = system.part(cfg, "text")
        assert text.text_spec is not None
        return text.text_spec(own)

    def text_spec(cfg: FlamingoConfig) -> TextSpec:
        spec = own_text_spec(cfg)
        return with_images(cfg, spec)

    def image_spec(cfg: FlamingoConfig) -> ImageSpec:
        image, own = system.part(cfg, "image")
        if image.image_spec is not None:
            found: ImageSpec | None = image.image_spec(own)
            assert found is not None, "an image encoder sees images"
            return found
        size = (own.image_size, own.image_size)
        if not own.class_token:
            return ImageSpec(size=size)
        return ImageSpec(size=size, resize="shorter", mean=_CLIP_MEAN, std=_CLIP_STD)

    def read_processor(folder: Path, cfg: FlamingoConfig) -> Processor:
        spec = replace(own_text_spec(cfg), added_tokens=cfg.added, vocab_size=cfg.vocabulary + len(cfg.added))
        found = load_processor(folder, image_spec(cfg), spec)
        return join(cfg, found, found)

    def suited(cfg: FlamingoConfig) -> dict[str, Any]:
        image = system.part(cfg, "image")[0]
        prompts = Prompts(**_PROMPTS, **_EXAMPLES) if cfg.end == END else Prompts(**_PROMPTS, after_example=_LINES)
        decoding = {**_DECODING, "caption": {**_DECODING["caption"], "max_new_tokens": cfg.max_new_tokens}}
        return {"prompts": prompts, "any_image_size": image.any_image_size, "decoding": decoding}

    def example(cfg: FlamingoConfig, rows: int, *, prompt: int = 16, answer: int = 16) -> dict[str, Tensor]:
        random = generator()
        pixels = example_pixels(system.part(cfg, "image")[1], rows, random)
        text = torch.randint(3, cfg.vocabulary, (rows, prompt + answer), generator=random)
        tokens = torch.cat([torch.full((rows, 1), cfg.image_id), text[:, :prompt]], dim=1)
        return {**pixels, "tokens": tokens, "targets": text[:, prompt:].contiguous()}

    def read_config(data: Mapping[str, Any]) -> FlamingoConfig:
        cfg = from_dict(FlamingoConfig, {k: v for k, v in data.items() if k not in HARMLESS}, "config.json")
        return checked(cfg)

    def checked(cfg: FlamingoConfig) -> FlamingoConfig:
        (text, own), (image, _) = system.part(cfg, "text"), system.part(cfg, "image")
        if not issubclass(text.network, Decoder):  # type: ignore[arg-type]
            raise BadConfig(f"config.json: text is a causal language model whose blocks are open; {text.name} is none")
        grids = hasattr(image.network, "feature_map") or all(hasattr(image.network, n) for n in ("embed", "features"))
        if not grids or issubclass(image.network, Decoder):  # type: ignore[arg-type]
            raise BadConfig(f"config.json: image is an encoder that gives a grid of features; {image.name} is none")
        if cfg.cross.first >= own.num_layers:
            raise BadConfig(f"config.json: cross.first is {cfg.cross.first}, of {own.num_layers} blocks of text")
        if cfg.first_added is not None and cfg.first_added > own.vocab_size:
            raise BadConfig(f"config.json: first_added leaves a gap: the language model has {own.vocab_size:,} tokens")
        return cfg

    system = System(
        name="flamingo",
        network=Flamingo,
        config=FlamingoConfig,
        presets=PRESETS,
        layouts={
            "transformers": Layout(
                name="transformers", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config
            ),
            "idefics": Layout(
                name="idefics",
                keys=idefics.keys,
                recognises=lambda data: data.get("model_type") == "idefics",
                read_config=lambda data: checked(idefics.read_config(data)),
                write_config=idefics.write_config,
            ),
            "openflamingo": Layout(
                name="openflamingo",
                keys=openflamingo.keys,
                config_file=None,
                recognises=lambda names: "perceiver.latents" in {name.removeprefix("module.") for name in names},
                infer_config=openflamingo.infer_config,
                prepare=openflamingo.prepare,
                whole=False,
            ),
        },
        prompts=Prompts(**_PROMPTS, **_EXAMPLES),
        decoding=_DECODING,
        objective="next token",
        example=example,
        image_spec=image_spec,
        text_spec=text_spec,
        assemble={
            **dict.fromkeys(openflamingo.RELEASED, openflamingo.assemble),
            "starter": assemble_starter,
            "photos": assemble_photos,
        },
        parts=("text", "image"),
        find=find,
        join=join,
        read_processor=read_processor,
        suited=suited,
    )
    return system


# As OpenFlamingo evaluates. Examples are followed by a new line, those of a classification are not.
_PROMPTS: dict[str, Any] = {
    "caption": "Output:",
    "ask": "Question:{question} Short answer:",
    "classify": "Output:",
    "complete": "{document}",
}
_EXAMPLES: dict[str, Any] = {
    "after_example": {"caption": END + "\n", "ask": END + "\n", "classify": END},
    "controls": (END, IMAGE),
}
_LINES = {"caption": "\n", "ask": "\n", "classify": "\n"}
SYSTEM = frozen_lm
