"""The capabilities of networks, as small protocols. Tasks require one of these; a network simply has the methods."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from rebus.core.outputs import RegionFeatures, Regions, Step


@runtime_checkable
class EmbedsImages(Protocol):
    """pixels (B, 3, H, W) → unit vectors (B, E)."""

    def embed_image(self, pixels: Tensor) -> Tensor: ...


@runtime_checkable
class EmbedsText(Protocol):
    """tokens (T, L), mask (T, L) → unit vectors (T, E).

    `averages_templates = False` on a network: of several sentences about a label the best one counts, not their mean.
    `is_dense = False`: the space is too wide for vectors; `score(image_vectors(…), text_vectors(…))` compares instead.
    `scale` and `bias`, where there are any, make scores of cosines: times the one, plus the other.
    """

    def embed_text(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class HasAnchors(Protocol):
    """Scores are sums over anchors, pairs of an image and a text, that can be edited by id.

    `image_vectors(pixels)` and `text_vectors(tokens, mask)` give what anchors are made of.
    """

    def image_vectors(self, pixels: Tensor) -> Tensor: ...

    def text_vectors(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor: ...

    def explain(self, pixels: Tensor, tokens: Tensor, mask: Tensor | None = None, top: int | None = 5) -> list[Any]:
        """The shares of the anchors in the score of one image and one text, largest first."""
        ...

    def add_anchors(self, image: Tensor, text: Tensor, ids: Sequence[str], captions: Sequence[str]) -> None: ...

    def remove_anchors(self, ids: Sequence[str]) -> None: ...

    def weigh_anchors(self, ids: Sequence[str], weight: float | int) -> None: ...

    def teach(
        self, image: Tensor, text: Tensor, ids: Sequence[str], caption: str, against: Tensor | None = None
    ) -> list[str]:
        """Anchors for one text (E,) from examples (N, D) of it and images of anything (M, D); gives their ids."""
        ...


@runtime_checkable
class WritesText(Protocol):
    """Text generation: a prompt is read once, tokens are generated one by one; the state is in the cache.

    The cache is passed in and returned, never stored on a module. It has `select(rows)`, the cache of the given rows
    (an int64 index into the batch, repeats allowed), for beam and contrastive search.
    `encoder_decoder = True` on a network: the prompt is another text, which the answer does not continue.
    """

    def start(self, *, room: int, **batch: Any) -> Step:
        """Read the prompt (`pixels`, `tokens`, `mask`); leave space for `room` new tokens in the cache."""
        ...

    def step(self, token: Tensor, cache: Any) -> Step:
        """token (B,) int64 → the scores of the one after it."""
        ...


@runtime_checkable
class SeesOnce(Protocol):
    """A `WritesText` with cached image features: `see(pixels)` of M images goes into `start` as `seen`, for any number
    of prompts, whose images are given by `owners` (T,)."""

    sees_once: bool

    def see(self, pixels: Tensor) -> Tensor:
        """pixels (M, 3, H, W) → (M, P, D)."""
        ...


@runtime_checkable
class ReadsBackward(Protocol):
    """A `WritesText` that also scores its output from right to left, where `reads_backward` is True."""

    reads_backward: bool

    def backward_likelihood(self, texts: Tensor, **batch: Any) -> Tensor:
        """texts (B, N, S), −100 at padding: N texts after each prompt of the batch → (B, N) sums of log-probabilities,
        each token given those after it."""
        ...


@runtime_checkable
class JudgesText(Protocol):
    """A generative model that scores how well a text matches the image in its cache. The text comes as a string, in the
    tokens of another vocabulary than the one in which it is generated."""

    def read_text(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens (T, L) of whole texts → vectors (T, E)."""
        ...

    def judge(self, cache: Any, texts: Tensor) -> Tensor:
        """Of R rows of a cache and K texts for each, (R, K, E): logits (R, K); zeros for rows that saw nothing."""
        ...


@runtime_checkable
class PicksAnswers(Protocol):
    """A question and an image → the answers of a fixed list, which is the companion "answers", one text a class."""

    def answer_logits(self, **batch: Any) -> Tensor:
        """(B, A) scores of the A answers; −∞ for one that is never to be given."""
        ...


@runtime_checkable
class MatchesPairs(Protocol):
    """Image and text are read together → whether they match; neither is embedded separately."""

    def match_logits(self, **batch: Any) -> Tensor:
        """(B,) log-odds that each text belongs to its image."""
        ...


@runtime_checkable
class GroundsPhrases(Protocol):
    """A phrase and an image → which of the image's regions it means."""

    def ground(self, **batch: Any) -> tuple[Tensor, Tensor]:
        """(B, R) probabilities of the regions for each text, and their boxes (B, R, 4) in shares of the image."""
        ...


@runtime_checkable
class FindsRegions(Protocol):
    """Open-vocabulary detection: images and labels → boxes, and masks where `finds_masks` is not False on the network.
    Labels are given as their `embed_text` embeddings (`EmbedsText`). A network
    that finds masks also takes `masks=False` where boxes are enough. One that was trained on boxes of some labels
    (`base_labels`, a collection of names) takes `base` too, (C,) bool: which of the labels are among them. One whose
    work does not depend on labels until the end offers the two parts as `look(pixels)`, whatever that gives, and
    `name_regions(seen, labels, …)`.
    """

    def find_regions(self, pixels: Tensor, labels: Tensor) -> Sequence[Regions]:
        """pixels (B, 3, H, W), labels (C, E) of unit length → the regions of each image."""
        ...


@runtime_checkable
class DescribesRegions(Protocol):
    """Images → boxes of their prominent regions and a vector for each, for models that read region features. A grid of
    features gives all its cells."""

    def region_features(self, pixels: Tensor, num_regions: int = 36) -> Sequence[RegionFeatures]:
        """pixels (B, 3, H, W) → at most `num_regions` regions of each image."""
        ...


@runtime_checkable
class DrawsImages(Protocol):
    """Codes that a generative model generated (`rebus.core.specs.ImageTokens`) → images: the network, or a companion.

    `draws = False` on a network: it came without its decoder, and cannot.
    """

    def draw_images(self, codes: Tensor) -> Tensor:
        """codes (B, n) int64, from 0 → pixels (B, 3, H, W) in [0, 1]."""
        ...


@runtime_checkable
class TokenisesImages(Protocol):
    """A generative model to which images are tokens among those of the text."""

    def read_images(
        self,
        tokens: Tensor,
        pixels: Tensor | None = None,
        image_mask: Tensor | None = None,
        owners: Tensor | None = None,
    ) -> Tensor:
        """tokens (T, L) with the codes of their images in place of the placeholders."""
        ...
