"""PaliGemma and PaliGemma 2: SigLIP's image encoder, one linear layer, and Gemma writes the answer.

Beyer et al., "PaliGemma: A versatile 3B VLM for transfer", 2024; Steiner et al., "PaliGemma 2", 2024.

    [image tokens][BOS prompt newline] | [answer EOS]      left of the bar everybody sees everybody,
                                                             right of it each token sees what came before
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.block_keys import big_vision_image, siglip_vision
from rebus.backbones.examples import generative_example
from rebus.backbones.text.gemma import Gemma, GemmaConfig
from rebus.backbones.text.gemma_layouts import gemma_rows
from rebus.backbones.vision.mask_vqvae import RELEASED_FILE, load_npz
from rebus.backbones.vision.vit import ViT, ViTConfig
from rebus.codec.boxes import LOC_1024
from rebus.core.outputs import Predictions, Step
from rebus.core.specs import ImageSpec, Prompts, TextSpec
from rebus.core.system import Companion, Layout, System
from rebus.models.unified.image_prefix import embed_prefix
from rebus.models.unified.paligemma_config import (
    GEMMA,
    GEMMA2,
    GEMMA2_9B,
    GEMMA2_27B,
    SO400M,
    infer_big_vision,
    read_transformers,
    write_transformers,
)
from rebus.models.unified.paligemma_config import PaliGemmaConfig as PaliGemmaConfig
from rebus.nn.cache import Cache
from rebus.nn.masks import causal_blocks
from rebus.weights.key_sides import nested
from rebus.weights.keymap import KeyMap
from rebus.weights.npz import big_vision


def _sizes(name: str, text: GemmaConfig) -> dict[str, PaliGemmaConfig]:
    sizes = (224, 448, 896)
    return {f"{name}_{s}": PaliGemmaConfig(image=replace(SO400M, image_size=s), text=text) for s in sizes}


PRESETS = {
    "tiny": PaliGemmaConfig(
        image=ViTConfig(width=32, num_layers=2, num_heads=4, mlp_width=48, patch_size=8, image_size=24),
        text=GemmaConfig(
            width=24, num_layers=2, num_heads=4, num_kv_heads=1, head_width=8, mlp_width=48, vocab_size=96
        ),
        image_id=95,
    ),
    "tiny2": PaliGemmaConfig(
        image=ViTConfig(width=32, num_layers=2, num_heads=4, mlp_width=48, patch_size=8, image_size=24),
        text=replace(
            GEMMA2, width=24, num_layers=3, num_heads=4, num_kv_heads=2, head_width=8, mlp_width=48, vocab_size=96
        ),
        image_id=95,
    ),
    **_sizes("3b", GEMMA),
    **_sizes("v2_3b", GEMMA2),
    **_sizes("v2_10b", GEMMA2_9B),
    **_sizes("v2_28b", GEMMA2_27B),
}


class PaliGemma(nn.Module):
    sees_once = True

    def __init__(self, cfg: PaliGemmaConfig):
        super().__init__()
        self.cfg = cfg
        self.image = ViT(cfg.image)
        self.image_proj = nn.Linear(cfg.image.width, cfg.text.width)
        self.text = Gemma(cfg.text)
        self.init_weights()

    def init_weights(self) -> None:
        """The projection starts at zero: the language model begins as it was, blind."""
        nn.init.zeros_(self.image_proj.weight)
        nn.init.zeros_(self.image_proj.bias)

    def see(self, pixels: Float[Tensor, "M 3 Y X"]) -> Float[Tensor, "M P D"]:
        """Images as vectors of the language model's width."""
        return self.project(self.look(pixels))

    def look(self, pixels: Float[Tensor, "M 3 Y X"]) -> Float[Tensor, "M P C"]:
        """The features of each patch."""
        return self.image(pixels)

    def project(self, features: Float[Tensor, "M P C"]) -> Float[Tensor, "M P D"]:
        """What `look` found, at the width of the text."""
        return self.image_proj(features)

    def forward(
        self,
        *,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        targets: Int[Tensor, "T S"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        seen: Float[Tensor, "M P D"] | None = None,
    ) -> Predictions:
        """Scores of `targets` (−100 at padding), each given the prefix and the targets before it; images and owners
        as in `image_prefix.embed_prefix`.

        Without targets: the scores (T, 1, V) of the first token after the prefix.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        x = embed_prefix(self, tokens, pixels, image_mask, owners, seen)
        length = tokens.shape[1]
        if targets is not None:
            given = targets[:, :-1]
            x = torch.cat([x, self.text.embed(given.clamp(min=0))], dim=1)
            real = torch.cat([real, given >= 0], dim=1)
        blocks = causal_blocks(length, x.shape[1], x.device).expand(len(x), -1)
        positions = (real.long().cumsum(1) - 1).clamp(min=0)
        hidden = self.text.decode(x, blocks=blocks, real=real, positions=positions)
        last = _last(hidden[:, :length], real[:, :length])[:, None]
        return Predictions(self.text.logits(torch.cat([last, hidden[:, length:]], dim=1)))

    def start(
        self,
        *,
        room: int,
        pixels: Tensor | None = None,
        image_mask: Bool[Tensor, "B N"] | None = None,
        tokens: Int[Tensor, "T L"],
        mask: Bool[Tensor, "T L"] | None = None,
        owners: Int[Tensor, "T"] | None = None,
        seen: Float[Tensor, "M P D"] | None = None,
    ) -> Step:
        """Read images and prompts; the cache has space for `room` tokens of answer."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        cache = self.text.empty_cache(len(tokens), tokens.shape[1] + room)
        prefix = embed_prefix(self, tokens, pixels, image_mask, owners, seen)
        hidden, cache = self.text.decode_cached(prefix, real, cache, whole=True)
        last = _last(hidden, real)
        return Step(self.text.logits(last), last, cache)

    def step(self, token: Int[Tensor, "B"], cache: Cache) -> Step:
        """One more token of the answer."""
        real = torch.ones_like(token[:, None], dtype=torch.bool)
        hidden, cache = self.text.decode_cached(self.text.embed(token[:, None]), real, cache, whole=False)
        return Step(self.text.logits(hidden[:, 0]), hidden[:, 0], cache)


def _last(hidden: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
    """The state at each row's last real token, whichever side is padded."""
    at = (real * torch.arange(1, real.shape[1] + 1, device=real.device)).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), at]


_VISION = [
    *nested(siglip_vision(), theirs="vision_tower.", ours="image."),
    ("multi_modal_projector.linear.{p}", "image_proj.{p}"),
]


def keys(cfg: PaliGemmaConfig) -> KeyMap:
    """The Hub's names; those that the reference class uses in memory, and newer flattened ones, are read too."""
    return KeyMap(
        [*_VISION, *gemma_rows(cfg.text, "language_model.model.", "text.")],
        ignore=["*.position_ids", "vision_tower.*head.*", "language_model.lm_head.weight", "lm_head.weight"],
        also=[
            ("model.language_model.", "language_model.model."),
            ("model.vision_tower.", "vision_tower."),
            ("model.multi_modal_projector.", "multi_modal_projector."),
            ("vision_tower.", "vision_tower.vision_model."),
        ],
    )


_LLM = "llm/layers_{i}/"
_BIG_VISION = [
    *big_vision_image(),
    ("img/head/{p}", "image_proj.{p}"),
    ("llm/embedder/input_embedding", "text.tokens.weight"),
    ("llm/final_norm/weight", "text.norm.weight"),
    (_LLM + "pre_attention_norm/weight", "text.blocks.{i}.norm1.weight"),
    (_LLM + "pre_ffw_norm/weight", "text.blocks.{i}.norm2.weight"),
    (_LLM + "post_attention_norm/weight", "text.blocks.{i}.norm_attn.weight"),
    (_LLM + "post_ffw_norm/weight", "text.blocks.{i}.norm_mlp.weight"),
    *(
        (_LLM + f"attn/{theirs}/weight", f"text.blocks.{{i}}.attn.{ours}.weight")
        for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out"))
    ),
    *((_LLM + f"mlp/{n}/weight", f"text.blocks.{{i}}.mlp.{n}.weight") for n in ("gate", "up", "down")),
]


def image_spec(cfg: PaliGemmaConfig) -> ImageSpec:
    """Squashed to the square, bicubic as the Hub's processor does it, [−1, 1]."""
    return ImageSpec(size=(cfg.image.image_size, cfg.image.image_size))


def text_spec(cfg: PaliGemmaConfig) -> TextSpec:
    """Image tokens, BOS, prompt and a newline that is tokenised alone; answers end with EOS."""
    return TextSpec(
        context=cfg.text.context,
        vocab_size=cfg.text.vocab_size,
        generates=True,
        pad_id=0,
        bos_id=2,
        eos_id=1,
        separator="\n",
        image_token_id=cfg.image_id,
        num_image_tokens=cfg.num_image_tokens,
    )


SYSTEM = System(
    name="paligemma",
    network=PaliGemma,
    config=PaliGemmaConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=keys, read_config=read_transformers, write_config=write_transformers
        ),
        "big_vision": Layout(
            name="big_vision",
            keys=lambda cfg: KeyMap(_BIG_VISION),
            config_file=None,
            recognises=lambda names: any(name.removeprefix("params/").startswith("llm/") for name in names),
            infer_config=infer_big_vision,
            prepare=big_vision,
        ),
    },
    prompts=Prompts(
        caption="caption en",
        ask="answer en {question}",
        detect="detect {labels}",
        segment="segment {phrase}",
        classify="caption en",
    ),
    objective="next token",
    example=generative_example,
    image_spec=image_spec,
    text_spec=text_spec,
    locations=LOC_1024,
    companions={
        "mask_decoder": Companion(
            file=RELEASED_FILE,
            load=load_npz,
            tasks=frozenset({"segment"}),
            purpose="mask tokens cannot be turned into masks",
        )
    },
)
