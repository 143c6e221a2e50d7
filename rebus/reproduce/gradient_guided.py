"""Gradient-guided decoding, to compare MAGIC with: the language model's input is bent until its text is similar
to the image.

In the manner of ZeroCap (Tewel et al., "ZeroCap: Zero-Shot Image-to-Text Generation for Visual-Semantic Arithmetic",
2022), which bends the keys and values that the context left; here it is the embeddings of the context, which a model of
two layers sees through just as well.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rebus.backbones.text.gpt2 import GPT2


@dataclass(frozen=True, kw_only=True)
class Bending:
    """`rate`: the length of a step over the gradient's own, `stay`: the weight of the divergence from what the language
    model says without guidance (both ZeroCap's)."""

    steps: int = 5
    rate: float = 0.3
    stay: float = 0.2


def bend(network: GPT2, tokens: Tensor, wanted: Tensor, bending: Bending) -> Tensor:
    """tokens (1, S), wanted (V,) probabilities → logits (V,) after the steps."""
    real = torch.ones_like(tokens, dtype=torch.bool)
    plain = network.embed(tokens).detach()
    shift = torch.zeros_like(plain)

    def logits(bent: Tensor) -> Tensor:
        scores: Tensor = network.logits(network.decode(plain + bent, real)[0, -1])
        return scores

    own = logits(shift).log_softmax(-1).detach()
    for _ in range(bending.steps):
        shift = shift.detach().requires_grad_()
        said = logits(shift).log_softmax(-1)
        loss = -(wanted * said).sum() + bending.stay * F.kl_div(own, said, log_target=True, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, shift)
        shift = shift - bending.rate * gradient / gradient.norm().clamp(min=1e-12) * plain.norm()
    return logits(shift).detach()


def gradient_guided(
    network: GPT2,
    start: int,
    end: int,
    length: int,
    judge: Callable[[list[list[int]]], Tensor],
    bending: Bending,
) -> list[int]:
    """The tokens of one caption, greedily. `judge(texts as ids (V,))` → (V,) logits of how well each goes with the
    image; every word of the vocabulary is judged once a token."""
    written: list[int] = []
    vocabulary = network.cfg.vocab_size
    while len(written) < length:
        wanted = judge([[*written, word] for word in range(vocabulary)]).softmax(-1)
        with torch.enable_grad():
            logits = bend(network, torch.tensor([[start, *written]]), wanted, bending)
        written.append(int(logits.argmax()))
        if written[-1] == end:
            break
    return written
