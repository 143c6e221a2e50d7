"""Images that a generative model writes as codes between the tokens of its text, and their decoding to pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rebus.core.capabilities import DrawsImages
from rebus.core.errors import UnsupportedTask
from rebus.core.specs import ImageTokens
from rebus.tasks.task_model import TaskModel, companion


class TokenRows:
    """Prompts that grow: a batch whose rows of tokens are continued one by one, without padding in between."""

    def __init__(self, model: TaskModel, batch: Mapping[str, Tensor]):
        self.model, self.batch = model, dict(batch)
        tokens, mask = self.batch.pop("tokens"), self.batch.pop("mask")
        self.rows: list[list[int]] = [row[real].tolist() for row, real in zip(tokens, mask, strict=True)]

    def generate(self, which: Sequence[int], **options: Any) -> list[list[int]]:
        """What the model generates after the rows `which`."""
        rows = [torch.tensor(self.rows[i], device=self.model.device) for i in which]
        pad = torch.nn.utils.rnn.pad_sequence
        tokens = pad(rows, batch_first=True, padding_value=self.model.endings()["pad_id"])
        mask = pad([torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True)
        index = torch.tensor(which, device=self.model.device)
        rest = {name: tensor[index] for name, tensor in self.batch.items()}
        generated: list[list[int]] = self.model.generate(**rest, tokens=tokens, mask=mask, **options).tolist()
        return generated

    def draw(self, which: Sequence[int], spec: ImageTokens, options: Mapping[str, Any]) -> list[Image.Image]:
        """An image for each of the rows `which`, generated after the token that begins one, which they end with."""
        codes = range(spec.first, spec.last + 1)
        generated = self.generate(which, **options, allowed=codes, max_new_tokens=spec.each, eos_id=None)
        for i, row in zip(which, generated, strict=True):
            self.rows[i] += [*row, spec.end]
        with torch.inference_mode():
            numbers = torch.tensor(generated, device=self.model.device) - spec.first
            pixels = image_decoder(self.model).draw_images(numbers)
        return [to_image(one) for one in pixels]


def image_tokens(model: TaskModel) -> ImageTokens:
    """How the model writes images. Raises `UnsupportedTask` where it writes none."""
    if model.system.image_tokens is None:
        raise UnsupportedTask(f"{model.system.name} writes no images")
    return model.system.image_tokens(model.config)


def text_tokens(model: TaskModel, spec: ImageTokens) -> list[int]:
    """All tokens that belong to no image."""
    assert model.processor.text is not None
    own = {spec.begin, spec.end, *range(spec.first, spec.last + 1)}
    return [i for i in range(model.processor.text.tokenizer.vocab_size) if i not in own]


def image_decoder(model: TaskModel) -> DrawsImages:
    """What decodes the codes of an image: the network, or a companion. Raises `MissingFile` where that is not there."""
    if isinstance(model.network, DrawsImages):
        return model.network
    for name, declared in model.system.companions.items():
        if "imagine" in declared.tasks:
            found: DrawsImages = companion(model, name)
            return found
    raise UnsupportedTask(f"{model.system.name} has nothing that decodes images")


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] → RGB."""
    return Image.fromarray((pixels.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
