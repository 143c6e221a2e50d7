"""T5 and UL2: an encoder reads a text, a decoder writes the answer; where tokens stand is a bias of attention.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020; T5 1.1 in
Shazeer, "GLU Variants Improve Transformer", 2020; Tay et al., "UL2: Unifying Language Learning Paradigms", 2022.

No linear layer has a bias, attention is not divided by √K, and norms only scale. The parts are open, so that a model
which puts images before the text writes its own forward over `embed`, `encode`, `decode` and `begin`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.core.outputs import Predictions, Step
from rebus.nn.attention import Attention, Bias, KeysValues, Remember
from rebus.nn.cache import Cache, ContextCache
from rebus.nn.embedding import TokenEmbedding
from rebus.nn.linear import Linear
from rebus.nn.masks import attention_mask
from rebus.nn.mlp import MLP, GatedMLP


@dataclass(frozen=True, kw_only=True)
class T5Config:
    width: int = 768
    num_layers: int = 12  # of the encoder
    num_decoder_layers: int = 12
    num_heads: int = 12
    head_width: int = 64
    mlp_width: int = 2048
    mlp: Literal["relu", "gated gelu", "gated silu"] = "gated gelu"  # T5; T5 1.1, mT5, Flan-T5; UL2 as released
    vocab_size: int = 32_128
    context: int = 512  # tokens of a text in training; positions are relative, so the network knows no limit
    tied: bool = False  # T5: the head is the embeddings again, of states that are divided by √width
    num_buckets: int = 32  # of distances
    max_distance: int = 128  # from which all distances are one bucket
    own_positions: bool = False  # umT5: a bias for every layer, not one for each stack
    eps: float = 1e-6
    start_id: int = 0  # the padding token: what the decoder reads first


class T5(nn.Module):
    """A prompt → scores of the tokens of its answer."""

    encoder_decoder = True

    def __init__(self, cfg: T5Config):
        super().__init__()
        self.cfg = cfg
        self.tokens = TokenEmbedding(cfg.vocab_size, cfg.width)
        self.encoder = Stack(cfg, cfg.num_layers, decoder=False)
        self.decoder = Stack(cfg, cfg.num_decoder_layers, decoder=True)
        self.head = None if cfg.tied else Linear(cfg.width, cfg.vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Embeddings N(0, 1), the rest N(0, 1/√inputs); queries smaller by √K, which stands for the missing division
        of attention (Shazeer & Stern, "Adafactor", 2018, App. A)."""
        cfg = self.cfg
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                small = cfg.head_width if name.endswith((".attn.q", ".cross.q")) else 1
                nn.init.normal_(module.weight, std=(module.in_features * small) ** -0.5)
            elif isinstance(module, RelativePositions):
                nn.init.normal_(module.weight, std=cfg.width**-0.5)
        nn.init.normal_(self.tokens.weight)

    def embed(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The tokens' vectors."""
        return self.tokens(tokens)

    def encode(
        self, x: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
        """States of a text that sees itself whole, and where they are real. Padding, wherever it was, comes last, so
        that distances are those of the real tokens."""
        order = (~real).int().argsort(dim=1, stable=True)
        x, real = x.gather(1, order[..., None].expand_as(x)), real.gather(1, order)
        at = torch.arange(x.shape[1], device=x.device)
        return self.encoder(x, real[:, None, None], at, at), real

    def decode(
        self, seen: Float[Tensor, "B N D"], seen_real: Bool[Tensor, "B N"], targets: Int[Tensor, "B S"] | None
    ) -> Float[Tensor, "B S D"]:
        """States from which `targets` (−100 at padding) are predicted, each given those before it; without targets,
        the state of the first token."""
        given = self._begin(len(seen))
        if targets is not None:
            given = torch.cat([given, targets[:, :-1].clamp(min=0)], dim=1)
        at = torch.arange(given.shape[1], device=given.device)
        context = self.decoder.keys_values(seen)
        mask = attention_mask(at)
        return self.decoder(self.embed(given), mask, at, at, seen=context, seen_mask=seen_real[:, None, None])

    def begin(self, seen: Float[Tensor, "B N D"], seen_real: Bool[Tensor, "B N"], room: int) -> Step:
        """The first step of an answer of at most `room` tokens."""
        cfg, weight = self.cfg, self.decoder.norm.weight
        shape = (len(seen), cfg.num_heads, room + 1, cfg.head_width)
        own = Cache.empty(cfg.num_decoder_layers, shape, weight.device, weight.dtype)
        cache = ContextCache(own, self.decoder.keys_values(seen), seen_real[:, None, None])
        return self.step(self._begin(len(seen))[:, 0], cache)

    def step(self, token: Int[Tensor, "B"], cache: ContextCache) -> Step:
        """One more token."""
        own, _ = cache.own.open(torch.ones_like(token[:, None], dtype=torch.bool))
        slots = torch.arange(own.real.shape[1], device=token.device)
        remember = [partial(own.write, layer) for layer in range(self.cfg.num_decoder_layers)]
        x = self.decoder(
            self.embed(token[:, None]),
            own.causal(),
            own.claimed,
            slots,
            seen=cache.context,
            seen_mask=cache.mask,
            remember=remember,
        )[:, 0]
        return Step(self.logits(x), x, replace(cache, own=own))

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Scores over the vocabulary."""
        if self.head is not None:
            return self.head(hidden)
        return self.tokens.scores(hidden * self.cfg.width**-0.5)

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
        targets: Int[Tensor, "B S"] | None = None,
    ) -> Predictions:
        """Scores of `targets` (−100 at padding), each given the prompt and the targets before it; without targets, of
        the first token (B, 1, V)."""
        hidden = self.decode(*self.encode(self.embed(tokens), _real(tokens, mask)), targets)
        return Predictions(self.logits(hidden), hidden)

    def start(self, *, room: int, tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None = None) -> Step:
        """Read prompts; the cache has space for `room` tokens of answer."""
        return self.begin(*self.encode(self.embed(tokens), _real(tokens, mask)), room)

    def _begin(self, rows: int) -> Int[Tensor, "B 1"]:
        return torch.full((rows, 1), self.cfg.start_id, device=self.decoder.norm.weight.device)


def _real(tokens: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask


class Stack(nn.Module):
    """Blocks, their relative position biases, and a norm."""

    def __init__(self, cfg: T5Config, num_layers: int, *, decoder: bool):
        super().__init__()
        self.relative = nn.ModuleList(
            RelativePositions(cfg, both_ways=not decoder) for _ in range(num_layers if cfg.own_positions else 1)
        )
        self.blocks = nn.ModuleList(T5Block(cfg, decoder) for _ in range(num_layers))
        self.norm = nn.RMSNorm(cfg.width, cfg.eps)

    def keys_values(self, seen: Float[Tensor, "B N D"]) -> tuple[KeysValues, ...]:
        """What the encoder made of the prompt, as each block reads it."""
        return tuple(block.cross.keys_values(seen) for block in self.blocks)  # type: ignore[operator, union-attr]

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "#B 1 #S N"],
        queries: Int[Tensor, "S"],
        keys: Int[Tensor, "N"],
        *,
        seen: Sequence[KeysValues] | None = None,
        seen_mask: Bool[Tensor, "C 1 1 M"] | None = None,
        remember: Sequence[Remember] | None = None,
    ) -> Float[Tensor, "B S D"]:
        """`queries`, `keys`: the positions of `x` and of what it looks at."""
        biases = [table(queries, keys) for table in self.relative]
        for i, block in enumerate(self.blocks):
            x = block(
                x,
                mask,
                biases[i % len(biases)],
                None if seen is None else seen[i],
                seen_mask,
                None if remember is None else remember[i],
            )
        return self.norm(x)


class T5Block(nn.Module):
    """Self-attention, in a decoder cross-attention, and an MLP, each of normalised input."""

    def __init__(self, cfg: T5Config, decoder: bool):
        super().__init__()
        self.split_parts = ("attn", "cross", "mlp") if decoder else ("attn", "mlp")
        make_attention = partial(Attention, cfg.width, cfg.num_heads, head_width=cfg.head_width, bias=False, scale=1.0)
        self.norm1, self.attn = nn.RMSNorm(cfg.width, cfg.eps), make_attention()
        self.norm2 = nn.RMSNorm(cfg.width, cfg.eps) if decoder else None
        self.cross = make_attention() if decoder else None
        self.norm3 = nn.RMSNorm(cfg.width, cfg.eps)
        self.mlp: nn.Module = (
            MLP(cfg.width, cfg.mlp_width, "relu", bias=False)
            if cfg.mlp == "relu"
            else GatedMLP(cfg.width, cfg.mlp_width, "silu" if cfg.mlp == "gated silu" else "gelu_tanh")
        )

    def join_products(self) -> None:
        """For inference: one product for queries, keys and values."""
        self.attn.join_qkv()

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "#B 1 #S N"],
        bias: Bias,
        seen: KeysValues | None,
        seen_mask: Bool[Tensor, "C 1 1 M"] | None,
        remember: Remember | None,
    ) -> Float[Tensor, "B S D"]:
        x = x + self.attn(self.norm1(x), mask=mask, bias=bias, remember=remember)
        if self.cross is not None and self.norm2 is not None and seen is not None:
            x = x + self.cross.look_up(self.norm2(x), seen, seen_mask)
        return x + self.mlp(self.norm3(x))


_MOST_SCORES = 2**28  # of a bias that is held whole: half a gigabyte in bfloat16


class RelativePositions(nn.Module):
    """What attention adds to the score of a key at distance key − query: a number for each head and bucket.

    Near distances have a bucket each, farther ones share them in logarithmic steps up to `max_distance`. An encoder
    looks both ways and gives half of the buckets to either; a decoder looks back only (Sec. 2.1).
    """

    def __init__(self, cfg: T5Config, *, both_ways: bool):
        super().__init__()
        self.max_distance, self.both_ways = cfg.max_distance, both_ways
        self.weight = nn.Parameter(torch.zeros(cfg.num_buckets, cfg.num_heads))

    def forward(self, queries: Int[Tensor, "Q"], keys: Int[Tensor, "N"]) -> Bias:
        """The bias (1, H, Q, N) of positions, or a function that gives its rows where it is too large to be held."""
        if len(queries) * len(keys) * self.weight.shape[1] <= _MOST_SCORES:
            return self._rows(queries, keys)
        rows: Callable[[int, int], Tensor] = lambda first, last: self._rows(queries[first:last], keys)  # noqa: E731
        return rows

    def _rows(self, queries: Int[Tensor, "Q"], keys: Int[Tensor, "N"]) -> Float[Tensor, "1 H Q N"]:
        buckets = self.buckets(keys - queries[:, None])
        return nn.functional.embedding(buckets, self.weight).permute(2, 0, 1)[None]

    def buckets(self, distance: Int[Tensor, "Q N"]) -> Int[Tensor, "Q N"]:
        """The bucket of each distance key − query."""
        number = len(self.weight) // 2 if self.both_ways else len(self.weight)
        far = distance.abs() if self.both_ways else -distance.clamp(max=0)
        exact = number // 2
        steps = torch.log(far.clamp(min=1) / exact) / math.log(self.max_distance / exact) * (number - exact)
        bucket = torch.where(far < exact, far, (exact + steps.long()).clamp(max=number - 1))
        return bucket + (distance > 0) * number if self.both_ways else bucket
