"""Labels: where no token is to be predicted, texts read from their end, one spelling for the names of things."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

IGNORED = -100  # the value that cross entropy in PyTorch leaves out by default
OF_READERS = frozenset({"blanks", "fits", "scores"})  # what `rebus.objectives` compares with an encoder's answers


def reversed_rows(
    tokens: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None, targets: Int[Tensor, "B S"]
) -> tuple[Int[Tensor, "B N"], Bool[Tensor, "B N"], Int[Tensor, "B N"]]:
    """Each row's prompt and targets from right to left: inputs, where they are real, and the token after each.

    N = L + S - 1; padding, on whichever side it was, comes last, with `IGNORED` as its target.
    """
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    whole = torch.cat([tokens, targets.clamp(min=0)], dim=1)
    real = torch.cat([real, targets != IGNORED], dim=1)
    last = torch.arange(whole.shape[1], 0, -1, device=whole.device)
    order = torch.where(real, last, last + whole.shape[1]).argsort(dim=1)  # real ones first, the last of them at 0
    whole, real = whole.gather(1, order), real.gather(1, order)
    return whole[:, :-1], real[:, :-1], whole.masked_fill(~real, IGNORED)[:, 1:]


def plain_label(name: str) -> str:
    """A label as a sentence has it: of "Baby_Buggy" and "baby buggy." the same, "a/b" is "a or b"."""
    return name.replace("_", " ").replace("/", " or ").lower().strip().removesuffix(".")
