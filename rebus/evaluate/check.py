"""Numerical self-test of a model on this machine. Takes seconds: a few images, a few texts, no data needed."""

import copy
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from rebus.codec.images import ImagePipeline
from rebus.core.capabilities import EmbedsImages, WritesText
from rebus.core.errors import RebusError
from rebus.data.scenes import scene
from rebus.evaluate import reference

_BATCH = 2e-4  # a row alone and in a batch: other matrix sizes, another order of sums
_BF16_COSINE, _INT8_COSINE = 0.95, 0.95  # trained encoders stay above 0.99; sparse descriptions (ASIF) drift more
_RESIZE_MEAN = 4.0  # /255: the fast path's mean distance from the exact one on a detailed JPEG
_TYPED = "what is <image> <bos> <eos> <pad> <loc0001> <seg001> [MASK] <|endoftext|>?"


@dataclass(frozen=True)
class Check:
    """One line of the table. `passed` is None where there was nothing to check."""

    name: str
    passed: bool | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check(model: Any, stored: Mapping[str, Any] | None = None) -> Iterator[Check]:
    """The checks of a model, each as soon as it is done. `stored`: its reference outputs, where it came with some."""
    parts: tuple[tuple[str, Callable[[], tuple[bool | None, str]]], ...] = (
        ("weights are finite", lambda: _finite(model)),
        ("stored reference", lambda: (None, "none stored") if stored is None else reference.compare(model, stored)),
        ("images: batch = single", lambda: _images_alone(model)),
        ("texts: batch = single", lambda: _texts_alone(model)),
        ("bfloat16 drift", lambda: _drift(model, _to_bfloat16, _BF16_COSINE)),
        ("int8 drift", lambda: _drift(model, _to_int8, _INT8_COSINE)),
        ("tokenizer round trip", lambda: _round_trip(model)),
        ("typed control tokens", lambda: _typed(model)),
        ("fast resize", lambda: _resize(model)),
    )
    for name, part in parts:
        try:
            passed, detail = part()
        except RebusError as error:
            passed, detail = False, str(error)
        yield Check(name, passed, detail)


def _finite(model: Any) -> tuple[bool, str]:
    bad = [name for name, p in model.network.named_parameters() if not bool(torch.isfinite(p).all())]
    return not bad, f"{', '.join(bad[:3])} are not" if bad else f"{model.num_parameters():,} numbers"


@torch.inference_mode()
def _see(model: Any, network: nn.Module, images: list[Image.Image]) -> Tensor | None:
    """(B, D) float32: what the network makes of images; None where it cannot see or read."""
    if isinstance(network, EmbedsImages):
        if model.processor.image is None:
            return None
        return network.embed_image(**_placed(model, network, model.processor(images=images))).float().cpu()
    if isinstance(network, WritesText) and model.processor.text is not None and model.processor.image is not None:
        prompt = model.system.prompts.caption or ""
        batch = _placed(model, network, model.processor(images=images, texts=[prompt] * len(images)))
        return network.start(room=1, **batch).logits.float().cpu()
    if reference.picks_answers(model):
        batch = _placed(model, network, reference.questions_batch(model, images))
        return cast(Any, network).answer_logits(**batch).float().nan_to_num(neginf=0.0).cpu()
    return None


def _placed(model: Any, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), model.dtype)
    return {n: t.to(model.device, dtype if t.is_floating_point() else None) for n, t in batch.items()}


def _images_alone(model: Any) -> tuple[bool | None, str]:
    images = reference.held_out_images(3)
    together = _see(model, model.network, images)
    if together is None:
        return None, "the checkpoint does not encode images on its own"
    alone = torch.cat([row for image in images if (row := _see(model, model.network, [image])) is not None])
    return _close(together, alone, model)


def _texts_alone(model: Any) -> tuple[bool | None, str]:
    if "embed_texts" in model.tasks and model.processor.text is not None:
        together = torch.as_tensor(np.asarray(model.embed_texts(list(reference.TEXTS))))
        alone = torch.stack([torch.as_tensor(np.asarray(model.embed_texts(t))).reshape(-1) for t in reference.TEXTS])
        return _close(together, alone, model)
    can_ask = model.processor.text is not None and model.processor.image is not None
    if "ask" in model.tasks and can_ask and (model.companions or not reference.picks_answers(model)):
        image = reference.held_out_images(1)[0]
        questions = ["how many objects are there?", "what colour is the object on the left of the image?"]
        short = {"max_new_tokens": 16} if isinstance(model.network, WritesText) else {}
        together_said = model.ask([image] * 2, questions, **short)
        alone_said = [model.ask(image, question, **short) for question in questions]
        return together_said == alone_said, f"answers {together_said}"
    return None, "the checkpoint has no text of its own"


def _close(together: Tensor, alone: Tensor, model: Any) -> tuple[bool, str]:
    scale = float(together.abs().max().clamp(min=1.0))
    apart = float((together - alone).abs().max()) / scale
    allowed = _BATCH if model.dtype == torch.float32 else 0.05
    return apart <= allowed, f"differ by {apart:.1e}"


def _drift(model: Any, change: Callable[[nn.Module], None], least: float) -> tuple[bool | None, str]:
    size = sum(p.numel() * p.element_size() for p in model.network.parameters())
    if model.device.type == "cpu" and size > 0.5 * _free_memory():
        return None, f"skipped: a second copy of {size / 1e9:.1f} GB does not fit"
    images = reference.held_out_images(3)
    exact = _see(model, model.network, images)
    if exact is None:
        return None, "the checkpoint does not encode images on its own"
    network = copy.deepcopy(model.network)
    try:
        change(network)
        drifted = _see(model, network, images)
    except (ImportError, NotImplementedError, RuntimeError) as error:
        return None, f"not on this machine: {str(error).splitlines()[0][:80]}"
    assert drifted is not None
    cosine = float(nn.functional.cosine_similarity(exact, drifted, dim=-1).min())
    return cosine >= least, f"cosine {cosine:.5f} (at least {least})"


def _to_bfloat16(network: nn.Module) -> None:
    network.to(torch.bfloat16)


def _to_int8(network: nn.Module) -> None:
    from rebus.nn.quantized import quantize_linears

    quantize_linears(network)


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return float("inf")


def _round_trip(model: Any) -> tuple[bool | None, str]:
    text = model.processor.text
    if text is None:
        return None, f"the checkpoint has no {model.processor.text_missing}"
    said = scene(0, "test").captions[0]
    back = text.tokenizer.decode(text.tokenizer.encode(text.prepare(said)))
    plain = "".join(c for c in said.lower() if c.isalnum())
    return plain == "".join(c for c in back.lower() if c.isalnum()), repr(back[:60])


def _typed(model: Any) -> tuple[bool | None, str]:
    text = model.processor.text
    if text is None:
        return None, f"the checkpoint has no {model.processor.text_missing}"
    found = set(text.tokenizer.encode(_TYPED)) & (text.tokenizer.special_ids - {text.tokenizer.unknown_id})
    names = ", ".join(str(text.tokenizer.piece_of(i)) for i in found)
    return not found, f"read as control tokens: {names}" if found else "read as plain text"


def _resize(model: Any) -> tuple[bool | None, str]:
    if model.processor.image is None:
        return None, f"the checkpoint has no {model.processor.image_missing}"
    buffer = io.BytesIO()
    scene(1, "test", 768).image.save(buffer, "JPEG", quality=92)
    spec = model.processor.image.spec
    exact, fast = (ImagePipeline(spec, fast=quick)([buffer.getvalue()])["pixels"] for quick in (False, True))
    if exact.shape != fast.shape:
        return False, f"shapes {tuple(exact.shape)} and {tuple(fast.shape)}"
    apart = (exact - fast).abs() * (max(spec.std) / spec.rescale)
    return float(apart.mean()) <= _RESIZE_MEAN, f"mean {float(apart.mean()):.2f}/255, most {float(apart.max()):.0f}/255"
