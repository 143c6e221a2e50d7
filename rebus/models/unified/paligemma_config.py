"""PaliGemma's configuration, and its spelling in the released files of transformers and big_vision."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rebus.backbones.released_configs import Shapes, read_siglip_vision, write_vision
from rebus.backbones.text.gemma import GemmaConfig
from rebus.backbones.text.gemma_layouts import read_gemma, write_gemma
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.released_config import Released

SO400M = ViTConfig(width=1152, num_layers=27, num_heads=16, mlp_width=4304, patch_size=14)
GEMMA = GemmaConfig(vocab_size=257_152)
GEMMA2 = replace(
    GEMMA,
    generation=2,
    width=2304,
    num_layers=26,
    num_kv_heads=4,
    mlp_width=9216,
    query_scale=256.0,
    score_cap=50.0,
    logit_cap=30.0,
)
GEMMA2_9B = replace(GEMMA2, width=3584, num_layers=42, num_heads=16, num_kv_heads=8, mlp_width=14_336)
GEMMA2_27B = replace(
    GEMMA2,
    width=4608,
    num_layers=46,
    num_heads=32,
    num_kv_heads=16,
    head_width=128,
    mlp_width=36_864,
    query_scale=144.0,
)


@dataclass(frozen=True, kw_only=True)
class PaliGemmaConfig:
    image: ViTConfig = field(default_factory=lambda: SO400M)
    text: GemmaConfig = field(default_factory=lambda: GEMMA)
    image_id: int = 257_152  # the placeholder that an image's vectors replace

    @property
    def num_image_tokens(self) -> int:
        rows, cols = self.image.grid
        return rows * cols


def infer_big_vision(shapes: Mapping[str, tuple[int, ...]]) -> PaliGemmaConfig:
    """The configuration of a big_vision archive, from the shapes of its arrays."""
    found = Shapes(shapes)
    vocab, width = found.of("llm/embedder/input_embedding")
    layers, heads, _, head_width = found.of("llm/layers", "q_einsum")
    kv_heads, mlp = found.of("llm/layers", "kv_einsum")[-3], found.of("llm/layers", "gating_einsum")[-1]
    sizes: dict[str, Any] = {
        "width": width,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_width": head_width,
        "mlp_width": mlp,
        "vocab_size": vocab,
    }
    second = "post_attention_norm" in found
    text = replace(GEMMA2 if second else GEMMA, **sizes)
    if second:  # 27B scales by width / heads, the others by their head width
        text = replace(text, query_scale=144.0 if width == 4608 else float(head_width))
    return PaliGemmaConfig(image=found.image(), text=text, image_id=vocab)


def read_transformers(data: Mapping[str, Any]) -> PaliGemmaConfig:
    """`config.json` of a `PaliGemmaForConditionalGeneration`; absent fields mean that library's defaults."""
    top = Released(data)
    text, image = top.part("text_config"), top.part("vision_config")
    top.skip("hidden_size", "projection_dim", "ignore_index", "vocab_size", "pad_token_id", "bos_token_id")
    top.skip("eos_token_id", "num_image_tokens", "_vocab_size")
    image.skip("projector_hidden_act", "num_image_tokens", "vision_use_head", "vocab_size", "num_positions")
    vision = read_siglip_vision(image)
    decoder = read_gemma(text)
    image_id = top.take("image_token_index", int, top.take("image_token_id", int, 256_000))
    for part in (top, text, image):
        part.finish()
    return PaliGemmaConfig(image=vision, text=decoder, image_id=image_id)


def write_transformers(cfg: PaliGemmaConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network."""
    image, text = cfg.image, cfg.text
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "model_type": "paligemma",
        "image_token_index": cfg.image_id,
        "projection_dim": text.width,
        "hidden_size": text.width,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "vision_config": {
            "model_type": "siglip_vision_model",
            **write_vision(image),
            "num_image_tokens": cfg.num_image_tokens,
            "projection_dim": text.width,
            "vision_use_head": False,
        },
        "text_config": {**write_gemma(text), "num_image_tokens": cfg.num_image_tokens},
    }
