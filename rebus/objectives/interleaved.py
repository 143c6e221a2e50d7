"""Next-token prediction over documents of text and images in turn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from rebus.core.labels import IGNORED
from rebus.objectives.losses import Losses
from rebus.objectives.next_token import hits

_INPUTS = ("pixels", "image_mask", "tokens", "mask")


@dataclass(frozen=True)
class InterleavedLoss:
    """The mean over all learned tokens of a batch: `labels` (B, L) is the token after each of `tokens`, −100 where it
    is not learned (`rebus.data.document_batches`). Alayrac et al., "Flamingo", 2022, eq. 1."""

    kind: Literal["interleaved"] = "interleaved"

    def examples(self, batch: Mapping[str, Tensor]) -> int:
        """Tokens that the loss is the mean of."""
        return int((batch["labels"] != IGNORED).sum())

    def __call__(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> Losses:
        labels = batch["labels"]
        logits = network(**{name: batch[name] for name in _INPUTS if name in batch}).logits
        each = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return Losses(each / max(self.examples(batch), 1), hits(logits, labels))
