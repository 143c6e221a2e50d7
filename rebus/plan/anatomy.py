"""A model taken apart: its layers in the order in which a batch meets them, by part."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.errors import UsageError
from rebus.models.contrastive.clip_config import CLIPConfig
from rebus.models.contrastive.siglip_config import SigLIPConfig
from rebus.models.unified.paligemma_config import PaliGemmaConfig
from rebus.plan.layers import (
    Layer,
    block,
    copies,
    gemma_block,
    half,
    layer_norm,
    linear,
    probe_pool,
    resnet,
    rms_norm,
    table,
)


@dataclass(frozen=True)
class Part:
    """A stretch of layers under one title. `joins` tells whether it reads what the part before it gave."""

    title: str
    layers: tuple[Layer, ...]
    joins: bool = False


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    parts: tuple[Part, ...]
    contrast: Literal["softmax", "sigmoid"] | None = None  # the loss that compares a whole batch
    embed: int = 0  # width of what it compares
    patches: int  # of an image
    text: int  # tokens of a text that go through the network
    scores: int = 0  # numbers in the scores of all words, for an example
    transient: int = 0  # bytes for an example beside what is kept, while the loss is worked out

    def names(self) -> list[str]:
        """What can be frozen: modules, and the ones that they are in."""
        found: dict[str, None] = {}
        for part in self.parts:
            for layer in part.layers:
                pieces = layer.name.split(".")
                found.update((".".join(pieces[:i]), None) for i in range(1, len(pieces) + 1))
        return list(found)


def anatomy(config: Any, *, prompt: int, answer: int, bf16: bool) -> Anatomy:
    """The layers of a model's configuration. `prompt` and `answer`: tokens before and after a writer begins.

    Raises `UsageError` for a system whose layers nobody has written down here.
    """
    if isinstance(config, CLIPConfig):
        return _clip(config, bf16)
    if isinstance(config, SigLIPConfig):
        return _siglip(config, bf16)
    if isinstance(config, PaliGemmaConfig):
        return _paligemma(config, prompt, answer, bf16)
    name = type(config).__name__.removesuffix("Config")
    raise UsageError(f"there is no plan for {name} yet; there is for CLIP, SigLIP and PaliGemma")


def at_size(config: Any, image_size: int) -> Any:
    """The configuration for images of another size. Raises `UsageError` where no patch fits."""
    image = config.image
    step = getattr(image, "patch_size", 32)
    if image_size < step:
        raise UsageError(f"--image-size {image_size}: smaller than a patch of {step}")
    return replace(config, image=replace(image, image_size=image_size))


def _clip(cfg: CLIPConfig, bf16: bool) -> Anatomy:
    if isinstance(cfg.image, ViTConfig):
        rows, columns = cfg.image.grid
        patches = rows * columns
        project = linear("image_proj", 1, cfg.image.width, cfg.embed, bias=False, bf16=bf16)
        image = [*_vit(cfg.image, bf16), project]
    else:
        patches = (cfg.image.image_size // 32) ** 2
        image = list(resnet("image", cfg.image, bf16=bf16))
    head = linear("text_proj", 1, cfg.text.width, cfg.embed, bias=False, bf16=bf16)
    return _towers(image, [*_text(cfg.text, bf16), head], 1, "softmax", cfg.embed, patches, cfg.text.context)


def _siglip(cfg: SigLIPConfig, bf16: bool) -> Anatomy:
    rows, columns = cfg.image.grid
    pool = probe_pool("pool", rows * columns, cfg.image.width, cfg.image.mlp_width, bf16=bf16)
    text = _text(cfg.text, bf16)
    if cfg.text_head:
        text.append(linear("text_head", 1, cfg.text.width, cfg.embed, bias=True, bf16=bf16))
    return _towers([*_vit(cfg.image, bf16), pool], text, 2, "sigmoid", cfg.embed, rows * columns, cfg.text.context)


def _towers(
    image: Sequence[Layer],
    text: Sequence[Layer],
    numbers: int,
    contrast: Literal["softmax", "sigmoid"],
    embed: int,
    patches: int,
    length: int,
) -> Anatomy:
    names = ("log_scale", "bias")[:numbers]
    return Anatomy(
        parts=(
            Part("image tower", tuple(image)),
            Part("text tower", tuple(text)),
            Part("loss", tuple(table(name, 1) for name in names)),
        ),
        contrast=contrast,
        embed=embed,
        patches=patches,
        text=length,
    )


def _paligemma(cfg: PaliGemmaConfig, prompt: int, answer: int, bf16: bool) -> Anatomy:
    text, pictures = cfg.text, cfg.num_image_tokens
    length = pictures + prompt + answer - 1
    query, key = text.num_heads * text.head_width, text.num_kv_heads * text.head_width
    second = text.generation == 2
    decoder = (
        table("text.tokens", text.vocab_size * text.width, ids=length),
        gemma_block(
            "text.blocks",
            text.num_layers,
            length,
            text.width,
            query,
            key,
            text.num_heads,
            text.mlp_width,
            second=second,
            bf16=bf16,
        ),
        rms_norm("text.norm", length, text.width),
    )
    scores = answer * text.vocab_size
    words = Layer(
        name="text.tokens",  # the table once more, as a matrix: no parameters of its own
        weights=text.vocab_size * text.width,
        linear=2 * scores * text.width,
        kept=answer * text.width * copies(bf16) + (half(bf16) * scores if second else 0) + 4 * scores,
        passing=(half(bf16) * scores if second else 0) + 4 * scores,  # a bent score, and its logarithmic share
        tokens=answer,
    )
    return Anatomy(
        parts=(
            Part("image tower", tuple(_vit(cfg.image, bf16))),
            Part(
                "projection",
                (linear("image_proj", pictures, cfg.image.width, text.width, bias=True, bf16=bf16),),
                joins=True,
            ),
            Part("text decoder", decoder, joins=True),
            Part("word scores", (words,), joins=True),
        ),
        patches=pictures,
        text=prompt + answer,
        scores=scores,
        transient=scores * (half(bf16) + (4 if bf16 else 0)),
    )


def _vit(cfg: ViTConfig, bf16: bool) -> list[Layer]:
    rows, columns = cfg.grid
    patches, inputs = rows * columns, cfg.num_channels * cfg.patch_size**2
    tokens = patches + cfg.class_token
    layers = [linear("image.patch", patches, inputs, cfg.width, bias=not cfg.class_token, bf16=bf16)]
    layers.append(table("image.positions", tokens * cfg.width))
    if cfg.class_token:
        layers += [table("image.class_token", cfg.width), layer_norm("image.norm_pre", tokens, cfg.width)]
    layers.append(_blocks("image.blocks", cfg, tokens, bf16))
    layers.append(layer_norm("image.norm", tokens, cfg.width))
    if cfg.class_token:  # the norm sees one token, but keeps hold of all
        layers[-1] = replace(layers[-1], tokens=1)
    return layers


def _text(cfg: TextConfig, bf16: bool) -> list[Layer]:
    return [
        table("text.tokens", cfg.vocab_size * cfg.width, ids=cfg.context),
        table("text.positions", cfg.context * cfg.width),
        _blocks("text.blocks", cfg, cfg.context, bf16),
        layer_norm("text.norm", cfg.context, cfg.width),
    ]


def _blocks(name: str, cfg: ViTConfig | TextConfig, tokens: int, bf16: bool) -> Layer:
    return block(name, cfg.num_layers, tokens, cfg.width, cfg.num_heads, cfg.mlp_width, cfg.act, bf16=bf16)
