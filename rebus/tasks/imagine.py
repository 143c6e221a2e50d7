"""Text-to-image generation."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from rebus.codec.text import Pieces, Prompt, Unfinished
from rebus.core.errors import BadText, UsageError
from rebus.core.specs import ImageTokens
from rebus.generation import score
from rebus.tasks.batching import AS_IT_SUITS, BatchOptions, in_batches
from rebus.tasks.classify import answer_tokens
from rebus.tasks.image_generation import Drawn, TokenRows, image_decoder, image_tokens
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
    number = best_of(model, decoding)
    options = decoding_for(model, "imagine", decoding)
    kind = Unfinished if "imagine" in model.system.prompts.unfinished else Pieces

    def work(batch: Sequence[str], options: Mapping[str, Any]) -> list[Image.Image]:
        filled: list[Prompt] = [kind(template.replace("{prompt}", text)) for text in batch]
        rows = TokenRows(model, on_device(model, model.processor(texts=filled)))
        for row in rows.rows:
            row.append(spec.begin)
        return [drawn.image for drawn in draw_best(rows, range(len(batch)), batch, spec, options, number)]

    stripped = [str(text).strip() for text in texts]
    images = in_seeded_batches(stripped, options, _at_once(model), work, what="prompts", batching=batching)
    return images if many else images[0]


def best_of(model: TaskModel, decoding: dict[str, Any]) -> int:
    """How many images are generated for each that is returned, taken out of the options of a call; by default what the
    system prefers. Raises `UsageError` for what is no such number."""
    found = decoding.pop("best_of", model.system.decoding.get("imagine", {}).get("best_of", 1))
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise UsageError(f"best_of is a number of images, 1 or more; got {found!r}")
    return found


def draw_best(
    rows: TokenRows,
    which: Sequence[int],
    texts: Sequence[str | None],
    spec: ImageTokens,
    options: Mapping[str, Any],
    number: int,
) -> list[Drawn]:
    """An image for each of the rows `which`: of `number` images that one for which the model gives the row's text the
    highest likelihood as its caption. Where there is no text only one is generated."""
    size = _at_once(rows.model)
    each = [i for i, text in zip(which, texts, strict=True) for _ in range(1 if text is None else number)]
    wanted = [text for text in texts for _ in range(1 if text is None else number)]
    batching = BatchOptions(batch_size=max(size, len(which)), progress=False)

    def work(some: Sequence[int], options: Mapping[str, Any]) -> list[Drawn]:
        return rows.draw(some, spec, options)

    seeded = _seeded(options, [each.count(i) for i in which])
    drawn = in_seeded_batches(each, seeded, size, work, what="images", batching=batching)
    if len(each) == len(which):
        return drawn
    pairs = [(text, one.image) for text, one in zip(wanted, drawn, strict=True) if text is not None]
    found = iter(in_batches(pairs, partial(_likelihood, rows.model), size=size, what="images", options=batching))
    best: dict[int, tuple[float, Drawn]] = {}
    for i, text, one in zip(each, wanted, drawn, strict=True):
        likelihood = 0.0 if text is None else next(found)
        if i not in best or likelihood > best[i][0]:
            best[i] = likelihood, one
    return [best[i][1] for i in which]


def _likelihood(model: TaskModel, pairs: Sequence[tuple[str, Image.Image]]) -> list[float]:
    """How probable each text is as the caption of its image."""
    caption = prompt_for(model, "caption")
    batch = inputs(model, [(image, caption) for _, image in pairs])
    targets = answer_tokens(model, [text for text, _ in pairs]).to(model.device)
    return score(model.network, batch, targets).total.tolist()


def _seeded(options: Mapping[str, Any], numbers: Sequence[int]) -> Mapping[str, Any]:
    """With a seed for each of so many images of each row; the first of a row has the one that was given."""
    seeds = options.get("seed")
    if seeds is None:
        return options
    given = seeds if isinstance(seeds, list | tuple) else [seeds] * len(numbers)
    more = [
        [int(np.random.SeedSequence([one, k]).generate_state(1)[0]) for k in range(1, number)]
        for one, number in zip(given, numbers, strict=True)
    ]
    return {**options, "seed": [seed for one, new in zip(given, more, strict=True) for seed in (one, *new)]}


def _at_once(model: TaskModel) -> int:
    """How many images are tried at once: a small network's step takes as long for one as for several."""
    small = sum(parameter.numel() for parameter in model.network.parameters()) < _SMALL
    return batch_size(model, cpu=16 if small else 4, accelerator=16)
