"""SigLIP's configuration, and its spelling in the released files of transformers, open_clip and big_vision."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rebus.backbones.released_configs import (
    Shapes,
    mlp_ratio,
    read_encoder,
    read_open_clip_kwargs,
    read_siglip_vision,
    write_open_clip_kwargs,
    write_text,
    write_vision,
)
from rebus.backbones.text.encoder import TextConfig
from rebus.backbones.vision.vit import ViTConfig
from rebus.core.errors import BadConfig
from rebus.core.released_config import Released

OPEN_CLIP = "open_clip_config.json"


def siglip_text(**fields: Any) -> TextConfig:
    """SigLIP's text encoder: Base, version 1, where nothing else is said."""
    defaults = {"width": 768, "num_heads": 12, "mlp_width": 3072, "vocab_size": 32_000, "context": 64}
    return TextConfig(causal=False, act="gelu_tanh", **{**defaults, "eps": 1e-6, **fields})


@dataclass(frozen=True, kw_only=True)
class SigLIPConfig:
    image: ViTConfig = field(default_factory=ViTConfig)
    text: TextConfig = field(default_factory=siglip_text)
    embed: int = 768
    text_head: bool = True  # so400m i18n was released without the linear layer after the text encoder
    pad_id: int = 1  # version 1 pads with its end token, version 2 with 0; what was padded is seen

    @property
    def naflex(self) -> bool:
        """Images keep their shape and arrive as patches."""
        return self.image.flat_patches


def _released_pad(vocab_size: int) -> int:
    """The padding of released models whose files do not say it: those of version 2 have a vocabulary of 256,000."""
    return 0 if vocab_size == 256_000 else 1


def read_transformers(data: Mapping[str, Any]) -> SigLIPConfig:
    """`config.json` of a `SiglipModel` or, for NaFlex, a `Siglip2Model`."""
    top = Released(data)
    text, image = top.part("text_config"), top.part("vision_config")
    top.skip("logit_scale_init_value", "projection_dim")
    text.skip("bos_token_id", "eos_token_id")
    image.demand("vision_use_head", True)
    vision = read_siglip_vision(image)
    vocab = text.size("vocab_size", 32_000)
    encoder = read_encoder(text, width=768, heads=12, mlp=3072, act="gelu_pytorch_tanh", eps=1e-6)
    cfg = SigLIPConfig(
        image=vision,
        text=TextConfig(vocab_size=vocab, context=text.size("max_position_embeddings", 64), causal=False, **encoder),
        embed=text.size("projection_size", encoder["width"]),
        pad_id=text.take("pad_token_id", int, _released_pad(vocab)),
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


def infer_big_vision(shapes: Mapping[str, tuple[int, ...]]) -> SigLIPConfig:
    """The configuration of a big_vision archive, from the shapes of its arrays."""
    found = Shapes(shapes)
    vocab, _ = found.of("txt/Embed_0/embedding")
    positions = found.of("txt/pos_embedding")
    head = "txt/head/kernel" in found
    encoder = found.encoder("txt/")
    return SigLIPConfig(
        image=found.image(),
        text=siglip_text(vocab_size=vocab, context=positions[-2], **encoder),
        embed=found.of("txt/head/kernel")[-1] if head else encoder["width"],
        text_head=head,
        pad_id=_released_pad(vocab),
    )


_TIMM = {  # open_clip names its SigLIP vision encoders by timm's names
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}


def read_open_clip(data: Mapping[str, Any]) -> SigLIPConfig:
    """`open_clip_config.json`. Both encoders get tanh-GELU, with which the weights were trained; open_clip itself runs
    some of them with exact GELU."""
    file = Released(data, OPEN_CLIP)
    file.skip("preprocess_cfg")
    top = file.part("model_cfg")
    image, text = top.part("vision_cfg"), top.part("text_cfg")
    top.skip("init_logit_bias", "init_logit_scale", "custom_text")
    image.skip("timm_model_pretrained")
    image.demand("timm_pool", "map")
    image.demand("timm_proj", "none")
    text.skip("hf_tokenizer_name", "tokenizer_kwargs")
    text.demand("no_causal_mask", True)
    text.demand("pool_type", "last")
    name = image.take("timm_model_name", str)
    match = re.fullmatch(r"vit_(\w+)_patch(\d+)_siglip(?:_gap)?(?:_\d+)?", name)
    if match is None or match[1] not in _TIMM:
        raise BadConfig(f"{OPEN_CLIP}.model_cfg.vision_cfg.timm_model_name: {name!r} is no SigLIP encoder we know")
    width, layers, heads, mlp = _TIMM[match[1]]
    text_width, vocab = text.size("width", 512), text.size("vocab_size", 49_408)
    _, eps = read_open_clip_kwargs(text, "gelu_tanh")
    cfg = SigLIPConfig(
        image=ViTConfig(
            width=width,
            num_layers=layers,
            num_heads=heads,
            mlp_width=mlp,
            patch_size=int(match[2]),
            image_size=image.size("image_size", 224),
        ),
        text=siglip_text(
            width=text_width,
            num_layers=text.layers("layers", 12),
            num_heads=text.size("heads", 8),
            mlp_width=int(text_width * text.positive("mlp_ratio", 4.0)),
            vocab_size=vocab,
            context=text.size("context_length", 77),
            eps=eps,
        ),
        embed=top.size("embed_dim"),
        text_head=text.take("proj_type", str, "linear") != "none",
        pad_id=text.take("pad_id", int, _released_pad(vocab)),
    )
    text.skip("proj_bias")
    for part in (file, top, image, text):
        part.finish()
    return cfg


def write_open_clip(cfg: SigLIPConfig) -> dict[str, Any]:
    """The `model_cfg` of `open_clip_config.json`; its encoders have published sizes only."""
    image, text = cfg.image, cfg.text
    size = (image.width, image.num_layers, image.num_heads, image.mlp_width)
    name = next((known for known, dims in _TIMM.items() if dims == size), None)
    if name is None or cfg.naflex:
        raise BadConfig("the open_clip layout has SigLIP vision encoders of the published fixed sizes only")
    return {
        "model_cfg": {
            "embed_dim": cfg.embed,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {
                "image_size": image.image_size,
                "timm_model_name": f"vit_{name}_patch{image.patch_size}_siglip_{image.image_size}",
                "timm_model_pretrained": False,
                "timm_pool": "map",
                "timm_proj": "none",
            },
            "text_cfg": {
                "context_length": text.context,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.num_heads,
                "layers": text.num_layers,
                "mlp_ratio": mlp_ratio(text),
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                **write_open_clip_kwargs(text),
                **({} if cfg.pad_id == _released_pad(text.vocab_size) else {"pad_id": cfg.pad_id}),
                **({} if cfg.text_head else {"proj_type": "none"}),
            },
        }
    }
