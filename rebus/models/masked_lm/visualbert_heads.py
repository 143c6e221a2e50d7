"""What VisualBERT's heads make of its states: words at blanks, one of several answers, the region of a phrase."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rebus.backbones.text.bert import BERTConfig
from rebus.nn.mlp import ACTIVATIONS
from rebus.nn.norms import LayerNorm


class BlankHead(nn.Module):
    """State of a token → scores of the words that may stand there, by BERT's own embeddings of them."""

    def __init__(self, cfg: BERTConfig):
        super().__init__()
        self.dense = nn.Linear(cfg.width, cfg.width)
        self.act = ACTIVATIONS[cfg.act]
        self.norm = LayerNorm(cfg.width, cfg.eps)
        self.bias = nn.Parameter(torch.zeros(cfg.vocab_size))

    def forward(self, x: Float[Tensor, "T L D"], words: Float[Tensor, "V D"]) -> Float[Tensor, "T L V"]:
        return nn.functional.linear(self.norm(self.act(self.dense(x))), words, self.bias)


class ChoiceHead(nn.Module):
    """A state → scores of answers by way of a hidden layer and a norm, as MMF's runs have it."""

    def __init__(self, cfg: BERTConfig, num_outputs: int):
        super().__init__()
        self.dense = nn.Linear(cfg.width, cfg.width)
        self.act = ACTIVATIONS[cfg.act]
        self.norm = LayerNorm(cfg.width, cfg.eps)
        self.out = nn.Linear(cfg.width, num_outputs)

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T A"]:
        return self.out(self.norm(self.act(self.dense(x))))


class PhraseHead(nn.Module):
    """One attention head from tokens to regions, of which only the scores are used; `v` is in the released layout."""

    def __init__(self, width: int, head_width: int):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, head_width) for _ in range(3))

    def forward(
        self,
        text: Float[Tensor, "T L D"],
        regions: Float[Tensor, "T R D"],
        region_mask: Bool[Tensor, "T R"],
        phrase_at: Int[Tensor, "T Q"],
    ) -> Float[Tensor, "T Q R"]:
        at = phrase_at.clamp(min=0)[..., None].expand(-1, -1, text.shape[2])
        queries, keys = self.q(text.gather(1, at)), self.k(regions)
        scores = queries @ keys.mT * keys.shape[-1] ** -0.5
        return scores.masked_fill(~region_mask[:, None], torch.finfo(scores.dtype).min)
