"""Self-critical training: captions that score better than the others of their image become more probable.

Rennie et al., "Self-critical Sequence Training for Image Captioning", 2017; with the captions of beam search and their
mean as the baseline, Cornia et al., "Meshed-Memory Transformer for Image Captioning", 2020, and VisualGPT:

    L = − (1 / K) Σₖ (rₖ − r̄) log p(caption k) / T,    r: CIDEr-D, K beams, T the most tokens of a caption
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rebus.codec.caption_words import words
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.generation.beam import Beam
from rebus.generation.constraints import Constraints
from rebus.generation.stopping import Stops
from rebus.nn.batch_norm import statistics_held
from rebus.objectives import ranks
from rebus.objectives.cider import Cider
from rebus.objectives.losses import Losses

_IMAGE = ("pixels", "image_mask", "regions", "region_mask")


def self_critical(
    log_probabilities: Float[Tensor, "B K S"], rewards: Float[Tensor, "B K"], length: int
) -> Float[Tensor, ""]:
    """Log-probabilities of the tokens of K captions of each image, 0 where there is none, and how good each is."""
    advantage = rewards - rewards.mean(dim=1, keepdim=True)
    return -(advantage * log_probabilities.sum(dim=2) / length).mean()


@dataclass(frozen=True)
class SelfCriticalLoss:
    """`num_beams` captions an image, of `max_new_tokens` at most. `corpus`: the images, from the start of the data,
    whose captions say which n-grams are rare. Training starts from a captioner: `start_from`."""

    kind: Literal["self-critical"] = "self-critical"
    num_beams: int = 5
    max_new_tokens: int = 20
    corpus: int = 1000

    def __post_init__(self) -> None:
        if self.num_beams < 2:
            raise UsageError(f"num_beams={self.num_beams}: a caption is judged by the others of its image, 2 at least")

    def prepared(self, processor: Any, batches: Iterable[Mapping[str, Any]]) -> "SelfCritical":
        """The objective of a run: with its tokenizer, and the rarities in its data. Raises `UsageError` for data
        without captions, and for several ranks, whose captions end at different steps."""
        if ranks.world()[1] > 1:
            raise UsageError("self-critical training writes captions, which end at different steps: one process alone")
        images: list[list[str]] = []
        for batch in batches:
            if "targets" not in batch:
                raise UsageError("self-critical training compares with captions; the data has none")
            images += references_of(processor, batch)
            if len(images) >= self.corpus:
                break
        return SelfCritical(self, processor, Cider(images))


class SelfCritical:
    """(network, batch) → losses. The references of an image are all targets of the batch that belong to it."""

    kind = "self-critical"

    def __init__(self, settings: SelfCriticalLoss, processor: Any, cider: Cider):
        self.settings, self.processor, self.cider = settings, processor, cider

    def examples(self, batch: Mapping[str, Tensor]) -> int:
        """Images, which the loss is the mean of."""
        return len(_first_texts(batch))

    def __call__(self, network: Any, batch: Mapping[str, Tensor]) -> Losses:
        image = {name: batch[name] for name in _IMAGE if name in batch}
        first = _first_texts(batch)
        prompt = {name: batch[name][first] for name in ("tokens", "mask") if name in batch}
        written = self.write(network, {**image, **prompt})
        number, beams, _ = written.shape
        references = [texts for texts in references_of(self.processor, batch) for _ in range(beams)]
        said = [words(text) for text in self.processor.decode(written.flatten(0, 1))]
        scores = torch.from_numpy(self.cider.scores(said, references).astype(np.float32))
        rewards = scores.to(written.device).view(number, beams)

        owners = torch.arange(number, device=written.device).repeat_interleave(beams)
        targets = written.flatten(0, 1)
        again = {name: value.repeat_interleave(beams, dim=0) for name, value in prompt.items()}
        logits = network(**image, **again, targets=targets, owners=owners).logits
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
        each = exact.gather(2, targets.clamp(min=0)[..., None])[..., 0] * (targets != IGNORED)
        loss = self_critical(each.unflatten(0, (number, beams)), rewards, self.settings.max_new_tokens)
        return Losses(loss, {"cider": rewards[:, 0].mean(), "reward": rewards.mean()})

    def write(self, network: Any, prompt: Mapping[str, Tensor]) -> Int[Tensor, "B K S"]:
        """The captions of beam search, the best of each image first, −100 after their ends."""
        spec = self.processor.text.spec
        beam = Beam(num_beams=self.settings.num_beams, length_penalty=0.0)
        stops, free = Stops(spec.eos_id, None, None), Constraints(None, 0, None)
        with statistics_held(network):
            tokens, lengths = beam.candidates(
                network, prompt, self.settings.max_new_tokens, stops=stops, constraints=free, pad_id=spec.pad_id
            )
        tokens, lengths = tokens.clone(), lengths.clone()  # out of inference mode
        longest = int(lengths.max())
        ended = torch.arange(longest, device=tokens.device) >= lengths[..., None]
        return tokens[..., :longest].masked_fill(ended, IGNORED)


def references_of(processor: Any, batch: Mapping[str, Tensor]) -> list[list[str]]:
    """The captions in a batch's targets, as words, by the image that they belong to."""
    texts = [words(text) for text in processor.decode(batch["targets"])]
    if "owners" not in batch:
        return [[text] for text in texts]
    found: list[list[str]] = [[] for _ in _first_texts(batch)]
    for text, owner in zip(texts, batch["owners"].tolist(), strict=True):
        found[owner].append(text)
    return found


def _first_texts(batch: Mapping[str, Tensor]) -> Int[Tensor, "B"]:
    """The first text of each image. Raises `UsageError` for an image without one."""
    owners = batch.get("owners")
    if owners is None:
        return torch.arange(len(batch["tokens"]), device=batch["tokens"].device)
    number = next(len(batch[name]) for name in _IMAGE if name in batch)
    mine = owners == torch.arange(number, device=owners.device)[:, None]
    if not bool(mine.any(dim=1).all()):
        raise UsageError("an image has no caption: self-critical training compares with those of every image")
    return mine.int().argmax(dim=1)
