"""Images among the tokens of a prompt: what the family's models have in common."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, compiler, int64, ones

from rebus.core.errors import BadText
from rebus.nn.image_rows import ImageRows, real_images
from rebus.nn.only_shapes import only_shapes


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
    if not (compiler.is_compiling() or only_shapes(x)):
        _check_placeholders(places, rows, network.cfg.num_image_tokens if seen is None else seen.shape[1])
    if rows is None or seen is None:
        return x
    return x.masked_scatter(places[..., None], rows.spread(seen).to(x.dtype))


def _check_placeholders(places: Bool[Tensor, "T L"], rows: ImageRows | None, each: int) -> None:
    marks = places.sum(dim=1)
    images = marks.new_zeros(len(marks)) if rows is None else rows.of_texts()
    if len(images) != len(marks):
        raise BadText(
            f"{len(marks)} prompts for {len(images)} rows of images: `owners` says which row each prompt belongs to"
        )
    wrong = ((images < 0) | (marks != images * each)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        if int(images[row]) < 0:
            raise BadText(f"owners[{row}]: there is no such row of images")
        raise BadText(
            f"row {row}: {int(marks[row])} image placeholders in the tokens, but {int(images[row])} images of "
            f"{each} each: {int(images[row]) * each} wanted"
        )
