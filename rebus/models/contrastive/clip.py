"""CLIP: two encoders, one space, a softmax over the batch.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.block_keys import clip_vision, open_clip_blocks, transformers_blocks
from rebus.backbones.examples import dual_encoder_example
from rebus.backbones.released_configs import timm_encoder
from rebus.backbones.text.encoder import TextConfig, TextEncoder, to_the_left
from rebus.backbones.vision.vit import ViT, ViTConfig, init_like_clip
from rebus.core.outputs import Embeddings
from rebus.core.specs import ImageSpec, TextSpec
from rebus.core.system import Layout, System
from rebus.models.contrastive.clip_config import CLIPConfig as CLIPConfig
from rebus.models.contrastive.clip_config import (
    clip_vit,
    read_open_clip,
    read_transformers,
    write_open_clip,
    write_transformers,
)
from rebus.models.contrastive.clip_resnet import KEYS as RESNET_KEYS
from rebus.models.contrastive.clip_resnet import CLIPResNet, CLIPResNetConfig
from rebus.nn.pooling import first_id, largest_id
from rebus.weights.key_sides import Transposed, nested
from rebus.weights.keymap import KeyMap


def _open(width: int, layers: int, heads: int, mlp: int, embed: int, text_width: int, text_layers: int) -> CLIPConfig:
    """The larger models of open_clip: 14 px patches, exact GELU."""
    return CLIPConfig(
        image=clip_vit(width=width, num_layers=layers, num_heads=heads, mlp_width=mlp, patch_size=14, act="gelu"),
        text=TextConfig(
            width=text_width,
            num_layers=text_layers,
            num_heads=text_width // 64,
            mlp_width=4 * text_width,
            act="gelu",
        ),
        embed=embed,
    )


def _resnet(layers: tuple[int, int, int, int], width: int, size: int, embed: int, text_width: int) -> CLIPConfig:
    return CLIPConfig(
        image=CLIPResNetConfig(layers=layers, width=width, image_size=size, embed=embed),
        text=TextConfig(width=text_width, num_heads=text_width // 64, mlp_width=4 * text_width),
        embed=embed,
    )


_B32 = CLIPConfig()
_L14 = CLIPConfig(
    image=clip_vit(width=1024, num_layers=24, num_heads=16, mlp_width=4096, patch_size=14),
    text=TextConfig(width=768, num_heads=12, mlp_width=3072),
    embed=768,
)


def _exact(cfg: CLIPConfig) -> CLIPConfig:
    """The same size as open_clip trains it: exact GELU."""
    assert isinstance(cfg.image, ViTConfig)
    return replace(cfg, image=replace(cfg.image, act="gelu"), text=replace(cfg.text, act="gelu"))


PRESETS = {
    "tiny": CLIPConfig(
        image=clip_vit(width=32, num_layers=2, num_heads=4, mlp_width=64, patch_size=8, image_size=24),
        text=TextConfig(width=24, num_layers=2, num_heads=2, mlp_width=48, vocab_size=64, context=12),
        embed=16,
    ),
    "tiny_resnet": CLIPConfig(
        image=CLIPResNetConfig(layers=(1, 1, 1, 1), width=8, image_size=64, embed=16),
        text=TextConfig(width=24, num_layers=1, num_heads=2, mlp_width=48, vocab_size=64, context=12),
        embed=16,
    ),
    "b32": _B32,
    "b16": replace(_B32, image=clip_vit(patch_size=16)),
    "l14": _L14,
    "b32_gelu": _exact(_B32),
    "b16_gelu": _exact(replace(_B32, image=clip_vit(patch_size=16))),
    "l14_gelu": _exact(_L14),
    "l14_336": replace(_L14, image=replace(_L14.image, image_size=336)),
    "b16_plus_240": CLIPConfig(
        image=clip_vit(width=896, num_heads=14, mlp_width=3584, patch_size=16, image_size=240, act="gelu"),
        text=TextConfig(width=640, num_heads=10, mlp_width=2560, act="gelu"),
        embed=640,
    ),
    "h14": _open(1280, 32, 16, 5120, 1024, 1024, 24),
    "g14": _open(1408, 40, 16, 6144, 1024, 1024, 24),
    "bigg14": _open(1664, 48, 16, 8192, 1280, 1280, 32),
    "rn50": _resnet((3, 4, 6, 3), 64, 224, 1024, 512),
    "rn101": _resnet((3, 4, 23, 3), 64, 224, 512, 512),
    "rn50x4": _resnet((4, 6, 10, 6), 80, 288, 640, 640),
    "rn50x16": _resnet((6, 8, 18, 8), 96, 384, 768, 768),
    "rn50x64": _resnet((3, 15, 36, 10), 128, 448, 1024, 1024),
}


class CLIP(nn.Module):
    def __init__(self, cfg: CLIPConfig):
        super().__init__()
        self.cfg = cfg
        if isinstance(cfg.image, ViTConfig):
            self.image: ViT | CLIPResNet = ViT(cfg.image)
            self.image_proj: nn.Module = nn.Linear(cfg.image.width, cfg.embed, bias=False)
        else:
            self.image = CLIPResNet(cfg.image)
            self.image_proj = nn.Identity()  # the attention pool has projected already
        self.text = TextEncoder(cfg.text)
        self.text_proj = nn.Linear(cfg.text.width, cfg.embed, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # Sec. 2.5: a temperature of 0.07
        self.bias = nn.Parameter(torch.tensor(-10.0)) if cfg.logit_bias else None
        self.init_weights()

    def init_weights(self) -> None:
        """The initial values of the released training code."""
        if isinstance(self.image, ViT):
            init_like_clip(self.image.blocks, self.image.cfg.width)
            assert isinstance(self.image_proj, nn.Linear)
            nn.init.normal_(self.image_proj.weight, std=self.image.cfg.width**-0.5)
        init_like_clip(self.text.blocks, self.text.cfg.width)
        nn.init.normal_(self.text_proj.weight, std=self.text.cfg.width**-0.5)

    @property
    def scale(self) -> Tensor:
        """By which cosines are multiplied."""
        return self.log_scale.exp()

    @torch.no_grad()
    def limit_scale(self, most: float) -> None:
        """Put a scale that has left 1 … `most` back at the nearer end."""
        self.log_scale.clamp_(0, math.log(most))

    def embed_image(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B E"]:
        """Images as unit vectors."""
        if isinstance(self.image, ViT):
            x = self.image.features(self.image.embed(pixels))
            pooled = self.image_proj(self.image.norm(x[:, 0]))  # the class token alone is normalised and projected
        else:
            pooled = self.image(pixels)
        return F.normalize(pooled, dim=-1)

    def embed_text(self, tokens: Int[Tensor, "T L"], mask: Bool[Tensor, "T L"] | None = None) -> Float[Tensor, "T E"]:
        """Texts as unit vectors, read at their end-of-text token. `mask` is needed for texts padded on the left.

        Raises `BadText` for a text without an end token.
        """
        if mask is not None:
            tokens = to_the_left(tokens.masked_fill(~mask, 0), mask)
        x = self.text(tokens)
        end = self.cfg.end_id
        pooled = largest_id(x, tokens) if end is None else first_id(x, tokens, end)
        return F.normalize(self.text_proj(pooled), dim=-1)

    def forward(
        self,
        pixels: Float[Tensor, "B 3 Y X"],
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
    ) -> Embeddings:
        return Embeddings(self.embed_image(pixels), self.embed_text(tokens, mask), self.scale, self.bias)


KEYS = KeyMap(
    [
        *nested(clip_vision(), ours="image."),
        ("visual_projection.weight", "image_proj.weight"),
        ("text_model.embeddings.token_embedding.weight", "text.tokens.weight"),
        ("text_model.embeddings.position_embedding.weight", "text.positions"),
        *transformers_blocks("text_model.encoder.layers", "text.blocks"),
        ("text_model.final_layer_norm.{p}", "text.norm.{p}"),
        ("text_projection.weight", "text_proj.weight"),
        ("logit_scale", "log_scale"),
    ],
    ignore=["*.position_ids"],
)
_OPEN_CLIP_TEXT = [
    ("token_embedding.weight", "text.tokens.weight"),
    ("positional_embedding", "text.positions"),
    *open_clip_blocks("transformer.resblocks", "text.blocks"),
    ("ln_final.{p}", "text.norm.{p}"),
    (Transposed("text_projection"), "text_proj.weight"),
    ("logit_scale", "log_scale"),
    ("logit_bias", "bias"),
]
_OPEN_CLIP_VIT = [
    ("visual.class_embedding", "image.class_token"),
    ("visual.conv1.weight", "image.patch.weight"),
    ("visual.positional_embedding", "image.positions"),
    ("visual.ln_pre.{p}", "image.norm_pre.{p}"),
    *open_clip_blocks("visual.transformer.resblocks", "image.blocks"),
    ("visual.ln_post.{p}", "image.norm.{p}"),
    (Transposed("visual.proj"), "image_proj.weight"),
]


def _open_clip_keys(cfg: CLIPConfig) -> KeyMap:
    vision = _OPEN_CLIP_VIT if isinstance(cfg.image, ViTConfig) else RESNET_KEYS
    return KeyMap(
        [*vision, *_OPEN_CLIP_TEXT],
        ignore=["input_resolution", "context_length", "vocab_size", "attn_mask"],
        prefixes=["module."],
        also=[("text.", "")],  # models with a "custom text" encoder nest its names
    )


def image_spec(cfg: CLIPConfig) -> ImageSpec:
    """Shorter side to size, centre crop, bicubic; OpenAI's means."""
    return ImageSpec(
        size=(cfg.image.image_size, cfg.image.image_size),
        resize="shorter",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )


def text_spec(cfg: CLIPConfig) -> TextSpec:
    """Start token, text, end token, zeros; lower case. Start and end are the last two ids, as OpenAI has them."""
    last = cfg.text.vocab_size - 1
    return TextSpec(
        context=cfg.text.context,
        vocab_size=cfg.text.vocab_size,
        pad_id=0,
        bos_id=last - 1,
        eos_id=last,
        read_at="largest" if cfg.end_id is None else cfg.end_id,
        lower=True,
        clean=True,
    )


def text_side(cfg: CLIPConfig) -> CLIP:
    """The network without what sees images."""
    network = CLIP(cfg)
    del network.image, network.image_proj
    return network


SYSTEM = System(
    name="clip",
    network=CLIP,
    config=CLIPConfig,
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
            keys=_open_clip_keys,
            config_file="open_clip_config.json",
            recognises=lambda data: "siglip" not in timm_encoder(data),
            read_config=read_open_clip,
            write_config=write_open_clip,
            weights_name="open_clip_model",
            antialias=True,
        ),
    },
    objective="softmax",
    example=dual_encoder_example,
    image_spec=image_spec,
    text_spec=text_spec,
    text_side=text_side,
)
