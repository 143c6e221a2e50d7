"""Saliency of a text on an image: the gradient of their score, times the features of a layer of the image encoder.

Draelos and Carin, "Use HiResCAM instead of Grad-CAM", 2020; Selvaraju et al., "Grad-CAM", 2017. Works for every image
encoder, with attention or without, and every model that scores an image with a text: by similarity, by match
probability, or by the likelihood of the text as the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rebus.codec.images import open_image
from rebus.codec.resize import placement
from rebus.codec.text import filled_prompt
from rebus.core.capabilities import EmbedsImages, EmbedsText, HasAnchors, MatchesPairs, WritesText
from rebus.core.errors import UnsupportedTask
from rebus.core.labels import IGNORED
from rebus.nn.blocks import blocks_of
from rebus.nn.quantized import is_quantized
from rebus.tasks.batching import progress
from rebus.tasks.image_features import image_encoder
from rebus.tasks.image_layers import captured, on_places
from rebus.tasks.inputs import many_texts
from rebus.tasks.task_model import TaskModel, image_spec, on_device, prompt_for

_STRENGTH = 0.65  # of the colour over the image, at most
_LENGTHS = ("norm", "vector_norm", "linalg_vector_norm")  # what gives the lengths of vectors
_HIDDEN, _AT_A_TIME = 8, 16  # places of a side that are hidden one by one; images of a batch


@dataclass(frozen=True, eq=False)
class Explanation:
    """`heat` (H, W) float32 from 0 to 1, of the size of the image: where `text` is seen. `score`: a cosine or
    similarity, log-odds of a match, or the log-likelihood of the text."""

    image: Image.Image
    text: str
    score: float
    heat: np.ndarray

    @property
    def peak(self) -> tuple[int, int]:
        """x, y in pixels of the largest heat."""
        y, x = np.unravel_index(int(self.heat.argmax()), self.heat.shape)
        return int(x), int(y)

    def plot(self) -> Image.Image:
        """The image in grey with the heat map in colour."""
        grey = np.asarray(self.image.convert("L").convert("RGB"), np.float32)
        warm = np.stack([np.full_like(self.heat, 255), 190 * (1 - self.heat), np.zeros_like(self.heat)], axis=2)
        share = _STRENGTH * self.heat[..., None]
        return Image.fromarray(np.clip(grey * (1 - share) + warm * share, 0, 255).astype(np.uint8))

    def _repr_png_(self) -> bytes:
        from rebus.tasks.draw import encoded

        return encoded(self.plot(), ".png")


def explain(model: TaskModel, image: Any, texts: str | Sequence[str]) -> Explanation | list[Explanation]:
    """One image and a text, or several. The places are those of the last layer whose features move the score. Where a
    gradient tells little (sums over the nearest anchors, which jump and saturate) or there is none (8-bit products),
    the score is asked again with a part of the image hidden at a time, 64 times.

    Raises `UnsupportedTask` for a model that scores no image with a text, or has no image encoder with places.
    """
    encoder = image_encoder(model.network)
    layers = [] if encoder is None else blocks_of(encoder)
    if encoder is None or not layers:
        raise UnsupportedTask(f"{model.system.name} has no image encoder with layers of places")
    layers += [cast(nn.Module, encoder.last_map)] if hasattr(encoder, "last_map") else []
    opened = open_image(image)
    listed, many = many_texts(texts)
    found = [_explained(model, encoder, dict(enumerate(layers)), opened, str(text)) for text in listed]
    return found if many else found[0]


def can_explain(model: TaskModel) -> bool:
    """Whether a model has what `explain` needs: layers of places, and scores of an image with a text."""
    encoder, network = image_encoder(model.network), model.network
    by_similarity = isinstance(network, EmbedsImages) and isinstance(network, EmbedsText)
    scores = by_similarity or isinstance(network, MatchesPairs | WritesText)
    return encoder is not None and bool(blocks_of(encoder)) and scores


def _explained(model: TaskModel, encoder: Any, layers: dict[int, Any], image: Image.Image, text: str) -> Explanation:
    pixels = on_device(model, model.processor(images=[image]))["pixels"]
    if pixels.dim() != 4:
        raise UnsupportedTask(f"{model.system.name} reads images of any shape: its layers have no one grid")
    differentiable = not is_quantized(model.network) and not isinstance(model.network, HasAnchors)
    pixels.requires_grad_(differentiable)
    eager = torch.compiler.set_stance("force_eager")
    with captured(layers) as seen, torch.set_grad_enabled(differentiable), eager, _ConstantLengths():
        score = _scores(model, pixels, text).sum()
    if not seen:
        raise UnsupportedTask(
            f"{model.system.name} scores texts without its image encoder: there is nothing to explain"
        )
    outputs = [seen[number] for number in sorted(seen)]
    if score.requires_grad:
        heat = _by_gradient(encoder, pixels, outputs, score)
    else:
        heat = _by_hiding(model, pixels.detach(), text, float(score))
    return Explanation(image, text, float(score.detach()), _over_image(model, heat, image.size))


class _ConstantLengths(TorchFunctionMode):
    """The lengths of vectors are constants. Otherwise what a place adds to a unit vector would count only as far as it
    adds more than the others do, and the shares of all places would add up to nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.normalize:
            return _normalised(*args, **(kwargs or {}))
        found = func(*args, **(kwargs or {}))
        return found.detach() if getattr(func, "__name__", "") in _LENGTHS else found


def _normalised(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    return x / x.norm(p, dim, keepdim=True).clamp_min(eps).detach()


def _by_gradient(encoder: Any, pixels: Tensor, outputs: list[Tensor], score: Tensor) -> Tensor:
    """(rows, columns): gradient times features, where the score grows with them."""
    gradients = torch.autograd.grad(score, outputs, allow_unused=True)
    for output, gradient in zip(reversed(outputs), reversed(gradients), strict=True):
        if gradient is not None:  # a class token is all that is read of the last layer: then the one before
            shares, _ = on_places(encoder, pixels, (output * gradient).detach())
            heat = shares.float().sum(dim=-1)[0].relu()
            if heat.any():
                return heat
    return torch.zeros(1, 1, device=pixels.device)


def _by_hiding(model: TaskModel, pixels: Tensor, text: str, score: float) -> Tensor:
    """(rows, columns): how much the score falls when a place and those round it are grey (Zeiler and Fergus,
    "Visualizing and Understanding Convolutional Networks", 2014, Sec. 4.2)."""
    places = torch.eye(_HIDDEN**2, device=pixels.device).view(-1, 1, _HIDDEN, _HIDDEN)
    hidden = F.interpolate(F.max_pool2d(places, 3, stride=1, padding=1), pixels.shape[-2:], mode="nearest").to(
        pixels.dtype
    )
    scores = []
    with torch.inference_mode(), progress("parts hidden", len(hidden)) as advance:
        for part in hidden.split(_AT_A_TIME):
            scores.append(_scores(model, pixels * (1 - part), text))
            advance(len(part))
    return (score - torch.cat(scores).float()).relu().view(_HIDDEN, _HIDDEN)


def _scores(model: TaskModel, pixels: Tensor, text: str) -> Tensor:
    """(B,): how well the text goes with each of the images."""
    network = model.network
    if isinstance(network, EmbedsImages) and isinstance(network, EmbedsText):
        words = on_device(model, model.processor(texts=[text]))
        if getattr(network, "is_dense", True):
            return (network.embed_image(pixels) * network.embed_text(**words)).sum(dim=-1)
        anchored = cast(Any, network)
        return anchored.score(anchored.image_vectors(pixels), anchored.text_vectors(**words))[:, 0]
    if isinstance(network, MatchesPairs):
        batch = model.processor(texts=[filled_prompt(model.system.prompts, "match", text=text)])
        return network.match_logits(pixels=pixels, **_for_each(pixels, on_device(model, batch)))
    if isinstance(network, WritesText):
        batch = _for_each(pixels, on_device(model, _prompt(model, text)))
        logits = cast(Any, network)(pixels=pixels, **batch).logits.float()
        targets = batch["targets"]
        chosen = logits.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
        return chosen.masked_fill(targets == IGNORED, 0).sum(dim=1)
    raise UnsupportedTask(f"{model.system.name} scores no image with a text: there is nothing to explain")


def _for_each(pixels: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """One row of text for each image."""
    return {name: tensor.expand(len(pixels), *tensor.shape[1:]) for name, tensor in batch.items()}


def _prompt(model: TaskModel, text: str) -> dict[str, Tensor]:
    """The prompt of a caption, with the marks of one image, and the text as its answer."""
    blank = Image.new("RGB", (8, 8))
    batch = model.processor(images=[blank], texts=[prompt_for(model, "caption")], targets=[text])
    return {name: tensor for name, tensor in batch.items() if name not in ("pixels", "image_mask")}


def _over_image(model: TaskModel, heat: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(rows, columns) of the network's image → (H, W) of the given one; what was cut away has none."""
    spec = image_spec(model)
    high, wide = spec.size
    seen = F.interpolate(heat[None, None], (high, wide), mode="bilinear", align_corners=False)[0, 0]
    left, top, width, height = placement(spec, *size)
    whole = torch.zeros(height, width, device=seen.device)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, wide), min(top + height, high)
    whole[y1 - top : y2 - top, x1 - left : x2 - left] = seen[y1:y2, x1:x2]
    full = F.interpolate(whole[None, None], (size[1], size[0]), mode="bilinear", align_corners=False)[0, 0]
    return (full / full.max().clamp(min=1e-12)).cpu().numpy()
