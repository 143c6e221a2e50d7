"""SigLIP and SigLIP 2: two towers, one space, a sigmoid on every pair.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023; Tschannen et al., "SigLIP 2", 2025.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.keys import open_clip_blocks, timm_blocks, transformers_blocks
from rebus.backbones.released import read_siglip_vision, read_tower, write_text, write_vision
from rebus.backbones.text.encoder import TextConfig, TextEncoder, to_the_left
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.core.errors import BadConfig
from rebus.core.outputs import Embeddings
from rebus.core.released import Released
from rebus.core.specs import ImageSpec, TextSpec
from rebus.core.system import Layout, System
from rebus.nn.pooling import ProbePool
from rebus.weights.keymap import KeyMap, Unsqueezed


def _text(**fields: Any) -> TextConfig:
    defaults = {"width": 768, "num_heads": 12, "mlp_width": 3072, "vocab_size": 32_000, "context": 64}
    return TextConfig(causal=False, act="gelu_tanh", eps=1e-6, **{**defaults, **fields})


@dataclass(frozen=True, kw_only=True)
class SigLIPConfig:
    image: ViTConfig = field(default_factory=ViTConfig)
    text: TextConfig = field(default_factory=_text)
    embed: int = 768
    text_head: bool = True  # so400m i18n was released without the linear layer after the text tower
    pad_id: int = 1  # version 1 pads with its end token, version 2 with 0; what was padded is seen

    @property
    def naflex(self) -> bool:
        """Pictures keep their shape and arrive as patches."""
        return self.image.flat_patches


def _sized(width: int, layers: int, heads: int, mlp: int, **text: Any) -> SigLIPConfig:
    return SigLIPConfig(
        image=ViTConfig(width=width, num_layers=layers, num_heads=heads, mlp_width=mlp),
        text=_text(width=width, num_layers=layers, num_heads=heads, mlp_width=mlp, **text),
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


PRESETS = {
    "tiny": SigLIPConfig(
        image=ViTConfig(width=32, num_layers=2, num_heads=4, mlp_width=56, patch_size=8, image_size=24),
        text=_text(width=32, num_layers=2, num_heads=4, mlp_width=56, vocab_size=64, context=12),
        embed=32,
    ),
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
        """As the reference: Xavier, the probe too; the towers start themselves."""
        nn.init.xavier_uniform_(self.pool.probe[0])
        for module in (*self.pool.modules(), self.text_head):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def embed_image(
        self,
        pixels: Float[Tensor, "B ..."],
        patch_mask: Bool[Tensor, "B P"] | None = None,
        grid: Int[Tensor, "B 2"] | None = None,
    ) -> Float[Tensor, "B E"]:
        """Pictures (B, 3, Y, X) as unit vectors; NaFlex takes patches (B, P, 3 p²) with their mask and grid."""
        if grid is None:
            mask = None
            x = self.image.embed(pixels)
        else:
            mask = None if patch_mask is None else patch_mask[:, None, None, :]
            x = self.image.embed_patches(pixels, grid)
        return F.normalize(self.pool(self.image.norm(self.image.features(x, mask)), mask), dim=-1)

    def embed_text(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T E"]:
        """Texts as unit vectors, read at the last position; padding was seen in training and is seen here.

        Shorter rows are padded to the context; `mask` is needed for texts padded on the left.
        """
        if mask is not None:
            tokens = to_the_left(tokens, mask)
        tokens = F.pad(tokens, (0, self.cfg.text.context - tokens.shape[1]), value=self.cfg.pad_id)
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
        return Embeddings(image, self.embed_text(tokens, mask), self.log_scale.exp(), self.bias)


_TOWERS = [
    ("vision_model.embeddings.patch_embedding.{p}", "image.patch.{p}"),
    ("vision_model.embeddings.position_embedding.weight", "image.positions"),
    *transformers_blocks("vision_model.encoder.layers", "image.blocks"),
    ("vision_model.post_layernorm.{p}", "image.norm.{p}"),
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
    [*_TOWERS, (Unsqueezed("logit_scale"), "log_scale"), (Unsqueezed("logit_bias"), "bias")],
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


def read_transformers(data: Mapping[str, Any]) -> SigLIPConfig:
    """`config.json` of a `SiglipModel` or, for NaFlex, a `Siglip2Model`."""
    top = Released(data)
    text, image = top.part("text_config"), top.part("vision_config")
    top.skip("logit_scale_init_value", "projection_dim")
    text.skip("bos_token_id", "eos_token_id")
    image.demand("vision_use_head", True)
    vision = read_siglip_vision(image)
    vocab, pad = text.take("vocab_size", int, 32_000), text.take("pad_token_id", int, 1)
    tower = read_tower(text, width=768, heads=12, mlp=3072, act="gelu_pytorch_tanh", eps=1e-6)
    cfg = SigLIPConfig(
        image=vision,
        text=TextConfig(vocab_size=vocab, context=text.take("max_position_embeddings", int, 64), causal=False, **tower),
        embed=text.take("projection_size", int, tower["width"]),
        pad_id=0 if vocab == 256_000 else pad,  # the released version 2 files keep the class default of 1
    )
    for part in (top, text, image):
        part.finish()
    return cfg


def write_transformers(cfg: SigLIPConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network."""
    image, text, kind = cfg.image, cfg.text, "siglip2" if cfg.naflex else "siglip"
    if not cfg.text_head:
        raise BadConfig('the transformers layout always has a text head; save with layout="open_clip"')
    return {
        "architectures": ["Siglip2Model" if cfg.naflex else "SiglipModel"],
        "model_type": kind,
        "vision_config": {"model_type": f"{kind}_vision_model", **write_vision(image)},
        "text_config": {
            "model_type": f"{kind}_text_model",
            **write_text(text),
            "projection_size": cfg.embed,
            "pad_token_id": cfg.pad_id,
        },
    }


def image_spec(cfg: SigLIPConfig) -> ImageSpec:
    """Squashed to the square, bicubic, [−1, 1]; NaFlex keeps the shape and fits the patches into a budget."""
    size = (cfg.image.image_size, cfg.image.image_size)
    if not cfg.naflex:
        return ImageSpec(size=size)
    rows, cols = cfg.image.grid
    return ImageSpec(
        size=size, fit="naflex", resample="bilinear", patch_size=cfg.image.patch_size, max_patches=rows * cols
    )


def text_spec(cfg: SigLIPConfig) -> TextSpec:
    """Lower case, end token last, always padded to the context. Version 1 strips punctuation too."""
    return TextSpec(
        context=cfg.text.context,
        pad_id=cfg.pad_id,
        eos_id=1,
        pad_to_context=True,
        lower=True,
        canonical=cfg.pad_id == 1,
    )


SYSTEM = System(
    name="siglip",
    family="contrastive",
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
    },
    tasks=frozenset({"embed_images", "embed_texts", "match", "classify"}),
    model_types=("siglip", "siglip2"),
    image_spec=image_spec,
    text_spec=text_spec,
)
