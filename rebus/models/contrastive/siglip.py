"""SigLIP and SigLIP 2: two encoders, one space, a sigmoid on every pair.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023; Tschannen et al., "SigLIP 2", 2025.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.block_keys import (
    big_vision_blocks,
    big_vision_image,
    open_clip_blocks,
    siglip_vision,
    timm_blocks,
    transformers_blocks,
)
from rebus.backbones.examples import dual_encoder_example
from rebus.backbones.released_configs import timm_encoder
from rebus.backbones.text.encoder import TextEncoder, to_the_left
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.core.outputs import Embeddings
from rebus.core.specs import ImageSpec, TextSpec
from rebus.core.system import Layout, System
from rebus.models.contrastive.siglip_config import SigLIPConfig as SigLIPConfig
from rebus.models.contrastive.siglip_config import (
    infer_big_vision,
    read_open_clip,
    read_transformers,
    siglip_text,
    write_open_clip,
    write_transformers,
)
from rebus.nn.pooling import ProbePool
from rebus.weights.key_sides import Unsqueezed, nested
from rebus.weights.keymap import KeyMap
from rebus.weights.npz import big_vision


def _sized(width: int, layers: int, heads: int, mlp: int, **text: Any) -> SigLIPConfig:
    return SigLIPConfig(
        image=ViTConfig(width=width, num_layers=layers, num_heads=heads, mlp_width=mlp),
        text=siglip_text(width=width, num_layers=layers, num_heads=heads, mlp_width=mlp, **text),
        embed=width,
    )


_BASE = SigLIPConfig()
_LARGE = _sized(1024, 24, 16, 4096)
_SO400M = _sized(1152, 27, 16, 4304)
_GIANT = SigLIPConfig(
    image=ViTConfig(width=1536, num_layers=40, num_heads=16, mlp_width=6144), text=_SO400M.text, embed=1536
)


def _at(cfg: SigLIPConfig, size: int, patch: int = 16, **text: Any) -> SigLIPConfig:
    return replace(cfg, image=replace(cfg.image, image_size=size, patch_size=patch), text=replace(cfg.text, **text))


def _v2(cfg: SigLIPConfig) -> SigLIPConfig:
    return replace(cfg, pad_id=0, text=replace(cfg.text, vocab_size=256_000))


def _naflex(cfg: SigLIPConfig) -> SigLIPConfig:
    return replace(_v2(cfg), image=replace(cfg.image, image_size=256, patch_size=16, flat_patches=True))


_TINY = SigLIPConfig(
    image=ViTConfig(width=32, num_layers=2, num_heads=4, mlp_width=56, patch_size=8, image_size=24),
    text=siglip_text(width=32, num_layers=2, num_heads=4, mlp_width=56, vocab_size=64, context=12),
    embed=32,
)
PRESETS = {
    "tiny": _TINY,
    "tiny_naflex": replace(_TINY, pad_id=0, image=replace(_TINY.image, flat_patches=True)),
    **{f"b16_{size}": _at(_BASE, size) for size in (224, 256, 384, 512)},
    "b16_256_multilingual": _at(_BASE, 256, vocab_size=250_000),
    **{f"l16_{size}": _at(_LARGE, size) for size in (256, 384)},
    "so400m14_224": _at(_SO400M, 224, 14, context=16),
    "so400m14_384": _at(_SO400M, 384, 14),
    "so400m16_256_i18n": replace(_at(_SO400M, 256, vocab_size=250_000), text_head=False),
    "v2_b32_256": _v2(_at(_BASE, 256, 32)),
    **{f"v2_b16_{size}": _v2(_at(_BASE, size)) for size in (224, 256, 384, 512)},
    **{f"v2_l16_{size}": _v2(_at(_LARGE, size)) for size in (256, 384, 512)},
    **{f"v2_so400m14_{size}": _v2(_at(_SO400M, size, 14)) for size in (224, 384)},
    **{f"v2_so400m16_{size}": _v2(_at(_SO400M, size)) for size in (256, 384, 512)},
    **{f"v2_g16_{size}": _v2(_at(_GIANT, size)) for size in (256, 384)},
    "v2_b16_naflex": _naflex(_BASE),
    "v2_so400m16_naflex": _naflex(_SO400M),
}


class SigLIP(nn.Module):
    def __init__(self, cfg: SigLIPConfig):
        super().__init__()
        self.cfg = cfg
        image, text = cfg.image, cfg.text
        self.image = ViT(image)
        self.pool = ProbePool(image.width, image.num_heads, image.mlp_width, act=image.act, eps=image.eps)
        self.text = TextEncoder(text)
        self.text_head = nn.Linear(text.width, cfg.embed) if cfg.text_head else nn.Identity()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))  # Sec. 3.2: or the many negatives drown the first steps
        self.init_weights()

    def init_weights(self) -> None:
        """As the reference: Xavier, the probe too; the encoders start themselves."""
        nn.init.xavier_uniform_(self.pool.probe[0])
        for module in (*self.pool.modules(), self.text_head):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    @property
    def scale(self) -> Tensor:
        """By which cosines are multiplied."""
        return self.log_scale.exp()

    @torch.no_grad()
    def limit_scale(self, most: float) -> None:
        """Put a scale that has left 1 … `most` back at the nearer end."""
        self.log_scale.clamp_(0, math.log(most))

    def embed_image(
        self,
        pixels: Float[Tensor, "B ..."],
        patch_mask: Bool[Tensor, "B P"] | None = None,
        grid: Int[Tensor, "B 2"] | None = None,
    ) -> Float[Tensor, "B E"]:
        """Images (B, 3, Y, X) as unit vectors; NaFlex takes patches (B, P, 3 p²) with their mask and grid."""
        if grid is None:
            mask = None
            x = self.image.embed(pixels)
        else:
            mask = None if patch_mask is None else patch_mask[:, None, None, :]
            x = self.image.embed_patches(pixels, grid)
        return F.normalize(self.pool(self.image.norm(self.image.features(x, mask)), mask), dim=-1)

    def embed_text(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T E"]:
        """Texts as unit vectors, read at the last position; padding was seen in training and is seen here.

        Shorter rows are padded to the context, longer ones raise `BadText`. `mask` is needed for texts that are padded
        on the left or with another token than `pad_id`: without it, padding is read as it stands.
        """
        if mask is not None:
            tokens = to_the_left(tokens.masked_fill(~mask, self.cfg.pad_id), mask)
        missing = max(0, self.cfg.text.context - tokens.shape[1])
        tokens = F.pad(tokens, (0, missing), value=self.cfg.pad_id)
        return F.normalize(self.text_head(self.text(tokens)[:, -1]), dim=-1)

    def forward(
        self,
        pixels: Float[Tensor, "B ..."],
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        patch_mask: Bool[Tensor, "B P"] | None = None,
        grid: Int[Tensor, "B 2"] | None = None,
    ) -> Embeddings:
        image = self.embed_image(pixels, patch_mask, grid)
        return Embeddings(image, self.embed_text(tokens, mask), self.scale, self.bias)


_ENCODERS = [
    *nested(siglip_vision(), ours="image."),
    ("vision_model.head.probe", "pool.probe"),
    ("vision_model.head.attention.in_proj_{p}", ("pool.attn.q.{p}", "pool.attn.k.{p}", "pool.attn.v.{p}")),
    ("vision_model.head.attention.out_proj.{p}", "pool.attn.out.{p}"),
    ("vision_model.head.layernorm.{p}", "pool.norm.{p}"),
    ("vision_model.head.mlp.fc1.{p}", "pool.mlp.up.{p}"),
    ("vision_model.head.mlp.fc2.{p}", "pool.mlp.down.{p}"),
    ("text_model.embeddings.token_embedding.weight", "text.tokens.weight"),
    ("text_model.embeddings.position_embedding.weight", "text.positions"),
    *transformers_blocks("text_model.encoder.layers", "text.blocks"),
    ("text_model.final_layer_norm.{p}", "text.norm.{p}"),
    ("text_model.head.{p}", "text_head.{p}"),
]
KEYS = KeyMap(
    [*_ENCODERS, (Unsqueezed("logit_scale"), "log_scale"), (Unsqueezed("logit_bias"), "bias")],
    ignore=["*.position_ids"],
)
OPEN_CLIP_KEYS = KeyMap(
    [
        ("visual.trunk.patch_embed.proj.{p}", "image.patch.{p}"),
        (Unsqueezed("visual.trunk.pos_embed"), "image.positions"),
        *timm_blocks("visual.trunk.blocks", "image.blocks"),
        ("visual.trunk.norm.{p}", "image.norm.{p}"),
        ("visual.trunk.attn_pool.latent", "pool.probe"),
        ("visual.trunk.attn_pool.q.{p}", "pool.attn.q.{p}"),
        ("visual.trunk.attn_pool.kv.{p}", ("pool.attn.k.{p}", "pool.attn.v.{p}")),
        ("visual.trunk.attn_pool.proj.{p}", "pool.attn.out.{p}"),
        ("visual.trunk.attn_pool.norm.{p}", "pool.norm.{p}"),
        ("visual.trunk.attn_pool.mlp.fc1.{p}", "pool.mlp.up.{p}"),
        ("visual.trunk.attn_pool.mlp.fc2.{p}", "pool.mlp.down.{p}"),
        ("text.token_embedding.weight", "text.tokens.weight"),
        ("text.positional_embedding", "text.positions"),
        *open_clip_blocks("text.transformer.resblocks", "text.blocks"),
        ("text.ln_final.{p}", "text.norm.{p}"),
        ("text.text_projection.{p}", "text_head.{p}"),
        ("logit_scale", "log_scale"),
        ("logit_bias", "bias"),
    ],
    prefixes=["module."],
)


_HEAD = "img/MAPHead_0/"
BIG_VISION_KEYS = KeyMap(
    [
        *big_vision_image(),
        (_HEAD + "probe", "pool.probe"),
        *(
            (_HEAD + f"MultiHeadDotProductAttention_0/{theirs}/{{p}}", f"pool.attn.{ours}.{{p}}")
            for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out"))
        ),
        (_HEAD + "LayerNorm_0/{p}", "pool.norm.{p}"),
        (_HEAD + "MlpBlock_0/Dense_0/{p}", "pool.mlp.up.{p}"),
        (_HEAD + "MlpBlock_0/Dense_1/{p}", "pool.mlp.down.{p}"),
        ("txt/Embed_0/weight", "text.tokens.weight"),
        ("txt/pos_embedding", "text.positions"),
        *big_vision_blocks("txt/Encoder_0", "text.blocks"),
        ("txt/Encoder_0/encoder_norm/{p}", "text.norm.{p}"),
        ("txt/head/{p}", "text_head.{p}"),
        (Unsqueezed("t"), "log_scale"),
        (Unsqueezed("b"), "bias"),
    ]
)


def image_spec(cfg: SigLIPConfig) -> ImageSpec:
    """Squashed to the square, bicubic, [−1, 1]; NaFlex keeps the shape and fits the patches into a budget."""
    size = (cfg.image.image_size, cfg.image.image_size)
    if not cfg.naflex:
        return ImageSpec(size=size)
    rows, cols = cfg.image.grid
    return ImageSpec(
        size=size, resize="patches", resample="bilinear", patch_size=cfg.image.patch_size, max_patches=rows * cols
    )


def text_spec(cfg: SigLIPConfig) -> TextSpec:
    """Lower case, end token last, always padded to the context. Version 1 strips punctuation too."""
    return TextSpec(
        context=cfg.text.context,
        vocab_size=cfg.text.vocab_size,
        pad_id=cfg.pad_id,
        eos_id=1,
        pad_to_context=True,
        lower=True,
        canonical=cfg.pad_id == 1,
    )


def text_side(cfg: SigLIPConfig) -> SigLIP:
    """The network without what sees images."""
    network = SigLIP(cfg)
    del network.image, network.pool
    return network


SYSTEM = System(
    name="siglip",
    network=SigLIP,
    config=SigLIPConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers",
            keys=lambda cfg: KEYS,
            read_config=read_transformers,
            write_config=write_transformers,
        ),
        "open_clip": Layout(
            name="open_clip",
            keys=lambda cfg: OPEN_CLIP_KEYS,
            config_file="open_clip_config.json",
            recognises=lambda data: "siglip" in timm_encoder(data),
            read_config=read_open_clip,
            write_config=write_open_clip,
            weights_name="open_clip_model",
            antialias=True,
        ),
        "big_vision": Layout(
            name="big_vision",
            keys=lambda cfg: BIG_VISION_KEYS,
            config_file=None,
            recognises=lambda names: any(name.removeprefix("params/").startswith("txt/") for name in names),
            infer_config=infer_big_vision,
            prepare=big_vision,
        ),
    },
    objective="sigmoid",
    example=dual_encoder_example,
    image_spec=image_spec,
    text_spec=text_spec,
    text_side=text_side,
)
