"""The first batch, for inspection, and a search for leaks: the target in its prompt, or the prompt in its target,
and texts of which the tokenizer leaves nothing.

A model trained to repeat its prompt, or to predict image tokens, has a low loss and is useless.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from rebus.codec.processor import Processor
from rebus.core.errors import UsageError
from rebus.core.labels import IGNORED
from rebus.data.forms import TextRow

log = logging.getLogger("rebus")

_LEAST = 3  # tokens in a row that are no coincidence
_SHOWN = 16  # rows


def audit(batch: dict[str, Tensor], processor: Processor) -> None:
    """Look for leaks in a batch with targets. Raises `UsageError` naming the row and what is wrong with it."""
    if "targets" not in batch or "tokens" not in batch or processor.text is None:
        return
    image, end = processor.text.spec.image_token_id, processor.text.spec.eos_id
    draws = processor.text.spec.image_begin_id is not None  # its answers may hold images
    masks = batch["mask"] if "mask" in batch else batch["tokens"] >= 0
    for i, (tokens, mask, targets) in enumerate(zip(batch["tokens"], masks, batch["targets"], strict=True)):
        real = targets != IGNORED
        answer = targets[real].tolist()
        if not answer:
            raise _leak(i, "has no target: so it does not contribute to the loss")
        if not bool(real[: len(answer)].all()):
            raise _leak(i, "has padding in the middle of its targets")
        if image in answer and not draws:
            raise _leak(i, "has image tokens among its targets")
        prompt = [t for t in tokens[mask].tolist() if t != image]
        body = answer[:-1] if answer[-1] == end else answer
        if len(body) >= _LEAST and _holds(prompt, body):
            raise _leak(i, "leaks the whole target into its prompt")
        words = prompt[1:] if len(prompt) > _LEAST else []  # without the first token, by which texts begin
        if len(words) >= _LEAST and _holds(answer, words):
            raise _leak(i, "repeats its prompt in the targets")


def audit_words(texts: Sequence[TextRow], processor: Processor) -> None:
    """Look for words that the tokenizer lacks, which would be left out without a word; their share is logged. Raises
    `UsageError` for a text of which nothing is left."""
    if processor.text is None:
        return
    lost: list[str] = []
    number = 0
    for i, row in enumerate(texts):
        own = processor.text.lost_words(row.words)
        words = len(processor.text.prepare(row.words).split())
        if row.words.strip() and len(own) == words:
            raise _leak(i, f"has a text with no known token: {row.words[:80]!r}")
        lost += own
        number += words
    if lost:
        few = ", ".join(repr(word) for word in dict.fromkeys(lost[:50]))
        log.warning(
            f"{len(lost) / number:.0%} of the words of the first batch are unknown to the tokenizer and dropped: "
            f"{few[:200]}"
        )


def show(batch: dict[str, Tensor], processor: Processor, folder: Path) -> Path:
    """Write the first rows of a batch as a page: each row's images, and its prompts and answers as the network gets
    them."""
    folder.mkdir(parents=True, exist_ok=True)
    images, texts = images_of(batch), texts_of(batch)
    lines = ["# The first batch, as the network gets it", ""]
    for row in range(min(max(len(images), len(texts)), _SHOWN)):
        for i, pixels in enumerate(images[row] if images else ()):
            name = f"{row:02d}.png" if i == 0 else f"{row:02d}_{i}.png"
            as_image(pixels).save(folder / name)
            lines.append(f"![{name}]({name})")
        for text in texts[row] if texts else ():
            lines.append(f"- text: {read(batch['tokens'][text], processor)!r}")
            if "targets" in batch:
                lines.append(f"- to be answered: {read(batch['targets'][text], processor)!r}")
        lines.append("")
    page = folder / "index.md"
    page.write_text("\n".join(lines))
    return page


def images_of(batch: dict[str, Tensor]) -> list[list[Tensor]]:
    """The images (3, H, W) of each row of a batch, of videos the first frame; none of rows whose pixels are patches."""
    pixels = batch.get("pixels")
    if pixels is None:
        return []
    if pixels.ndim < 4:
        return [[] for _ in pixels]
    if pixels.ndim == 4:
        return [[image] for image in pixels]
    first = pixels if pixels.ndim == 5 else pixels[:, :, 0]
    if "image_mask" not in batch:
        return [list(row) for row in first]
    return [list(row[there]) for row, there in zip(first, batch["image_mask"], strict=True)]


def texts_of(batch: dict[str, Tensor]) -> list[list[int]]:
    """The rows of text that belong to each row of images."""
    if "tokens" not in batch:
        return []
    number = len(batch["tokens"])
    owners = batch["owners"].tolist() if "owners" in batch else list(range(number))
    found: list[list[int]] = [[] for _ in range(len(batch["pixels"]) if "pixels" in batch else max(owners) + 1)]
    for text, row in enumerate(owners):
        found[row].append(text)
    return found


def answers_hold_images(batch: Mapping[str, Tensor], processor: Processor) -> bool:
    """Whether images are what is to be learned, not what is asked about: no text can be generated from the prompts."""
    image = None if processor.text is None else processor.text.spec.image_token_id
    return image is not None and "targets" in batch and bool((batch["targets"] == image).any())


def read(tokens: Tensor, processor: Processor) -> str:
    """One row of ids, without placeholders, as text up to its end."""
    if processor.text is None:
        return ""
    image = processor.text.spec.image_token_id
    return processor.text.decode([[token for token in tokens.tolist() if token != image]])[0]


def as_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) as something to look at, whatever it was normalised by."""
    pixels = pixels.float().cpu()
    low, high = pixels.amin(), pixels.amax()
    return Image.fromarray(((pixels - low) / (high - low).clamp(min=1e-6) * 255).byte().permute(1, 2, 0).numpy())


def _holds(longer: list[int], shorter: list[int]) -> bool:
    return any(longer[i : i + len(shorter)] == shorter for i in range(len(longer) - len(shorter) + 1))


def _leak(row: int, what: str) -> UsageError:
    return UsageError(f"the first batch was looked through: row {row} {what}. See first_batch/index.md")
