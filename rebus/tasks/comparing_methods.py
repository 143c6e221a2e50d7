"""Embeddings, scores, features and attention maps as methods of a model."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from rebus.tasks.call_options import Batching, OnError, divided

if TYPE_CHECKING:
    from torch import Tensor

    from rebus.codec.regions import ImageRegions
    from rebus.tasks.explain import Explanation
    from rebus.tasks.image_layers import AttentionMaps, Features, Layer
    from rebus.tasks.methods import Images, OneImage


class Comparing:
    """The part of `rebus.tasks.methods.Tasks` that answers in numbers; `_can` is its own."""

    def _can(self, task: str) -> Any:
        raise NotImplementedError

    def embed_images(self, images: "Images", *, on_error: OnError = "raise", **options: Unpack[Batching]) -> "Tensor":
        """Image embeddings: unit vectors, float32 (n, d), of one image or many."""
        from rebus.tasks.embed import embed_images

        return embed_images(self._can("embed_images"), images, batching=divided(options, on_error)[0])

    def embed_texts(
        self, texts: str | Sequence[str] | Iterator[str], *, on_error: OnError = "raise", **options: Unpack[Batching]
    ) -> "Tensor":
        """Text embeddings: unit vectors, float32 (n, d), of one text or many."""
        from rebus.tasks.embed import embed_texts

        return embed_texts(self._can("embed_texts"), texts, batching=divided(options, on_error)[0])  # type: ignore[arg-type]

    @overload
    def embed_regions(
        self, images: "OneImage", *, on_error: Literal["raise"] = ..., **options: Unpack[Batching]
    ) -> "ImageRegions": ...
    @overload
    def embed_regions(
        self, images: "Images", *, on_error: OnError = ..., **options: Unpack[Batching]
    ) -> "list[ImageRegions]": ...
    def embed_regions(self, images: Any, *, on_error: OnError = "raise", **options: Unpack[Batching]) -> Any:
        """Region features of each image, as input of models that read regions in place of images."""
        from rebus.tasks.embed_regions import embed_regions

        return embed_regions(self._can("embed_regions"), images, batching=divided(options, on_error)[0])

    def match(
        self, images: "Images", texts: str | Sequence[str], *, on_error: OnError = "raise", **options: Unpack[Batching]
    ) -> "Tensor":
        """Cosine similarities (images, texts), float32; for models that read image and text together, match
        probabilities."""
        from rebus.tasks.match import match

        return match(self._can("match"), images, texts, batching=divided(options, on_error)[0])

    def logits(
        self, images: "Images", texts: str | Sequence[str], *, on_error: OnError = "raise", **options: Unpack[Batching]
    ) -> "Tensor":
        """The logits of the released model (images, texts), float32: similarities with scale and bias applied."""
        from rebus.tasks.match import logits

        return logits(self._can("match"), images, texts, batching=divided(options, on_error)[0])

    def probabilities(
        self, images: "Images", texts: str | Sequence[str], *, on_error: OnError = "raise", **options: Unpack[Batching]
    ) -> "Tensor":
        """Probabilities (images, texts) float32: of each pair (SigLIP's sigmoid), or over the texts (CLIP's
        softmax).
        """
        from rebus.tasks.match import probabilities

        return probabilities(self._can("match"), images, texts, batching=divided(options, on_error)[0])

    def features(
        self,
        images: "Images",
        layers: "Sequence[int] | None" = None,
        *,
        on_error: OnError = "raise",
        **options: Unpack[Batching],
    ) -> "Features":
        """Patch features of the image encoder: `patches` (n, rows, columns, D) and `class_token` (n, D) by layer, and
        the `pooled` vector (n, E). `layers` None: the last layer."""
        from rebus.tasks.image_layers import features

        return features(self, images, layers, batching=divided(options, on_error)[0])  # type: ignore[arg-type]

    def attention(
        self,
        images: "Images",
        layers: "Sequence[Layer] | None" = None,
        *,
        on_error: OnError = "raise",
        **options: Unpack[Batching],
    ) -> "AttentionMaps":
        """Attention maps (n, heads, queries, keys) of the image encoder by layer; "pool" is attention pooling."""
        from rebus.tasks.image_layers import attention

        return attention(self, images, layers, batching=divided(options, on_error)[0])  # type: ignore[arg-type]

    @overload
    def explain(self, image: "OneImage", texts: str) -> "Explanation": ...
    @overload
    def explain(self, image: "OneImage", texts: Sequence[str]) -> "list[Explanation]": ...
    def explain(self, image: "OneImage", texts: str | Sequence[str]) -> Any:
        """Saliency map of a text on an image: `heat` (H, W) in [0, 1], `score`, and `plot()`, which draws it."""
        from rebus.tasks.explain import explain

        return explain(self, image, texts)  # type: ignore[arg-type]
