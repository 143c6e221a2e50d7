"""BART: an encoder that sees a whole text, a decoder that writes another one.

Lewis et al., "BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and
Comprehension", 2019. Both normalise after each sum; one table of tokens serves encoder, decoder and output.

The parts are open (`embed`, `encode`, `predict`, `begin`), so that a model which puts images among the tokens of the
encoder writes its own forward over them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.core.errors import BadText
from rebus.core.outputs import Predictions, Step
from rebus.core.released_config import Released
from rebus.core.specs import TextSpec
from rebus.core.system import Layout, System
from rebus.nn.block import PostNormBlock
from rebus.nn.cache import Cache, ContextCache
from rebus.nn.decoder import Decoder
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.masks import attention_mask
from rebus.nn.norms import LayerNorm
from rebus.nn.only_shapes import only_shapes
from rebus.weights.key_sides import Row, nested
from rebus.weights.keymap import KeyMap
from rebus.weights.tied_tables import one_table

EPS = 1e-5
OFFSET = 2  # rows of the tables of positions that no token uses, inherited from fairseq


@dataclass(frozen=True, kw_only=True)
class BARTConfig:
    width: int = 768
    num_layers: int = 6  # of the encoder
    num_decoder_layers: int = 6
    num_heads: int = 12
    mlp_width: int = 3072
    vocab_size: int = 50_265
    context: int = 1024
    pad_id: int = 1
    bos_id: int = 0
    eos_id: int = 2
    start_id: int = 2  # what the decoder reads before the first token


PRESETS = {
    "tiny": BARTConfig(
        width=24, num_layers=2, num_decoder_layers=3, num_heads=3, mlp_width=40, vocab_size=96, context=64
    ),
    "base": BARTConfig(),
    "large": BARTConfig(width=1024, num_layers=12, num_decoder_layers=12, num_heads=16, mlp_width=4096),
}


class BART(nn.Module):
    """Tokens of one text → scores of the tokens of another."""

    encoder_decoder = True

    def __init__(self, cfg: BARTConfig):
        super().__init__()
        self.cfg = cfg
        self.tokens = TokenEmbedding(cfg.vocab_size, cfg.width, padding_idx=cfg.pad_id)
        self.encoder = Encoder(cfg)
        self.positions = nn.Embedding(cfg.context + OFFSET, cfg.width)
        self.norm = LayerNorm(cfg.width, EPS)
        self.decoder = Decoder(cfg.width, cfg.num_decoder_layers, cfg.num_heads, cfg.mlp_width, pre_norm=False, eps=EPS)
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.02), biases and the row of padding zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.tokens.weight[self.cfg.pad_id].zero_()

    def embed(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The tokens' vectors; those of their positions are added by `encode`."""
        return self.tokens(tokens)

    def encode(self, x: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """States of the encoder; `real` is False at padding, on either side. Raises `BadText` beyond the context."""
        self._check_length(real, "text to be read, images included")
        return self.encoder(x, real)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary."""
        return self.tokens.scores(hidden)

    def predict(
        self, seen: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"], targets: Int[Tensor, "B S"] | None
    ) -> Predictions:
        """Scores of `targets` (−100 at padding), each given what was encoded and the targets before it; without
        targets, of the first token (B, 1, V)."""
        start = torch.full((len(seen), 1), self.cfg.start_id, device=seen.device)
        given = start if targets is None else torch.cat([start, targets[:, :-1].clamp(min=0)], dim=1)
        self._check_length(torch.ones_like(given, dtype=torch.bool), "answer")
        at = torch.arange(given.shape[1], device=given.device)
        x = self._read(given, at.expand_as(given))
        hidden = self.decoder(x, self.decoder.keys_values(seen), attention_mask(at), seen_mask=real[:, None, None])
        return Predictions(self.logits(hidden))

    def begin(self, seen: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"], room: int) -> Step:
        """The first step of an answer of at most `room` tokens."""
        cfg, weight = self.cfg, self.positions.weight
        if room >= cfg.context:
            raise BadText(f"max_new_tokens {room:,}: an answer has fewer than {cfg.context:,} tokens")
        shape = (len(seen), cfg.num_heads, room + 1, cfg.width // cfg.num_heads)  # and what it begins with
        own = Cache.empty(cfg.num_decoder_layers, shape, weight.device, weight.dtype)
        cache = ContextCache(own, self.decoder.keys_values(seen), real[:, None, None])
        return self.step(torch.full((len(seen),), cfg.start_id, device=seen.device), cache)

    def step(self, token: Int[Tensor, "B"], cache: ContextCache) -> Step:
        """One more token."""
        own, positions = cache.own.open(torch.ones_like(token[:, None], dtype=torch.bool))
        remember = [partial(own.write, layer) for layer in range(self.cfg.num_decoder_layers)]
        x = self._read(token[:, None], positions)
        hidden = self.decoder(x, cache.context, own.causal(), seen_mask=cache.mask, remember=remember)[:, 0]
        return Step(self.logits(hidden), hidden, replace(cache, own=own))

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
        targets: Int[Tensor, "B S"] | None = None,
    ) -> Predictions:
        """Scores of `targets` after the text `tokens`, as in `predict`."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        return self.predict(self.encode(self.embed(tokens), real), real, targets)

    def start(self, *, room: int, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None = None) -> Step:
        """Read texts; space for `room` tokens of answer."""
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        return self.begin(self.encode(self.embed(tokens), real), real, room)

    def _read(self, tokens: Int[Tensor, "B S"], positions: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The decoder's input."""
        return self.norm(self.tokens(tokens) + self.positions(positions + OFFSET))

    def _check_length(self, real: Bool[Tensor, "B L"], what: str) -> None:
        """Padding needs no positions: rows are counted only where they might be too long."""
        if real.shape[1] <= self.cfg.context or torch.compiler.is_compiling() or only_shapes(real):
            return
        if (length := int(real.sum(dim=1).max())) > self.cfg.context:
            raise BadText(f"{length:,} tokens of {what}; the model has {self.cfg.context:,} positions")


class Encoder(nn.Module):
    """Vectors of tokens, among which every one sees every other."""

    def __init__(self, cfg: BARTConfig):
        super().__init__()
        self.positions = nn.Embedding(cfg.context + OFFSET, cfg.width)
        self.norm = LayerNorm(cfg.width, EPS)
        self.blocks = nn.ModuleList(
            PostNormBlock(cfg.width, cfg.num_heads, cfg.mlp_width, eps=EPS) for _ in range(cfg.num_layers)
        )

    def forward(self, x: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        at = (real.long().cumsum(1) - 1).clamp(min=0)
        x = self.norm(x + self.positions(at + OFFSET))
        for block in self.blocks:
            x = block(x, real[:, None, None])
        return x


def _layers(theirs: str, ours: str, parts: Mapping[str, str]) -> list[Row]:
    """The layers of one side; `parts`: names of attention and norms there → ours."""
    layer, block = theirs + "layers.{i}.", ours + "blocks.{i}."
    table: list[Row] = [(f"{layer}{a}.{{p}}", f"{block}{b}.{{p}}") for a, b in parts.items() if "norm" in a]
    for a, b in parts.items():
        if "norm" not in a:
            names = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "out"}
            table += [(f"{layer}{a}.{one}.{{p}}", f"{block}{b}.{other}.{{p}}") for one, other in names.items()]
    return [*table, (layer + "fc1.{p}", block + "mlp.up.{p}"), (layer + "fc2.{p}", block + "mlp.down.{p}")]


_NORMS = {"self_attn_layer_norm": "norm1", "self_attn": "attn"}
ROWS: list[Row] = [
    ("shared.weight", "tokens.weight"),
    ("encoder.embed_positions.weight", "encoder.positions.weight"),
    ("encoder.layernorm_embedding.{p}", "encoder.norm.{p}"),
    ("decoder.embed_positions.weight", "positions.weight"),
    ("decoder.layernorm_embedding.{p}", "norm.{p}"),
    *_layers("encoder.", "encoder.", {**_NORMS, "final_layer_norm": "norm2"}),
    *_layers(
        "decoder.",
        "decoder.",
        {**_NORMS, "encoder_attn_layer_norm": "norm2", "encoder_attn": "cross", "final_layer_norm": "norm3"},
    ),
]
TABLES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # one table, tied


def read_fields(part: Released) -> BARTConfig:
    """A BART's fields, alone or inside another configuration; absent fields mean the reference library's defaults."""
    part.demand("activation_function", "gelu")
    part.demand("scale_embedding", False)
    part.demand("normalize_before", False)
    part.demand("add_final_layer_norm", False)
    part.demand("normalize_embedding", True)
    part.demand("is_encoder_decoder", True)
    part.skip("num_hidden_layers", "hidden_size", "num_attention_heads", "encoder_layerdrop", "decoder_layerdrop")
    part.skip("activation_dropout", "classifier_dropout", "classif_dropout", "init_std", "is_decoder")
    part.skip("add_bias_logits", "static_position_embeddings", "extra_pos_embeddings", "gradient_checkpointing")
    part.skip("max_length", "min_length", "num_beams", "early_stopping", "length_penalty", "no_repeat_ngram_size")
    part.skip("forced_bos_token_id", "forced_eos_token_id", "num_labels", "force_bos_token_to_be_generated")
    heads, mlp = part.size("encoder_attention_heads", 16), part.size("encoder_ffn_dim", 4096)
    part.demand("decoder_attention_heads", heads, 16)
    part.demand("decoder_ffn_dim", mlp, 4096)
    return BARTConfig(
        width=part.size("d_model", 1024),
        num_layers=part.layers("encoder_layers", 12),
        num_decoder_layers=part.layers("decoder_layers", 12),
        num_heads=heads,
        mlp_width=mlp,
        vocab_size=part.size("vocab_size", 50_265),
        context=part.size("max_position_embeddings", 1024),
        pad_id=part.take("pad_token_id", int, 1),
        bos_id=part.take("bos_token_id", int, 0),
        eos_id=part.take("eos_token_id", int, 2),
        start_id=part.take("decoder_start_token_id", int, 2),
    )


def write_fields(cfg: BARTConfig) -> dict[str, Any]:
    """The reverse of `read_fields`, and the tokens that every answer begins and ends with."""
    return {
        "model_type": "bart",
        "d_model": cfg.width,
        "encoder_layers": cfg.num_layers,
        "decoder_layers": cfg.num_decoder_layers,
        "encoder_attention_heads": cfg.num_heads,
        "decoder_attention_heads": cfg.num_heads,
        "encoder_ffn_dim": cfg.mlp_width,
        "decoder_ffn_dim": cfg.mlp_width,
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.context,
        "pad_token_id": cfg.pad_id,
        "bos_token_id": cfg.bos_id,
        "eos_token_id": cfg.eos_id,
        "decoder_start_token_id": cfg.start_id,
        "forced_bos_token_id": cfg.bos_id,
        "forced_eos_token_id": cfg.eos_id,
        "is_encoder_decoder": True,
    }


def read_transformers(data: Mapping[str, Any]) -> BARTConfig:
    """`config.json` of a `BartForConditionalGeneration`."""
    fields = Released(data)
    cfg = read_fields(fields)
    fields.finish()
    return cfg


def keys(cfg: BARTConfig) -> KeyMap:
    """The names of a `BartForConditionalGeneration`, or without `model.` of a `BartModel`."""
    also = [(part, "model." + part) for part in ("shared.", "encoder.", "decoder.")]
    return KeyMap(nested(ROWS, theirs="model."), ignore=["final_logits_bias"], also=also)


def text_spec(cfg: BARTConfig) -> TextSpec:
    """`<s> text </s>` on both sides."""
    return TextSpec(
        context=cfg.context,
        vocab_size=cfg.vocab_size,
        generates=True,
        pad_id=cfg.pad_id,
        bos_id=cfg.bos_id,
        eos_id=cfg.eos_id,
        eos_after_prompt=True,
        bos_before_answer=True,
    )


SYSTEM = System(
    name="bart",
    network=BART,
    config=BARTConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers",
            keys=keys,
            read_config=read_transformers,
            write_config=lambda cfg: {"architectures": ["BartForConditionalGeneration"], **write_fields(cfg)},
            prepare=lambda tensors: one_table(
                tensors, [p + name for p in ("model.", "") for name in TABLES] + ["lm_head.weight"]
            ),
        )
    },
    text_spec=text_spec,
    objective="next token",
)
