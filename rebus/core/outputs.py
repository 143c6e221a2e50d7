"""The few named tuples that networks return. No model invents its own."""

from typing import Any, NamedTuple

from torch import Tensor


class Embeddings(NamedTuple):
    """Two encoders, one space. `image` (B, E) and `text` (T, E) are of unit length; `scale` multiplies, `bias` adds."""

    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """(B, T) similarities, scale and bias included."""
        logits = self.scale * self.image @ self.text.T
        return logits if self.bias is None else logits + self.bias


class Predictions(NamedTuple):
    """A generative model's logits: `logits[b, s]` (B, S, V) predicts `targets[b, s]`. `hidden` (B, S, D) are the states
    that they were read from, which language models give.

    `backward` (B, S, V), of a model that also reads from right to left: the logits of `core.labels.reversed_rows`.
    `targets` (B, S), of a model that writes images: those that it was given, with the codes of images in place.
    """

    logits: Tensor
    hidden: Tensor | None = None
    backward: Tensor | None = None
    targets: Tensor | None = None


class Regions(NamedTuple):
    """What was found in one image, R regions in any order.

    `boxes` (R, 4) xyxy in shares of the network's image, `labels` (R,) int64 indices of the labels that were asked
    for, `scores` (R,) probabilities. `masks` (R, M, M) probabilities within the boxes that a place is inside the thing;
    None where the network gives boxes alone.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None


class RegionFeatures(NamedTuple):
    """The prominent regions of one image, best first: `boxes` (R, 4) xyxy in shares of the network's image, `features`
    (R, D) what a detector's head makes of each, `scores` (R,) how likely each holds a thing."""

    boxes: Tensor
    features: Tensor
    scores: Tensor


class DetectorOutput(NamedTuple):
    """A detector in training, over given boxes (R of each image, one after another).

    By level of its pyramid: `logits` (B, A) that an anchor holds a thing, `deltas` (B, A, 4) to that thing's box,
    `anchors` (A, 4). Of the given boxes: `embeddings` (R, E) of unit length, `box_deltas` (R, 4), `mask_logits`
    (R, M, M); `image_embeddings` (R, E) of a second head that copies an image encoder, None where there is one head.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]
    embeddings: Tensor
    box_deltas: Tensor
    mask_logits: Tensor
    image_embeddings: Tensor | None


class Reading(NamedTuple):
    """What an encoder of image and text says of a text: `tokens` (B, L, V), logits of what stands at each of its
    tokens, and `fits` (B, 2), logits of [it does not belong to the image, it does]."""

    tokens: Tensor
    fits: Tensor


class Choices(NamedTuple):
    """`logits` (B, A) of A answers, statements or verdicts, or (B, Q, R) of the regions for each of Q phrases."""

    logits: Tensor


class Step(NamedTuple):
    """One step of writing: scores of the next token (B, V), the state they were read from (B, D), the cache.

    `start` may give the states of all tokens of the prompt instead, (B, L, D), as language models do.
    """

    logits: Tensor
    hidden: Tensor
    cache: Any


class Quantised(NamedTuple):
    """What a vector-quantised autoencoder made of its input: `output` is shaped like it, `features` (B, N, E) are its
    encodings, `vectors` (B, N, E) the words of the codebook nearest to them, `codes` (B, N) int64 their numbers."""

    output: Tensor
    features: Tensor
    vectors: Tensor
    codes: Tensor
