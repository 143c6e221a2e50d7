"""VisualGPT: GPT-2 looks at an image, through gates that begin half open.

Chen et al., "VisualGPT: Data-efficient Adaptation of Pretrained Language Models for Image Captioning", 2022. Where the
equations of the paper and its released code differ, this follows the code.

    regions ──encoder──▶ E₁ E₂ E₃
    words ──[ a = x + attention(x);  g = gates(a, what a looks up in each Eₖ);  g + MLP(g) ]── × 12 ──▶ next word

The self-resurrecting activation unit (SRAU): α = σ(W [a; v] + b) weighs the language state a, 1 − α what was seen, v;
a weight at or below the threshold is 0 and passes no gradient, but the other one does, and moves α back.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.backbones.block_keys import clip_vision, siglip_vision
from rebus.backbones.examples import example_pixels, generator
from rebus.backbones.text import gpt2
from rebus.backbones.text.bert import BERTConfig, bert_block, visible
from rebus.backbones.text.causal import last_real
from rebus.backbones.text.gpt2 import GPT2
from rebus.backbones.vision import resnet
from rebus.backbones.vision.resnet import ResNet, ResNetConfig
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.core.errors import BadRegions, BadText, UsageError
from rebus.core.outputs import Predictions, Step
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Layout, System
from rebus.models.cross_attention.visualgpt_config import PRESETS as PRESETS
from rebus.models.cross_attention.visualgpt_config import (
    Fusion,
    VisualGPTConfig,
    infer_config,
    read_config,
    write_config,
)
from rebus.nn.attention import Attention, KeysValues
from rebus.nn.cache import ContextCache
from rebus.nn.masks import attention_mask
from rebus.nn.norms import LayerNorm
from rebus.weights.key_sides import Row, Transposed, nested
from rebus.weights.keymap import KeyMap, OwnNames


def fused(
    a: Float[Tensor, "*B D"],
    seen: list[Float[Tensor, "*B D"]],
    alphas: list[Float[Tensor, "*B D"]],
    *,
    fusion: Fusion = "gates",
    threshold: float = 0.2,
) -> Float[Tensor, "*B D"]:
    """A block's state `a` and what it looked up in each of K encoder levels, `seen`, with the gates `alphas`.

    With L = α where α > threshold, else 0, and V = 1 − α where α < 1 − threshold, else 0 (Sec. 3.3):
    "gates": Σ (L a + V v) / √K, as released; "normalised gates": the mean of (L a + V v) / (L + V), so that gates that
    are shut leave a as it is; "replaced": Σ v / √K; "residual": a + Σ v / √K. From a threshold of 0.5 on both gates can
    be shut at once: then nothing passes.
    """
    scale = len(seen) ** -0.5
    if fusion == "residual":
        return a + sum(seen) * scale
    if fusion == "replaced":
        return sum(seen) * scale
    total = torch.zeros_like(a)
    for v, alpha in zip(seen, alphas, strict=True):
        language = torch.where(alpha > threshold, alpha, 0)
        visual = torch.where(alpha < 1 - threshold, 1 - alpha, 0)
        joined = language * a + visual * v
        if fusion == "normalised gates":
            joined = joined / (language + visual).clamp(min=torch.finfo(a.dtype).tiny)
        total = total + joined
    return total / len(seen) if fusion == "normalised gates" else total * scale


class Seen(NamedTuple):
    """An image as the encoder has it: the regions after each of its layers, (B, R, D), and which are real."""

    levels: tuple[Float[Tensor, "B R D"], ...]
    mask: Bool[Tensor, "B 1 1 R"] | None


class VisualGPT(nn.Module):
    def __init__(self, cfg: VisualGPTConfig):
        super().__init__()
        self.cfg = cfg
        self.image = (
            None if cfg.image is None else ViT(cfg.image) if isinstance(cfg.image, ViTConfig) else ResNet(cfg.image)
        )
        self.encoder = Encoder(cfg)
        self.text = GPT2(cfg.text)
        self.looks = nn.ModuleList(Look(cfg) for _ in range(cfg.text.num_layers))
        self.init_weights()

    def init_weights(self) -> None:
        """As the released code: Xavier for the encoder and for what is looked up with, N(0, 0.02) for what comes out of
        it; gates as PyTorch has linear layers, which leaves them half open. GPT-2's own weights as GPT-2's."""
        for part in (self.encoder, self.looks):
            for name, module in part.named_modules():
                if isinstance(module, nn.Linear) and "gates" not in name:
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.zeros_(module.bias)
        for look in self.looks:
            nn.init.normal_(look.cross.out.weight, std=0.02)  # type: ignore[union-attr, arg-type]

    def see(
        self,
        *,
        pixels: Float[Tensor, "B 3 Y X"] | None = None,
        regions: Float[Tensor, "B R F"] | None = None,
        region_mask: Bool[Tensor, "B R"] | None = None,
        boxes: Tensor | None = None,
    ) -> Seen:
        """Features of regions, or pixels where something makes regions of them. Where regions lie (`boxes`) and in
        which order they come changes nothing: the network receives neither.

        Raises `BadRegions` for features of another width than the network was trained with, and for pixels where
        nothing makes regions of them.
        """
        if pixels is not None:
            if self.image is None:
                raise BadRegions(
                    "this network reads features of regions and has nothing that makes them of an image: give it those "
                    "of a detector (rebus.RegionFiles), or of a network that embeds regions (embed_regions)"
                )
            regions = torch.stack([one.features for one in self.image.region_features(pixels, merge=self.cfg.merge)])
        if regions is None:
            raise UsageError("neither pixels nor regions were given")
        width = self.cfg.region_width
        if regions.shape[2] != width:
            raise BadRegions(
                f"the features of a region are {regions.shape[2]} wide; this network was trained with {width}: take "
                "those of the detector it was trained with"
            )
        mask = None if region_mask is None else visible(region_mask)
        if self.cfg.filled_to:
            if region_mask is not None:
                regions = regions.masked_fill(~region_mask[..., None], 0)
            regions = F.pad(regions, (0, 0, 0, self.cfg.filled_to - regions.shape[1]))  # a negative number cuts
            mask = None
        return Seen(self.encoder(regions, mask), mask)

    def keys_values(self, seen: Seen) -> tuple[KeysValues, ...]:
        """What each block reads of the image, level by level. Its own first norm is that of the image, too."""
        return tuple(
            look.cross.keys_values(block.norm1(level))  # type: ignore[operator, union-attr]
            for look, block in zip(self.looks, self.text.blocks, strict=True)
            for level in seen.levels
        )

    def forward(
        self,
        *,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        targets: Int[Tensor, "T S"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        **image: Tensor,
    ) -> Predictions:
        """Scores of `targets` (−100 at padding), each given the image, the prompt and the targets before it.

        Without targets: of the token after the prompt, (T, 1, V). `image`: as `see` takes it. `owners`: the image of
        each text, where images have several.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        seen = self.see(**image)
        if owners is not None:
            seen = Seen(tuple(x[owners] for x in seen.levels), None if seen.mask is None else seen.mask[owners])
        length = tokens.shape[1]
        if targets is not None:
            given = targets[:, :-1]
            tokens, real = torch.cat([tokens, given.clamp(min=0)], dim=1), torch.cat([real, given >= 0], dim=1)
        self._check_length(tokens.shape[1])
        x = self.text.embed(tokens) + self.text.positions((real.long().cumsum(1) - 1).clamp(min=0))
        allowed = attention_mask(torch.arange(x.shape[1], device=x.device), real)
        context = self.keys_values(seen)
        for i, block in enumerate(self.text.blocks):
            x = block(x, allowed, between=self._look(i, context, seen.mask))
        hidden = self.text.norm(x)
        last = last_real(hidden[:, :length], real[:, :length])[:, None]
        hidden = last if targets is None else torch.cat([last, hidden[:, length:]], dim=1)
        return Predictions(self.text.logits(hidden), hidden)

    def start(
        self, *, room: int, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None = None, **image: Tensor
    ) -> Step:
        """See the image, read the start token and what the caption begins with; space for `room` more tokens."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        slots = tokens.shape[1] + room
        self._check_length(slots - 1)  # the last token needs no position: nothing comes after it
        seen = self.see(**image)
        cache = ContextCache(self.text.empty_cache(len(tokens), slots), self.keys_values(seen), seen.mask)
        hidden, cache = self._go_on(tokens, real, cache)
        return Step(self.text.logits(last_real(hidden, real)), hidden, cache)

    def step(self, token: Int[Tensor, "B"], cache: ContextCache) -> Step:
        """One more word."""
        hidden, cache = self._go_on(token[:, None], torch.ones_like(token[:, None], dtype=torch.bool), cache)
        return Step(self.text.logits(hidden[:, 0]), hidden[:, 0], cache)

    def _go_on(
        self, tokens: Int[Tensor, "B S"], real: Bool[Tensor, "B S"], cache: ContextCache
    ) -> tuple[Float[Tensor, "B S D"], ContextCache]:
        own, positions = cache.own.open(real)
        x = self.text.embed(tokens) + self.text.positions(positions)
        allowed = own.causal()
        for i, block in enumerate(self.text.blocks):
            between = self._look(i, cache.context, cache.mask)
            x = block(x, allowed, remember=partial(own.write, i), between=between)
        return self.text.norm(x), replace(cache, own=own)

    def _look(self, layer: int, context: tuple[KeysValues, ...], mask: Tensor | None) -> "partial[Tensor]":
        """What a block of GPT-2 does between its attention and its MLP."""
        levels, block = self.cfg.num_levels, self.text.blocks[layer]
        return partial(
            self.looks[layer],
            norm=block.norm1,
            context=context[layer * levels : (layer + 1) * levels],
            mask=mask,
        )

    def _check_length(self, length: int) -> None:
        context = self.cfg.text.context
        if length > context:
            raise BadText(
                f"{length} tokens of caption, the start token included; the model has positions for {context}"
            )


def _grid(cfg: ViTConfig | ResNetConfig) -> ViT | ResNet:
    """What makes regions of an image."""
    return ViT(cfg) if isinstance(cfg, ViTConfig) else ResNet(cfg)


class Encoder(nn.Module):
    """Regions look at each other; what every layer gives is kept, for the decoder looks at all of them."""

    def __init__(self, cfg: VisualGPTConfig):
        super().__init__()
        width = cfg.text.width
        own = BERTConfig(width=width, num_heads=cfg.text.num_heads, mlp_width=cfg.mlp_width, act="relu", eps=1e-5)
        self.proj = nn.Linear(cfg.region_width, width)
        self.norm = LayerNorm(width, 1e-5)
        self.blocks = nn.ModuleList(bert_block(own) for _ in range(cfg.num_levels))

    def forward(
        self, regions: Float[Tensor, "B R F"], mask: Bool[Tensor, "B 1 1 R"] | None
    ) -> tuple[Float[Tensor, "B R D"], ...]:
        x = self.norm(F.gelu(self.proj(regions), approximate="tanh"))
        levels = []
        for block in self.blocks:
            x = block(x, mask)
            levels.append(x)
        return tuple(levels)


class Look(nn.Module):
    """One attention to all levels of the encoder, and a gate for each level."""

    def __init__(self, cfg: VisualGPTConfig):
        super().__init__()
        self.fusion, self.threshold, width = cfg.fusion, cfg.threshold, cfg.text.width
        self.cross = Attention(width, cfg.text.num_heads)
        gated = cfg.num_levels if "gates" in cfg.fusion else 0
        self.gates = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(gated))

    def forward(
        self, a: Float[Tensor, "B S D"], *, norm: LayerNorm, context: tuple[KeysValues, ...], mask: Tensor | None
    ) -> Float[Tensor, "B S D"]:
        query = norm(a)
        seen = [self.cross.look_up(query, level, mask) for level in context]
        alphas = [gate(torch.cat([a, v], dim=-1)).sigmoid() for gate, v in zip(self.gates, seen, strict=False)]
        return fused(a, seen, alphas, fusion=self.fusion, threshold=self.threshold)


def keys(cfg: VisualGPTConfig) -> KeyMap:
    """The names in checkpoints of the released training code, which also hold weights that nothing reads."""
    layer, theirs = "encoder.layers.{i}.", "decoder.transformer.h.{i}."
    attention = [
        (f"mhatt.attention.fc_{a}", f"attn.{b}") for a, b in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out"))
    ]
    parts = [*attention, ("mhatt.layer_norm", "norm1"), ("pwff.layer_norm", "norm2")]
    parts += [("pwff.fc1", "mlp.up"), ("pwff.fc2", "mlp.down")]
    rows: list[Row] = [
        ("encoder.fc.{p}", "encoder.proj.{p}"),
        ("encoder.layer_norm.{p}", "encoder.norm.{p}"),
        *((f"{layer}{a}.{{p}}", f"encoder.blocks.{{i}}.{b}.{{p}}") for a, b in parts),
        *nested(gpt2.ROWS, theirs="decoder.", ours="text."),
        *((f"{theirs}enc_dec_attn.fc_{n}.{{p}}", f"looks.{{i}}.cross.{n}.{{p}}") for n in "qkv"),
        (Transposed(theirs + "enc_dec_attn.c_proj.weight"), "looks.{i}.cross.out.weight"),
        (theirs + "enc_dec_attn.c_proj.bias", "looks.{i}.cross.out.bias"),
        *((f"{theirs}fc_alpha{k + 1}.{{p}}", f"looks.{{i}}.gates.{k}.{{p}}") for k in range(cfg.num_levels)),
        *_image_rows(cfg),
    ]
    unread = ["*.c_attn_query.*", "*.c_attn_key.*", "*.c_attn_value.*", "*.enc_dec_attn.c_attn.*", "*attn.bias"]
    return KeyMap(rows, ignore=[*unread, "*running_*", "decoder.lm_head.decoder.weight"], prefixes=["module."])


def _image_rows(cfg: VisualGPTConfig) -> list[Row]:
    """What makes regions of images, which the released code had in files."""
    if isinstance(cfg.image, ViTConfig):
        return nested(clip_vision() if cfg.image.class_token else siglip_vision(), ours="image.")
    return [] if cfg.image is None else nested(resnet.ROWS, theirs="vision_model.", ours="image.")


def image_spec(cfg: VisualGPTConfig) -> ImageSpec | None:
    """As what makes regions of images was trained; None where nothing does."""
    if isinstance(cfg.image, ViTConfig):
        return ImageSpec(size=(cfg.image.image_size, cfg.image.image_size))
    if cfg.image is not None:
        return replace(resnet.image_spec(cfg.image), resize="exact", side=None)  # what stands at the border counts
    return None


def text_spec(cfg: VisualGPTConfig) -> TextSpec:
    """`<? w w w<|endoftext|>`: every word with the space before it. Unless the configuration keeps `punctuation`, texts
    are in lower case without it."""
    return TextSpec(
        context=cfg.text.context,
        vocab_size=cfg.text.vocab_size,
        generates=True,
        pad_id=cfg.pad_id,
        bos_id=cfg.start_id,
        eos_id=cfg.end_id,
        own_ids=True,
        leading_space=True,
        lower=not cfg.punctuation,
        canonical=not cfg.punctuation,
    )


def example(config: VisualGPTConfig, rows: int, *, prompt: int = 1, answer: int = 20) -> dict[str, Tensor]:
    """`rows` images as 50 regions, or as pixels, with random captions."""
    random, text = generator(), config.text
    if config.image is None:
        batch = {"regions": torch.randn(rows, 50, config.region_width, generator=random)}
    else:
        batch = example_pixels(config.image, rows, random)
    words = torch.randint(3, text.vocab_size, (rows, prompt + answer), generator=random)
    words[:, 0] = config.start_id
    return {**batch, "tokens": words[:, :prompt], "targets": words[:, prompt:].contiguous()}


def suited(cfg: VisualGPTConfig) -> dict[str, Any]:
    """How captions are written: five beams by the sum of log-probabilities, as long as those of training."""
    beams = {"strategy": "beam", "num_beams": 5, "length_penalty": 0.0, "max_new_tokens": cfg.max_new_tokens}
    return {"decoding": {"caption": beams}}


SYSTEM = System(
    name="visualgpt",
    network=VisualGPT,
    config=VisualGPTConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=lambda cfg: OwnNames(), read_config=read_config, write_config=write_config
        ),
        "visualgpt": Layout(
            name="visualgpt",
            keys=keys,
            config_file=None,
            recognises=lambda names: any("enc_dec_attn.fc_q" in name for name in names),
            infer_config=infer_config,
        ),
    },
    prompts=Prompts(caption=""),
    objective="next token",
    example=example,
    image_spec=image_spec,
    any_image_size=True,
    text_spec=text_spec,
    suited=suited,
)
