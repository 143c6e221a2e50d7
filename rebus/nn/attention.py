"""Attention: queries ask keys, and mix the values. Vaswani et al. 2017.

Heads may share keys and values: as many as queries (multi-head), fewer (grouped), or one (multi-query).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from rebus.core.errors import UsageError
from rebus.nn.blocks import Split
from rebus.nn.linear import Linear, join_layers
from rebus.nn.only_shapes import only_shapes
from rebus.nn.rope import rotate

Rope = tuple[Tensor, Tensor]
KeysValues = tuple[Tensor, Tensor]  # of a context, (B, kv heads, S, head width) each
Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # new keys and values → all keys and values
Bias = Tensor | Callable[[int, int], Tensor]  # (B or 1, H, Q, S), or (first, last) → these queries' rows of it


_QUERIES_AT_A_TIME = 512  # where the bias is worked out in parts


def attend(
    q: Float[Tensor, "B H Q K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    mask: Bool[Tensor, "#B 1 #Q S"] | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    bias: Bias | None = None,
) -> Float[Tensor, "B H Q K"]:
    """softmax(scale · q kᵀ + bias) v over the allowed keys. `scale` is 1/√K unless given. `bias`, such as that of
    relative positions, goes with neither `causal` nor `softcap`; one that is too large to be held comes as a function,
    and some queries are done at a time.

    `softcap` c bends the scores to c · tanh(scores / c) (Gemma 2), which fused kernels cannot express.
    """
    if callable(bias):
        slices = ((i, min(i + _QUERIES_AT_A_TIME, q.shape[2])) for i in range(0, q.shape[2], _QUERIES_AT_A_TIME))
        parts = (
            attend(
                q[:, :, i:j],
                k,
                v,
                mask if mask is None or mask.shape[2] == 1 else mask[:, :, i:j],
                scale=scale,
                bias=bias(i, j),
            )
            for i, j in slices
        )
        return torch.cat(list(parts), dim=2)
    if bias is not None:
        bias = bias.to(q.dtype)  # before the mask, since the least float32 is −∞ in bfloat16
        allowed = bias if mask is None else bias.masked_fill(~mask, torch.finfo(q.dtype).min)
        return F.scaled_dot_product_attention(q, k, v, allowed, scale=scale)
    heads, queries = q.shape[1:3]
    groups = heads // k.shape[1]
    if groups > 1 and queries == 1:  # one new token: the heads of a group become queries, no key is repeated
        q = q.reshape(q.shape[0], k.shape[1], groups, q.shape[3])
    shared = groups > 1 and queries > 1
    if _is_lone_query(queries, q.is_cuda):
        out = _attend_plain(q, k, v, mask, causal, scale, softcap)
    elif softcap is None:
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=shared)
    elif only_shapes(q):  # the fused kernel keeps what that of plain scores keeps, and reads the mask as it is
        out = F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=shared)
    elif q.is_cuda and q.shape[-1] >= _LEAST_FLEX_WIDTH:
        out = _attend_flex(q, k, v, mask, causal, scale, softcap)
    else:
        out = _attend_plain(q, k, v, mask, causal, scale, softcap)
    return out.reshape(out.shape[0], heads, queries, out.shape[-1])


def _is_lone_query(queries: int, on_gpu: bool) -> bool:
    """A fused kernel would leave all keys of a row to one multiprocessor; products spread over many."""
    return on_gpu and queries == 1


def _attend_plain(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None, softcap: float | None
) -> Tensor:
    """The same as products of matrices and a softmax in float32."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()[None, None]
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v


_LEAST_FLEX_WIDTH = 16  # of a head: flex attention takes none below
_flex: Callable[..., Tensor] | None = None


def _attend_flex(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None, softcap: float
) -> Tensor:
    """The same on a GPU, where flex attention fuses cap and mask and never writes the scores to memory."""
    global _flex
    from torch.nn.attention.flex_attention import flex_attention

    if _flex is None:
        _flex = torch.compile(flex_attention, dynamic=True)

    def bend(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        score = softcap * torch.tanh(score / softcap)
        if mask is not None:
            row = b if mask.shape[0] > 1 else b * 0
            query = i if mask.shape[2] > 1 else i * 0
            score = torch.where(mask[row, 0, query, j], score, -float("inf"))
        return torch.where(i >= j, score, -float("inf")) if causal else score

    return _flex(q, k, v, score_mod=bend, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


class Attention(nn.Module):
    """Self-attention, or cross-attention when `context` is given.

    `num_kv_heads` below `num_heads` shares keys and values between heads. `qk_norm` builds a norm over the head
    width that is put on queries and keys (ViT-22B, Chameleon). `context_width`: of the context, where it has another.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_width: int | None = None,
        context_width: int | None = None,
        bias: bool = True,
        scale: float | None = None,
        softcap: float | None = None,
        qk_norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads or num_heads
        self.head_width = head_width or width // num_heads
        self.scale, self.softcap = scale, softcap
        self.q = Linear(width, self.num_heads * self.head_width, bias)
        self.k = Linear(context_width or width, self.num_kv_heads * self.head_width, bias)
        self.v = Linear(context_width or width, self.num_kv_heads * self.head_width, bias)
        self.qkv: nn.Module | None = None  # takes the place of q, k and v once they are joined
        self.out = Linear(self.num_heads * self.head_width, width, bias)
        self.q_norm = qk_norm(self.head_width) if qk_norm else nn.Identity()
        self.k_norm = qk_norm(self.head_width) if qk_norm else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "#B Q D"],
        context: Float[Tensor, "B S C"] | None = None,
        *,
        mask: Bool[Tensor, "#B 1 #Q N"] | None = None,
        causal: bool = False,
        rope: Rope | None = None,
        remember: Remember | None = None,
        bias: Bias | None = None,
    ) -> Float[Tensor, "B Q O"]:
        """`rope` turns queries and keys; `remember` swaps the new keys and values for all that were ever seen; `bias`
        is added to the scores. A lone row of queries (of a batch of 1) asks the keys of every row.
        """
        q, k, v = self._project(x, x if context is None else context)
        q = self.q_norm(self._heads(q, self.num_heads))
        k = self.k_norm(self._heads(k, self.num_kv_heads))
        v = self._heads(v, self.num_kv_heads)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        if remember is not None:
            k, v = remember(k, v)
        if len(q) != len(k):
            q = q.expand(len(k), -1, -1, -1)
        out = attend(q, k, v, mask, causal=causal, scale=self.scale, softcap=self.softcap, bias=bias)
        return self.out(out.transpose(1, 2).flatten(2))  # B H Q K → B Q (H K)

    def weights(
        self,
        x: Float[Tensor, "#B Q D"],
        context: Float[Tensor, "B S C"] | None = None,
        *,
        mask: Bool[Tensor, "#B 1 #Q N"] | None = None,
        causal: bool = False,
        rope: Rope | None = None,
        remember: None = None,
        bias: Tensor | None = None,
    ) -> Float[Tensor, "B H Q S"]:
        """How much each query looks at each key, float32, in rows that sum to 1: what `forward`, which takes the same,
        mixes values by. Of whole inputs, not of what a cache remembers."""
        q, k, _ = self._project(x, x if context is None else context)
        q = self.q_norm(self._heads(q, self.num_heads))
        k = self.k_norm(self._heads(k, self.num_kv_heads))
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        k = k.repeat_interleave(self.num_heads // self.num_kv_heads, 1)
        scores = (q @ k.mT).float() * (self.head_width**-0.5 if self.scale is None else self.scale)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if bias is not None:
            scores = scores + bias
        if causal:
            past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~past, torch.finfo(scores.dtype).min)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(-1)

    def keys_values(self, context: Float[Tensor, "B S C"]) -> KeysValues:
        """The keys and values of a context for `look_up`: computed once, read at every decoding step."""
        k = self.k_norm(self._heads(self.k(context), self.num_kv_heads))
        return k, self._heads(self.v(context), self.num_kv_heads)

    def look_up(
        self, x: Float[Tensor, "R Q D"], seen: KeysValues, mask: Bool[Tensor, "#B 1 #N S"] | None = None
    ) -> Float[Tensor, "R Q O"]:
        """Cross-attention to the keys and values of a context. Of fewer contexts than rows each is shared by as many
        rows one after another, whose queries then ask together."""
        rows, contexts = len(x), len(seen[0])
        q = self.q_norm(self._heads(self.q(x.reshape(contexts, -1, x.shape[-1])), self.num_heads))
        out = attend(q, *seen, mask, scale=self.scale, softcap=self.softcap)
        return self.out(out.transpose(1, 2).flatten(2).reshape(rows, -1, out.shape[1] * out.shape[3]))

    @property
    def split(self) -> Split:
        """Ranks take whole heads; a single key-value head, which all queries share, is computed on every rank."""
        if self.num_kv_heads == 1:
            return Split(columns=("q",), rows=("out",), shared=("k", "v"))
        return Split(columns=("q", "k", "v"), rows=("out",))

    def keep_heads(self, ranks: int) -> None:
        """Count the heads of one of `ranks` ranks alone. Raises `UsageError` where they do not divide."""
        if self.num_heads % ranks or (self.num_kv_heads > 1 and self.num_kv_heads % ranks):
            heads = f"{self.num_heads} heads ({self.num_kv_heads} for keys)"
            raise UsageError(f"{heads} do not divide among {ranks} ranks of tensor parallelism")
        if any(True for norm in (self.q_norm, self.k_norm) for _ in norm.parameters()):
            raise UsageError("norms of queries and keys with gains of their own cannot be split: tensor_parallel=1")
        self.num_heads //= ranks
        self.num_kv_heads = max(1, self.num_kv_heads // ranks)

    def join_qkv(self) -> None:
        """For inference: q, k and v as one product. Self-attention only, since all three then read the same input."""
        join_layers(self, "qkv", ("q", "k", "v"))

    def _project(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.qkv is None:
            return self.q(x), self.k(context), self.v(context)
        shared = self.num_kv_heads * self.head_width
        q, k, v = self.qkv(x).split((self.num_heads * self.head_width, shared, shared), dim=-1)
        return q, k, v

    def _heads(self, x: Float[Tensor, "B S F"], num_heads: int) -> Float[Tensor, "B H S K"]:
        return x.unflatten(-1, (num_heads, self.head_width)).transpose(1, 2)
