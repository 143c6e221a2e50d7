"""Text-to-image generation."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from rebus.codec.text import Pieces, Prompt, Unfinished
from rebus.core.errors import BadText, UsageError
from rebus.generation import score
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.classify import answer_tokens
from rebus.tasks.image_generation import TokenRows, image_decoder, image_tokens
from rebus.tasks.inputs import many_texts
from rebus.tasks.task_model import TaskModel, batch_size, decoding_for, on_device, prompt_for
from rebus.tasks.text_generation import in_seeded_batches, inputs

_SMALL = 50_000_000  # parameters
_FIXED = ("max_new_tokens", "allowed", "stop")  # an image is a fixed number of codes


def imagine(
    model: TaskModel, prompts: str | Sequence[str], *, batching: BatchOptions = AS_IT_SUITS, **decoding: Any
) -> Image.Image | list[Image.Image]:
    """One image (RGB) for each prompt. Codes are sampled: `seed=` makes them reproducible. `guidance`: classifier-free
    guidance scale, 1 for none. `best_of`: that many images are generated per prompt, and the one is returned for which
    the model itself gives the prompt the highest likelihood as a caption (as CLIP reranks the images of DALL·E; Ramesh
    et al., 2021, Sec. 2.6).

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
    best_of = decoding.pop("best_of", model.system.decoding.get("imagine", {}).get("best_of", 1))
    if not isinstance(best_of, int) or isinstance(best_of, bool) or best_of < 1:
        raise UsageError(f"best_of is a number of images, 1 or more; got {best_of!r}")
    options = decoding_for(model, "imagine", decoding)
    kind = Unfinished if "imagine" in model.system.prompts.unfinished else Pieces

    def draw(batch: Sequence[str], options: Mapping[str, Any]) -> list[Image.Image]:
        filled: list[Prompt] = [kind(template.replace("{prompt}", text)) for text in batch]
        rows = TokenRows(model, on_device(model, model.processor(texts=filled)))
        for row in rows.rows:
            row.append(spec.begin)
        return rows.draw(range(len(batch)), spec, options)

    size = _at_once(model)

    def work(batch: Sequence[str], options: Mapping[str, Any]) -> list[Image.Image]:
        if best_of == 1:
            return draw(batch, options)
        each = [text for text in batch for _ in range(best_of)]
        quiet = BatchOptions(batch_size=max(size, len(batch)), progress=False)
        drawn = in_seeded_batches(
            each, _seeded(options, len(batch), best_of), size, draw, what="images", batching=quiet
        )
        pairs = list(zip(each, drawn, strict=True))
        found = in_batches(pairs, partial(_likelihood, model), size=size, what="images", options=quiet)
        best = torch.tensor(found).view(len(batch), best_of).argmax(dim=1)
        return [drawn[i * best_of + k] for i, k in enumerate(best.tolist())]

    stripped = [str(text).strip() for text in texts]
    images = in_seeded_batches(stripped, options, size, work, what="prompts", batching=batching)
    return images if many else images[0]


def _likelihood(model: TaskModel, pairs: Sequence[tuple[str, Image.Image]]) -> list[float]:
    """How probable each text is as the caption of its image."""
    caption = prompt_for(model, "caption")
    batch = inputs(model, [(image, caption) for _, image in pairs])
    targets = answer_tokens(model, [text for text, _ in pairs]).to(model.device)
    return score(model.network, batch, targets).total.tolist()


def _seeded(options: Mapping[str, Any], number: int, best_of: int) -> Mapping[str, Any]:
    """With a seed for each of `best_of` images of each of `number` prompts; the first of a prompt has the one that was
    given."""
    seeds = options.get("seed")
    if seeds is None:
        return options
    given = seeds if isinstance(seeds, list | tuple) else [seeds] * number
    more = [[int(np.random.SeedSequence([one, k]).generate_state(1)[0]) for k in range(1, best_of)] for one in given]
    return {**options, "seed": [seed for one, new in zip(given, more, strict=True) for seed in (one, *new)]}


def _at_once(model: TaskModel) -> int:
    """How many images are tried at once: a small network's step takes as long for one as for several."""
    small = sum(parameter.numel() for parameter in model.network.parameters()) < _SMALL
    return batch_size(model, cpu=16 if small else 4, accelerator=16)
