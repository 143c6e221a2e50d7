"""PaliGemma's configuration, and its spelling in the released files of transformers and big_vision."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rebus.backbones.released_configs import Shapes, read_siglip_vision, write_vision
from rebus.backbones.text.gemma import GemmaConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.errors import BadConfig
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


_LAYER_TYPES = ("sliding_attention", "full_attention")


def read_transformers(data: Mapping[str, Any]) -> PaliGemmaConfig:
    """`config.json` of a `PaliGemmaForConditionalGeneration`; absent fields mean that library's defaults."""
    top = Released(data)
    text, image = top.part("text_config"), top.part("vision_config")
    top.skip("hidden_size", "projection_dim", "ignore_index", "vocab_size", "pad_token_id", "bos_token_id")
    top.skip("eos_token_id", "num_image_tokens", "_vocab_size")
    image.skip("projector_hidden_act", "num_image_tokens", "vision_use_head", "vocab_size", "num_positions")
    vision = read_siglip_vision(image)
    second = text.data.get("model_type", "gemma") == "gemma2"
    defaults = (2304, 26, 8, 4, 9216) if second else (3072, 28, 16, 16, 24_576)
    head_width = text.take("head_dim", int, 256)
    for name in ("hidden_act", "hidden_activation"):
        text.demand(name, "gelu_pytorch_tanh")
    text.demand("attention_bias", False)
    text.demand("rope_scaling", None)
    text.skip("num_image_tokens", "pad_token_id", "bos_token_id", "eos_token_id", "use_bidirectional_attention")
    text.skip("cache_implementation")
    rope = text.part("rope_parameters")
    rope.demand("rope_type", "default")
    base = text.take("rope_theta", float, rope.take("rope_theta", float, 10_000.0))
    window = text.take("sliding_window", int | None, 4096) if second else None
    num_layers = text.take("num_hidden_layers", int, defaults[1])
    kinds = text.take("layer_types", tuple[str, ...], ())
    if set(kinds) <= {"full_attention"}:
        window = None if kinds else window
    elif not second or kinds != tuple(_LAYER_TYPES[i % 2] for i in range(num_layers)):
        raise BadConfig(f"{text.where}.layer_types: only sliding and full attention in turn is supported; got {kinds}")
    decoder = GemmaConfig(
        generation=2 if second else 1,
        width=text.take("hidden_size", int, defaults[0]),
        num_layers=num_layers,
        num_heads=text.take("num_attention_heads", int, defaults[2]),
        num_kv_heads=text.take("num_key_value_heads", int, defaults[3]),
        mlp_width=text.take("intermediate_size", int, defaults[4]),
        head_width=head_width,
        vocab_size=text.take("vocab_size", int, 256_000),
        context=text.take("max_position_embeddings", int, 8192),
        rope_base=base,
        eps=text.take("rms_norm_eps", float, 1e-6),
        query_scale=text.take("query_pre_attn_scalar", float, 256.0) if second else None,
        score_cap=text.take("attn_logit_softcapping", float | None, 50.0) if second else None,
        logit_cap=text.take("final_logit_softcapping", float | None, 30.0) if second else None,
        # 4096 is what the released files say because their class wants a value; the runs that made the weights
        # attended fully in every layer (big_vision), which differs at 896 px only
        window=None if window == 4096 else window,
    )
    image_id = top.take("image_token_index", int, top.take("image_token_id", int, 256_000))
    for part in (top, text, image, rope):
        part.finish()
    return PaliGemmaConfig(image=vision, text=decoder, image_id=image_id)


def write_transformers(cfg: PaliGemmaConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network."""
    image, text, second = cfg.image, cfg.text, cfg.text.generation == 2
    scale = text.query_scale or text.head_width
    caps = {
        "query_pre_attn_scalar": int(scale) if scale == int(scale) else scale,  # the reference wants whole numbers
        "attn_logit_softcapping": text.score_cap,
        "final_logit_softcapping": text.logit_cap,
        "sliding_window": text.window or 4096,
    }
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
        "text_config": {
            "model_type": "gemma2" if second else "gemma",
            "hidden_size": text.width,
            "num_hidden_layers": text.num_layers,
            "num_attention_heads": text.num_heads,
            "num_key_value_heads": text.num_kv_heads,
            "head_dim": text.head_width,
            "intermediate_size": text.mlp_width,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context,
            "rope_theta": text.rope_base,
            "rms_norm_eps": text.eps,
            "hidden_activation": "gelu_pytorch_tanh",
            "num_image_tokens": cfg.num_image_tokens,
            **(caps if second else {"hidden_act": "gelu_pytorch_tanh"}),
        },
    }
