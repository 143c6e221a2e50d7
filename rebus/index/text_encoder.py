"""The text encoder of a dual encoder alone, which is all that a search by text needs.

Neither timm nor torchvision is imported for it, and no weight of the image encoder is read.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rebus.api import Model
from rebus.codec.processor import Processor
from rebus.core.config import to_dict
from rebus.core.errors import UnsupportedTask
from rebus.core.strict_json import to_json
from rebus.open_checkpoint import Opened, open_checkpoint
from rebus.weights.load_weights import load_into, on_meta

_PROBE = "A photo of 2 dogs, Straße, 犬"  # what it becomes tells tokenizers apart


def load_text_encoder(source: str) -> Model:
    """A model of which `embed_texts` is all that it can do. Raises what `rebus.load` raises, and `UnsupportedTask` for
    one that embeds no texts."""
    return text_encoder(open_checkpoint(source))


def text_encoder(opened: Opened, processor: Processor | None = None) -> Model:
    """The same of an open checkpoint; `processor`: its own, where that was made already."""
    if "embed_texts" not in opened.card.tasks:
        raise UnsupportedTask(f"{opened.name} does not embed text: an index needs a dual encoder")
    build, names = _text_side(opened)
    with on_meta():
        network = build(opened.config)
    load_into(network, {name: opened.tensors[name] for name in names}, dtype=torch.float32)
    handed = opened.handed.get("text")
    if handed is not None:
        network.hand(text=_whole(handed))
    own = opened.processor() if processor is None else processor
    card = replace(opened.card, tasks=frozenset({"embed_texts"}))
    return Model(network, Processor(None, own.text), config=opened.config, card=card, system=opened.system)


def _whole(opened: Opened) -> Any:
    with on_meta():
        network = opened.system.build(opened.config)
    return load_into(network, opened.tensors, dtype=torch.float32).eval()


def _text_side(opened: Opened) -> tuple[Callable[[Any], Any], list[str]]:
    """What builds the network that reads text, and the names of its tensors; all of a system that does not say."""
    build = opened.system.text_side or opened.system.build
    with on_meta():
        return build, list(build(opened.config).state_dict())


def fingerprints(opened: Opened) -> tuple[str, str]:
    """A fingerprint of the vectors of a model: (of texts, of images). Weights as they lie in the files, anchors
    among them, the configuration, which says how features are pooled, and how text and images are prepared."""
    return fingerprint_of_text(opened), _digest(_image_parts(opened))


def fingerprint_of_text(opened: Opened, processor: Processor | None = None) -> str:
    """The first of them, for which no weight of the image encoder is read."""
    return _digest(_text_parts(opened, opened.processor() if processor is None else processor))


def _text_parts(opened: Opened, processor: Processor) -> Iterator[bytes | Tensor]:
    yield _settings(opened)
    for name in _text_side(opened)[1]:
        yield from (name.encode(), opened.tensors[name].load())
    if (handed := opened.handed.get("text")) is not None:
        yield from _all_parts(handed)
    text = processor.text
    if text is not None:
        yield repr(text.spec).encode()
        yield str(text.tokenizer.encode(_PROBE)).encode()


def _image_parts(opened: Opened) -> Iterator[bytes | Tensor]:
    yield from _all_parts(opened)
    if (handed := opened.handed.get("image")) is not None:
        yield from _all_parts(handed)
    image = opened.processor().image
    if image is not None:
        yield repr(image.spec).encode()


def _all_parts(opened: Opened) -> Iterator[bytes | Tensor]:
    yield _settings(opened)
    for name, tensor in sorted(opened.tensors.items()):
        yield from (name.encode(), tensor.load())


def _settings(opened: Opened) -> bytes:
    return to_json([opened.system.name, to_dict(opened.config)], sort_keys=True, default=str).encode()


def _digest(parts: Iterator[bytes | Tensor]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            flat = part.detach().contiguous().flatten()
            found.update(str((part.dtype, tuple(part.shape))).encode())
            if flat.numel():
                found.update(flat.view(torch.uint8).numpy().data)
        else:
            found.update(part)
    return found.hexdigest()
