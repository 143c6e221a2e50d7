"""Text-to-image generation."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from rebus.codec.text import Pieces, Prompt, Unfinished
from rebus.core.errors import BadText, UsageError
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions
from rebus.tasks.image_generation import TokenRows, image_decoder, image_tokens
from rebus.tasks.inputs import many_texts
from rebus.tasks.task_model import TaskModel, batch_size, decoding_for, on_device, prompt_for
from rebus.tasks.text_generation import in_seeded_batches

_FIXED = ("max_new_tokens", "allowed", "stop")  # an image is a fixed number of codes


def imagine(
    model: TaskModel, prompts: str | Sequence[str], *, batching: BatchOptions = AS_IT_SUITS, **decoding: Any
) -> Image.Image | list[Image.Image]:
    """One image (RGB) for each prompt. Codes are sampled: `seed=` makes them reproducible. `guidance`: classifier-free
    guidance scale, 1 for none.

    Raises `BadText` for an empty prompt, `MissingFile` where the checkpoint lacks what decodes images, and
    `UsageError` for options that have no meaning for an image.
    """
    template = prompt_for(model, "imagine")
    spec, _ = image_tokens(model), image_decoder(model)  # what is missing is said before any work
    texts, many = many_texts(prompts, "prompts")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise BadText(f"a prompt must be a text that is not empty; got {text!r}")
    for name in _FIXED:
        if name in decoding:
            raise UsageError(f"{name} has no meaning for an image, which is always {spec.each} tokens")
    options = decoding_for(model, "imagine", decoding)
    kind = Unfinished if "imagine" in model.system.prompts.unfinished else Pieces
    filled = [kind(template.replace("{prompt}", str(text).strip())) for text in texts]

    def work(batch: Sequence[Prompt], options: Mapping[str, Any]) -> list[Image.Image]:
        rows = TokenRows(model, on_device(model, model.processor(texts=list(batch))))
        for row in rows.rows:
            row.append(spec.begin)
        return rows.draw(range(len(batch)), spec, options)

    size = batch_size(model, cpu=4, accelerator=16)
    images = in_seeded_batches(filled, options, size, work, what="prompts", batching=batching)
    return images if many else images[0]
