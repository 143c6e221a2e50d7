"""Images among the tokens of a prompt: what the family's models have in common."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, int64, ones

from rebus.nn.image_rows import ImageRows, check_placeholders, real_images


@runtime_checkable
class SeesInText(Protocol):
    """A network with placeholders (`cfg.image_id`, `cfg.num_image_tokens` an image) and a text part that embeds."""

    cfg: Any
    text: Any

    def see(self, pixels: Tensor) -> Tensor:
        """pixels (M, 3, Y, X) → (M, P, D) at the width of the text."""
        ...


def embed_prefix(
    network: SeesInText,
    tokens: Int[Tensor, "T L"],
    pixels: Tensor | None = None,
    image_mask: Bool[Tensor, "B N"] | None = None,
    owners: Int[Tensor, "T"] | None = None,
    seen: Float[Tensor, "M P D"] | None = None,
) -> Float[Tensor, "T L D"]:
    """Tokens as vectors, placeholders replaced by their row's images in reading order.

    pixels: (B, 3, H, W), or (B, N, 3, H, W) or (B, N, F, 3, H, W) with image_mask (B, N) where rows have other
    numbers of images than N; `owners` says which row of images each prompt belongs to, and each image is encoded
    once. Or give `seen`, what `see` returned, an image a row. Raises `BadText` where a prompt has not the
    placeholders of its images, `UsageError` for shapes that are no rows of images.
    """
    places = tokens == network.cfg.image_id
    x: Tensor = network.text.embed(tokens.masked_fill(places, 0))
    rows = None
    if seen is not None:
        rows = ImageRows(ones(len(seen), dtype=int64, device=seen.device), owners)
    elif pixels is not None:
        rows = ImageRows.of(pixels, image_mask, owners)
        seen = network.see(real_images(pixels, image_mask))
    check_placeholders(places, rows, network.cfg.num_image_tokens if seen is None else seen.shape[1])
    if rows is None or seen is None:
        return x
    return x.masked_scatter(places[..., None], rows.spread(seen).to(x.dtype))
