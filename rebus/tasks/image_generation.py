"""Images that a generative model writes as codes between the tokens of its text, and their decoding to pixels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from rebus.core.capabilities import DrawsImages, TokenisesImages
from rebus.core.errors import UnsupportedTask, UsageError
from rebus.core.specs import ImageTokens
from rebus.generation import Guidance
from rebus.tasks.task_model import TaskModel, companion


class TokenRows:
    """Prompts that grow: a batch whose rows of tokens are continued one by one, without padding in between.

    Images of the prompts are read once, where they become tokens (`TokenisesImages`).
    """

    def __init__(self, model: TaskModel, batch: Mapping[str, Tensor]):
        self.model, self.batch = model, dict(batch)
        tokens, mask = self.batch.pop("tokens"), self.batch.pop("mask")
        if isinstance(model.network, TokenisesImages):
            with torch.inference_mode():
                tokens, self.batch = model.network.read_images(tokens, **self.batch), {}
        self.rows: list[list[int]] = [row[real].tolist() for row, real in zip(tokens, mask, strict=True)]

    def generate(self, which: Sequence[int], **options: Any) -> list[list[int]]:
        """What the model generates after the rows `which`."""
        index = torch.tensor(which, device=self.model.device)
        rest = {name: tensor[index] for name, tensor in self.batch.items()}
        prompts = self._padded([self.rows[i] for i in which])
        generated: list[list[int]] = self.model.generate(**rest, **prompts, **options).tolist()
        return generated

    def draw(self, which: Sequence[int], spec: ImageTokens, options: Mapping[str, Any]) -> list["Drawn"]:
        """An image for each of the rows `which`, generated after the token that begins one, which they end with. The
        rows stay as they are, so that several images may be generated after one: `keep` appends the chosen one.

        `guidance` among the options: how far to go from what any image would be to what the text asks for, and how far
        to what the images before it ask for; one number is that of the text. 1 leaves everything as it is.
        """
        codes = range(spec.first, spec.last + 1)
        guidance = self._guidance(which, spec, options.get("guidance"))
        options = {**options, "allowed": codes, "max_new_tokens": spec.each, "eos_id": None, "guidance": guidance}
        generated = self.generate(which, **options)
        with torch.inference_mode():
            numbers = torch.tensor(generated, device=self.model.device) - spec.first
            pixels = image_decoder(self.model).draw_images(numbers)
        return [Drawn(to_image(one), row) for one, row in zip(pixels, generated, strict=True)]

    def keep(self, row: int, drawn: "Drawn", spec: ImageTokens) -> None:
        """Append an image that was generated after the row."""
        self.rows[row] += [*drawn.codes, spec.end]

    def _guidance(self, which: Sequence[int], spec: ImageTokens, given: Any) -> Guidance | None:
        """Away from the images of each row without its text, and from no prompt at all."""
        text, image = guidance_scales(given)
        if text == image == 1:
            return None
        if self.batch:
            raise UsageError(
                f"{self.model.system.name} reads images that are no tokens: it takes no guidance for its own"
            )
        assert self.model.processor.text is not None
        start = self.model.processor.text.spec.bos_id
        own = {spec.begin, spec.end, *range(spec.first, spec.last + 1), start}
        images = [[token for token in self.rows[i] if token in own] for i in which]
        nothing = [row[:1] * (row[0] == start) + [spec.begin] for row in images]
        if image == 1 or images == nothing:
            return Guidance(scale=text, batch=self._padded(images))
        last = Guidance(scale=image, batch=self._padded(nothing))
        return Guidance(scale=text, batch=self._padded(images), then=last)

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        tensors = [torch.tensor(row, device=self.model.device) for row in rows]
        pad = torch.nn.utils.rnn.pad_sequence
        tokens = pad(tensors, batch_first=True, padding_value=self.model.endings()["pad_id"])
        return {
            "tokens": tokens,
            "mask": pad([torch.ones_like(row, dtype=torch.bool) for row in tensors], batch_first=True),
        }


class Drawn(NamedTuple):
    """A generated image, and the tokens that it was decoded from."""

    image: Image.Image
    codes: list[int]


def guidance_scales(given: Any) -> tuple[float, float]:
    """Of the text and of the images of a prompt. Raises `UsageError` for what is neither a finite number nor two."""
    found = (1.0, 1.0) if given is None else (given, 1.0) if isinstance(given, int | float) else given
    good = isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(s, int | float) for s in found)
    if not good or not all(map(math.isfinite, found)):
        raise UsageError(f"guidance of an image is a number, for the text, or two, for text and images; got {given!r}")
    return float(found[0]), float(found[1])


def image_tokens(model: TaskModel) -> ImageTokens:
    """How the model writes images. Raises `UnsupportedTask` where it writes none."""
    if model.system.image_tokens is None:
        raise UnsupportedTask(f"{model.system.name} writes no images")
    return model.system.image_tokens(model.config)


def writes_images(model: TaskModel) -> bool:
    """Whether its text may have images in it: it has a form for them, and a decoder unless that file is missing."""
    return model.system.image_tokens is not None and getattr(model.network, "draws", True)


def text_tokens(model: TaskModel, spec: ImageTokens) -> list[int]:
    """All tokens that belong to no image and steer nothing, and the end token."""
    assert model.processor.text is not None
    tokenizer, end = model.processor.text.tokenizer, model.endings()["eos_id"]
    own = {spec.begin, spec.end, *range(spec.first, spec.last + 1), *tokenizer.special_ids} - {end}
    return [i for i in range(tokenizer.vocab_size) if i not in own]


def text_alone(model: TaskModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """The decoding options of an answer that has no images in it, also where the model could write them."""
    if model.system.image_tokens is None or options.get("allowed") is not None:
        return dict(options)
    return {**options, "allowed": text_tokens(model, image_tokens(model))}


def image_decoder(model: TaskModel) -> DrawsImages:
    """What decodes the codes of an image: the network, or a companion. Raises `MissingFile` where that is not there."""
    if isinstance(model.network, DrawsImages) and getattr(model.network, "draws", True):
        return model.network
    for name, declared in model.system.companions.items():
        if "imagine" in declared.tasks:
            found: DrawsImages = companion(model, name)
            return found
    raise UnsupportedTask(f"{model.system.name} has nothing that decodes images")


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] → RGB."""
    return Image.fromarray((pixels.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
