"""Example batches: noise and random tokens in the shapes of training, for benchmarks, plans and contract tests."""

from typing import Any

import torch
from torch import Tensor

_FIRST_TOKEN = 3  # ids below are padding, end and beginning nearly everywhere


def generator() -> torch.Generator:
    """The same numbers each time."""
    return torch.Generator().manual_seed(0)


def example_pixels(image: Any, rows: int, random: torch.Generator) -> dict[str, Tensor]:
    """`pixels` for a vision configuration: (rows, 3, H, W), or patches with their `grid` where it takes patches."""
    if getattr(image, "flat_patches", False):
        height, width = image.grid
        pixels = torch.randn(rows, height * width, 3 * image.patch_size**2, generator=random)
        return {"pixels": pixels, "grid": torch.tensor([[height, width]]).expand(rows, -1)}
    size = image.image_size
    return {"pixels": torch.randn(rows, 3, size, size, generator=random)}


def dual_encoder_example(
    config: Any, rows: int, *, prompt: int = 16, answer: int = 16, context: int | None = None
) -> dict[str, Tensor]:
    """`rows` image-text pairs for a configuration with `image` and `text`; the texts are of `context` tokens, by
    default as many as the text encoder takes, and end with its `end_id` where it has one."""
    random, text = generator(), config.text
    length = text.context if context is None else min(context, text.context)
    tokens = torch.randint(_FIRST_TOKEN, text.vocab_size, (rows, length), generator=random)
    if getattr(config, "end_id", None) is not None:
        tokens[:, -1] = config.end_id
    return {**example_pixels(config.image, rows, random), "tokens": tokens}


def generative_example(config: Any, rows: int, *, prompt: int = 16, answer: int = 16) -> dict[str, Tensor]:
    """`rows` images with `prompt` tokens after the placeholders of the image, and `answer` target tokens."""
    random = generator()
    batch = example_pixels(config.image, rows, random)
    highest = min(config.image_id, config.text.vocab_size)
    text = torch.randint(_FIRST_TOKEN, highest, (rows, prompt + answer), generator=random)
    placeholders = torch.full((rows, config.num_image_tokens), config.image_id)
    tokens = torch.cat([placeholders, text[:, :prompt]], dim=1)
    return {**batch, "tokens": tokens, "targets": text[:, prompt:].contiguous()}
