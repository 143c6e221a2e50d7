"""Hide spans of a text and write them back: how an encoder-decoder learns a language without any image.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020, Sec. 3.1.4;
Tay et al., "UL2: Unifying Language Learning Paradigms", 2022, Sec. 3.1, for a mixture of ways to hide.

    text     a b c d e f g h i       reads    a b <0> e f g <1> i </s>       writes    <0> c d <1> h </s>
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rebus.core.labels import IGNORED
from rebus.nn.only_shapes import only_shapes
from rebus.objectives.losses import Losses
from rebus.objectives.next_token import hits, next_token

_INPUTS = ("pixels", "image_mask", "tokens", "mask", "targets", "owners")


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A way to hide: `share` of a text's tokens in spans of `span` on average; `span` 0: the end of the text alone, of
    that share on average. `mode`: a mode token in front of the input."""

    share: float = 0.15
    span: float = 3.0
    mode: int | None = None


def ul2_denoisers(
    regular: int | None = None, extreme: int | None = None, sequential: int | None = None
) -> tuple[Denoiser, ...]:
    """UL2's seven, with the tokens that tell its three modes apart (Table 1)."""
    return (
        Denoiser(share=0.15, span=3, mode=regular),
        Denoiser(share=0.15, span=8, mode=regular),
        Denoiser(share=0.5, span=3, mode=extreme),
        Denoiser(share=0.5, span=8, mode=extreme),
        Denoiser(share=0.15, span=64, mode=extreme),
        Denoiser(share=0.5, span=64, mode=extreme),
        Denoiser(share=0.25, span=0, mode=sequential),
    )


@dataclass(frozen=True)
class SpanCorruptionLoss:
    """`next_token` of what was hidden, in batches of text alone; batches with images are learned as they are.

    Hidden spans are marked by `sentinel` and the ids below it, at most `num_sentinels` of them. What is hidden is drawn
    by the tokens of a row, whatever its batch, so that a run can be repeated and resumed. Texts of fewer than two
    tokens are targets in full.
    """

    kind: Literal["span corruption"] = "span corruption"
    sentinel: int = 32_099  # T5's <extra_id_0>
    num_sentinels: int = 100
    end_id: int = 1
    denoisers: tuple[Denoiser, ...] = (Denoiser(),)
    z_loss: float = 0.0

    def examples(self, batch: Mapping[str, Tensor]) -> int:
        """Rows that the loss is the mean of: those with a target."""
        return int((batch["targets"] != IGNORED).any(dim=1).sum())

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        inputs = {name: batch[name] for name in _INPUTS if name in batch}
        if "pixels" not in batch and not only_shapes(batch["targets"]):
            inputs = self.corrupted(batch["targets"])
        logits = network(**inputs).logits
        loss = next_token(logits, inputs["targets"], z_loss=self.z_loss)
        return Losses(loss, hits(logits, inputs["targets"]))

    def corrupted(self, texts: Tensor) -> dict[str, Tensor]:
        """texts (B, S) int64, −100 at padding → `tokens`, `mask` and `targets`."""
        rows = [self._corrupt(row[row != IGNORED]) for row in texts.cpu().numpy()]
        read, written = ([torch.from_numpy(row[side]) for row in rows] for side in (0, 1))
        lengths = torch.tensor([len(row) for row in read])
        tokens = pad_sequence(read, batch_first=True)
        return {
            "tokens": tokens.to(texts.device),
            "mask": (torch.arange(tokens.shape[1]) < lengths[:, None]).to(texts.device),
            "targets": pad_sequence(written, batch_first=True, padding_value=IGNORED).to(texts.device),
        }

    def _corrupt(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is read, and what is written."""
        body = text[:-1] if len(text) and text[-1] == self.end_id else text
        end = np.array([self.end_id])
        if len(body) < 2:
            return end, text
        rng = np.random.default_rng(body)
        way = self.denoisers[int(rng.integers(len(self.denoisers)))]
        visible, hidden = self._spans(len(body), way, rng)
        read: list[np.ndarray] = [] if way.mode is None else [np.array([way.mode])]
        written: list[np.ndarray] = []
        at = 0
        for i, (seen, gone) in enumerate(zip(visible, hidden, strict=True)):
            mark = np.array([self.sentinel - i])
            read += [body[at : at + seen], mark]
            written += [mark, body[at + seen : at + seen + gone]]
            at += seen + gone
        return np.concatenate([*read, end]), np.concatenate([*written, end])

    def _spans(self, length: int, way: Denoiser, rng: np.random.Generator) -> tuple[Sequence[int], Sequence[int]]:
        """Lengths of what is visible and what is hidden, in turn, the visible first."""
        if way.span == 0:
            hidden = min(int(rng.integers(1, max(2, round(2 * way.share * length) + 1))), length - 1)
            return [length - hidden], [hidden]
        hidden = min(max(round(way.share * length), 1), length - 1)
        number = min(max(round(hidden / way.span), 1), hidden, length - hidden, self.num_sentinels)
        return _parts(length - hidden, number, rng), _parts(hidden, number, rng)


def _parts(total: int, number: int, rng: np.random.Generator) -> list[int]:
    """`number` lengths of at least 1 that add up to `total`, any way as likely as any other."""
    cuts = np.sort(rng.choice(total - 1, number - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]])).tolist()
