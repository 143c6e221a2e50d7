"""BERT: every word sees every other; one vector a word, or one a sentence.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2018; as a sentence
encoder, Reimers & Gurevych, "Sentence-BERT", 2019.

Its blocks normalise after each sum (post-LN), as the first transformers did: what leaves a block is normalised, and
the residual path is not an open road. Newer networks normalise before (`rebus.nn.block`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.errors import BadText
from rebus.core.released_config import ACT_TO_RELEASED, Released, read_act
from rebus.core.specs import TextSpec
from rebus.core.system import Layout, System
from rebus.nn.block import PostNormBlock
from rebus.nn.norms import LayerNorm
from rebus.nn.pooling import masked_mean
from rebus.weights.keymap import KeyMap


@dataclass(frozen=True, kw_only=True)
class BERTConfig:
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    vocab_size: int = 30_522
    context: int = 512
    num_types: int = 2  # segments: first and second sentence; VisualBERT: words and regions
    act: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    eps: float = 1e-12
    pooler: bool = False  # tanh layer over the first token, trained by next-sentence prediction; sentences do without
    pad_id: int = 0


PRESETS = {
    "tiny": BERTConfig(width=24, num_layers=2, num_heads=3, mlp_width=40, vocab_size=67, context=21),
    "base": BERTConfig(pooler=True),
    "large": BERTConfig(width=1024, num_layers=24, num_heads=16, mlp_width=4096, pooler=True),
    "minilm_l6": BERTConfig(width=384, num_layers=6, mlp_width=1536, pooler=True),
}


class BERT(nn.Module):
    """Tokens → one vector each. Openable: `embed`, then `blocks`, so that a model may put images among the words."""

    def __init__(self, cfg: BERTConfig):
        super().__init__()
        self.cfg = cfg
        self.tokens = nn.Embedding(cfg.vocab_size, cfg.width)
        self.positions = nn.Embedding(cfg.context, cfg.width)
        self.types = nn.Embedding(cfg.num_types, cfg.width)
        self.norm = LayerNorm(cfg.width, cfg.eps)
        self.blocks = nn.ModuleList(bert_block(cfg) for _ in range(cfg.num_layers))
        self.pooler = nn.Linear(cfg.width, cfg.width) if cfg.pooler else None
        self.init_weights()

    def init_weights(self) -> None:
        """N(0, 0.02) for embeddings and linear layers, biases zero (Sec. A.2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def embed(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
        types: Int[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """Word + position + segment, normalised. Positions count real tokens, so padding may stand on either side."""
        if tokens.shape[1] > self.cfg.context:
            raise BadText(f"text of {tokens.shape[1]} tokens is longer than the context of {self.cfg.context}")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        at = (real.long().cumsum(1) - 1).clamp(min=0)
        kinds = torch.zeros_like(tokens) if types is None else types
        return self.norm(self.tokens(tokens) + self.types(kinds) + self.positions(at))

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
        types: Int[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """The state of each token after the last block; at padding it means nothing."""
        x = self.embed(tokens, mask, types)
        for block in self.blocks:
            x = block(x, None if mask is None else visible(mask))
        return x

    def pool(self, x: Float[Tensor, "B L D"], mask: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B D"]:
        """tanh(W x + b) of the first real token (Sec. 3.1). Raises if the network was built without a pooler."""
        assert self.pooler is not None, "BERTConfig(pooler=True) builds the pooler"
        first = x[:, 0] if mask is None else x[torch.arange(len(x), device=x.device), mask.int().argmax(1)]
        return torch.tanh(self.pooler(first))

    def embed_text(self, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B D"]:
        """Sentences as unit vectors: the mean over real tokens (Sentence-BERT, Sec. 3), normalised."""
        return F.normalize(masked_mean(self(tokens, mask), mask), dim=-1)


def bert_block(cfg: BERTConfig) -> PostNormBlock:
    """One of its blocks."""
    return PostNormBlock(cfg.width, cfg.num_heads, cfg.mlp_width, act=cfg.act, eps=cfg.eps)


def visible(mask: Bool[Tensor, "B L"]) -> Bool[Tensor, "B 1 1 L"]:
    """Who may be looked at. A row without any real token looks at all of its padding, so that no softmax is empty."""
    return (mask | ~mask.any(1, keepdim=True))[:, None, None, :]


def text_spec(cfg: BERTConfig) -> TextSpec:
    """[CLS] words [SEP], lower case; the ids of the released English vocabularies."""
    return TextSpec(context=cfg.context, vocab_size=cfg.vocab_size, pad_id=cfg.pad_id, bos_id=101, eos_id=102)


_LAYER, _BLOCK = "encoder.layer.{i}.", "blocks.{i}."
_NORMS = [
    ("embeddings.LayerNorm", "norm"),
    (_LAYER + "attention.output.LayerNorm", _BLOCK + "norm1"),
    (_LAYER + "output.LayerNorm", _BLOCK + "norm2"),
]
ROWS = [
    ("embeddings.word_embeddings.weight", "tokens.weight"),
    ("embeddings.position_embeddings.weight", "positions.weight"),
    ("embeddings.token_type_embeddings.weight", "types.weight"),
    (_LAYER + "attention.self.query.{p}", _BLOCK + "attn.q.{p}"),
    (_LAYER + "attention.self.key.{p}", _BLOCK + "attn.k.{p}"),
    (_LAYER + "attention.self.value.{p}", _BLOCK + "attn.v.{p}"),
    (_LAYER + "attention.output.dense.{p}", _BLOCK + "attn.out.{p}"),
    (_LAYER + "intermediate.dense.{p}", _BLOCK + "mlp.up.{p}"),
    (_LAYER + "output.dense.{p}", _BLOCK + "mlp.down.{p}"),
    *((theirs + ".{p}", ours + ".{p}") for theirs, ours in _NORMS),
    # The first releases, converted from TensorFlow, call a norm's weight gamma and its bias beta.
    *((theirs + ".gamma", ours + ".weight") for theirs, ours in _NORMS),
    *((theirs + ".beta", ours + ".bias") for theirs, ours in _NORMS),
]


def keys(cfg: BERTConfig) -> KeyMap:
    """The transformers layout; `bert.` in front or not, the heads of pretraining dropped."""
    dropped = ["embeddings.position_ids", "cls.*"]
    if cfg.pooler:
        return KeyMap([*ROWS, ("pooler.dense.{p}", "pooler.{p}")], ignore=dropped, prefixes=["bert."])
    return KeyMap(ROWS, ignore=[*dropped, "pooler.dense.*"], prefixes=["bert."])


def read_transformers(data: Mapping[str, Any]) -> BERTConfig:
    """`config.json` of a `BertModel`; whether sentences have a use for its pooler it does not say, so there is none."""
    return read_fields(Released(data))


def read_fields(fields: Released, *, pooler: bool = False) -> BERTConfig:
    """The same for a part of a larger configuration; raises `BadConfig` for what is unknown or not supported."""
    fields.demand("position_embedding_type", "absolute")
    fields.demand("is_decoder", False)
    fields.skip("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "architectures")
    fields.skip("bos_token_id", "eos_token_id")
    cfg = BERTConfig(
        width=fields.size("hidden_size", 768),
        num_layers=fields.layers("num_hidden_layers", 12),
        num_heads=fields.size("num_attention_heads", 12),
        mlp_width=fields.size("intermediate_size", 3072),
        vocab_size=fields.size("vocab_size", 30_522),
        context=fields.size("max_position_embeddings", 512),
        num_types=fields.size("type_vocab_size", 2),
        act=read_act(fields, "hidden_act", "gelu"),  # type: ignore[arg-type]
        eps=fields.positive("layer_norm_eps", 1e-12),
        pooler=pooler,
        pad_id=fields.take("pad_token_id", int, 0),
    )
    fields.finish()
    return cfg


def write_transformers(cfg: BERTConfig) -> dict[str, Any]:
    """The `config.json` from which the reference class builds the same network."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "intermediate_size": cfg.mlp_width,
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.context,
        "type_vocab_size": cfg.num_types,
        "hidden_act": ACT_TO_RELEASED[cfg.act],
        "layer_norm_eps": cfg.eps,
        "pad_token_id": cfg.pad_id,
    }


SYSTEM = System(
    name="bert",
    network=BERT,
    config=BERTConfig,
    presets=PRESETS,
    layouts={
        "transformers": Layout(
            name="transformers", keys=keys, read_config=read_transformers, write_config=write_transformers
        )
    },
    text_spec=text_spec,
)
