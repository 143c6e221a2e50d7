"""Florence-2's configuration, and its spelling in transformers and in the code that was released with the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rebus.backbones.text.bart import BARTConfig, read_fields, write_fields
from rebus.backbones.vision.davit import DaViTConfig, read_vision, write_vision
from rebus.core.released_config import Released


@dataclass(frozen=True, kw_only=True)
class Florence2Config:
    image: DaViTConfig = field(default_factory=DaViTConfig)
    text: BARTConfig = field(default_factory=lambda: BARTConfig(vocab_size=51_289))
    num_positions: int = 50  # rows and columns of the largest map of features
    num_frames: int = 100
    image_id: int = 51_289  # the placeholder that an image's vectors replace; it may lie beyond the vocabulary
    num_beams: int = 3  # how answers are decoded where nobody says otherwise
    no_repeat: int = 3  # so many tokens in a row never come twice in an answer; 0: they may

    @property
    def num_image_tokens(self) -> int:
        """Of an image of the size that the network was trained with: one for all places, then one for each."""
        rows, columns = self.image.grid
        return 1 + rows * columns

    @property
    def padded_vocab(self) -> int:
        """Rows of the table in transformers' layout, which holds the placeholder: a multiple of 64 as that library
        has it, where the release's own table ends before."""
        own = self.text.vocab_size
        return own if self.image_id < own else -(-(self.image_id + 1) // 64) * 64


def is_original(data: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of the code that was released with the weights."""
    vision = data.get("vision_config")
    return isinstance(vision, Mapping) and ("dim_embed" in vision or vision.get("model_type") == "davit")


def read_config(data: Mapping[str, Any]) -> Florence2Config:
    """`config.json` of a `Florence2ForConditionalGeneration`, of transformers or as released."""
    top = Released(data)
    text, image = top.part("text_config"), top.part("vision_config")
    top.demand("is_encoder_decoder", True)
    top.skip("auto_map", "ignore_index", "vocab_size", "projection_dim", "pad_token_id", "bos_token_id", "eos_token_id")
    top.skip("forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id")
    num_beams, no_repeat = text.take("num_beams", int, 3), text.take("no_repeat_ngram_size", int, 3)
    bart = read_fields(text)
    bart = replace(bart, vocab_size=text.size("used_vocab_size", bart.vocab_size))
    image.demand("projection_dim", bart.width)
    image.demand("image_feature_source", ["spatial_avg_pool", "temporal_avg_pool"])
    image.skip("enable_checkpoint")
    places, frames = image.part("image_pos_embed"), image.part("visual_temporal_embedding")
    places.demand("type", "learned_abs_2d")
    frames.demand("type", "COSINE")
    cfg = Florence2Config(
        image=read_vision(image),
        text=bart,
        num_positions=image.size("max_position_embeddings", places.size("max_pos_embeddings", 50)),
        num_frames=image.size("max_temporal_embeddings", frames.size("max_temporal_embeddings", 100)),
        image_id=top.take("image_token_id", int, 51_289),
        num_beams=num_beams,
        no_repeat=no_repeat,
    )
    for part in (top, text, image, places, frames):
        part.finish()
    return cfg


def write_transformers(cfg: Florence2Config) -> dict[str, Any]:
    """The `config.json` from which transformers builds the same network."""
    vision = {
        **write_vision(cfg.image),
        "projection_dim": cfg.text.width,
        "max_position_embeddings": cfg.num_positions,
        "max_temporal_embeddings": cfg.num_frames,
    }
    data = _top(cfg, vision)
    if cfg.padded_vocab != cfg.text.vocab_size:  # the second is ours alone, and others pass it over
        data["text_config"] |= {"vocab_size": cfg.padded_vocab, "used_vocab_size": cfg.text.vocab_size}
    return data


def write_original(cfg: Florence2Config) -> dict[str, Any]:
    """The `config.json` that the released code reads."""
    vision = {
        **write_vision(cfg.image, original=True),
        "projection_dim": cfg.text.width,
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": cfg.num_positions},
        "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": cfg.num_frames},
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
    }
    return {**_top(cfg, vision), "projection_dim": cfg.text.width, "vocab_size": cfg.text.vocab_size}


def _top(cfg: Florence2Config, vision: dict[str, Any]) -> dict[str, Any]:
    text, ids = write_fields(cfg.text), ("pad_token_id", "bos_token_id", "eos_token_id")
    decoding = {"num_beams": cfg.num_beams, "no_repeat_ngram_size": cfg.no_repeat, "early_stopping": True}
    return {
        "architectures": ["Florence2ForConditionalGeneration"],
        "model_type": "florence2",
        "is_encoder_decoder": True,
        "image_token_id": cfg.image_id,
        **{name: text[name] for name in ids},
        "vision_config": vision,
        "text_config": {**text, **decoding},
    }
