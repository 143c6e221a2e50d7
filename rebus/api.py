"""`load` and `create`, and the object they return: a network, its processor, and the tasks it can do."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from rebus import catalog
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.codec.text import Prompt
from rebus.core.answers import Box, Mask, Ranking
from rebus.core.card import ModelCard
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import UnsupportedTask, UsageError
from rebus.core.system import System
from rebus.generation import OPTIONS
from rebus.generation import generate as write
from rebus.generation.cuda_graph import GraphedStep
from rebus.nn.int8 import is_quantized, quantize_linears
from rebus.nn.linear import join_products
from rebus.open_checkpoint import Opened, config_of, open_checkpoint, save_checkpoint
from rebus.weights.companions import companion_files, open_companions
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.load_weights import load_into, on_meta


class Model:
    """A network with its processor and the tasks that the two can do together.

    `network` is the `nn.Module`, and calling the model calls it; `processor` turns images and text into its batch.
    Tasks take one item or a list and answer in kind; one that the model lacks raises `UnsupportedTask`.
    """

    def __init__(
        self,
        network: nn.Module,
        processor: Processor,
        *,
        config: Any,
        card: ModelCard,
        system: System,
        companions: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
    ):
        self.network = network.eval()
        self.processor = processor
        self.config = config
        self.card = card
        self.system = system
        self.companions: Mapping[str, Any] = dict(companions or {})
        self._files = dict(files or {})

    def __call__(self, **batch: Any) -> Any:
        return self.network(**batch)

    def __repr__(self) -> str:
        return f"Model({self.card.name}, {self.num_parameters():,} parameters, {self.dtype}, {self.device})"

    @property
    def tasks(self) -> frozenset[str]:
        """The names of the task methods that this model can do."""
        return self.card.tasks

    @property
    def device(self) -> torch.device:
        return self._first().device

    @property
    def dtype(self) -> torch.dtype:
        return next((t.dtype for t in self._tensors() if t.is_floating_point()), torch.float32)

    def num_parameters(self) -> int:
        """Trained numbers in the network, tied weights counted once."""
        return sum(p.numel() for p in self.network.parameters())

    def to(self, *args: Any, **kwargs: Any) -> "Model":
        """Move the network, as `nn.Module.to` does; gives the model itself."""
        self.network.to(*args, **kwargs)
        for part in self.companions.values():
            if isinstance(part, nn.Module):
                part.to(self.device)
        return self

    def generate(self, *, max_new_tokens: int = 64, strategy: str = "greedy", **options: Any) -> Tensor:
        """New tokens after the prompts: (B, ≤ max_new_tokens) int64, each row padded after its end.

        Takes a batch (`pixels`, `tokens`, `mask`) and decoding options together; see `rebus.generation`.
        """
        if "stream" not in self.tasks:
            raise self._unsupported("generate", "stream")
        batch = {name: options.pop(name) for name in list(options) if name not in OPTIONS}
        return write(
            self.network,  # type: ignore[arg-type]
            batch,
            max_new_tokens=max_new_tokens,
            strategy=strategy,
            **{**self.endings(), **options},
        )

    def endings(self) -> dict[str, Any]:
        """How this model's texts end: `eos_id`, `pad_id`, and `decode` where there is a tokenizer."""
        text = self.processor.text
        spec = text.spec if text is not None else self.system.text_spec and self.system.text_spec(self.config)
        if spec is None:
            raise UsageError(f"{self.card.name} has no text")
        return {"eos_id": spec.eos_id, "pad_id": spec.pad_id, "decode": text and text.tokenizer.decode}

    def save(self, directory: str | os.PathLike[str], layout: str | None = None) -> Path:
        """Write the model in a released layout, whole or not at all; gives the directory.

        `layout`: "transformers", "open_clip" or whatever else the system has; None: the first that can hold it.
        """
        cfg = getattr(self.network, "cfg", self.config)  # as it is now: pairs of ASIF come and go
        layouts = self.system.layouts
        if layout is not None and layout not in layouts:
            raise UsageError(
                f"{self.system.name} is not written in the layout {layout!r}; there is: {', '.join(layouts)}"
            )
        form = self.system.layout_for(cfg) if layout is None else layouts[layout]
        if form.write_config is None and form.save is None:
            raise UsageError(f"the layout {layout!r} is read only")
        if is_quantized(self.network):
            raise UsageError("an 8-bit model is not saved: load it without quantize, and save that one")
        weights = self.network.state_dict()
        return save_checkpoint(Path(directory), form, cfg, weights, processor=self.processor, files=self._files)

    def embed_images(self, images: Any) -> Tensor:
        """Unit vectors, float32 (n, d), of one image or a list."""
        from rebus.tasks.embed import embed_images

        return embed_images(self._can("embed_images"), images)

    def embed_texts(self, texts: str | Sequence[str]) -> Tensor:
        """Unit vectors, float32 (n, d), of one text or a list."""
        from rebus.tasks.embed import embed_texts

        return embed_texts(self._can("embed_texts"), texts)

    def match(self, images: Any, texts: str | Sequence[str]) -> Tensor:
        """Cosine similarities (images, texts)."""
        from rebus.tasks.match import match

        return match(self._can("match"), images, texts)

    def logits(self, images: Any, texts: str | Sequence[str]) -> Tensor:
        """The released model's own scores (images, texts), scale and bias included."""
        from rebus.tasks.match import logits

        return logits(self._can("match"), images, texts)

    def probabilities(self, images: Any, texts: str | Sequence[str]) -> Tensor:
        """(images, texts): of each pair alone (SigLIP's sigmoid), or over the texts (CLIP's softmax)."""
        from rebus.tasks.match import probabilities

        return probabilities(self._can("match"), images, texts)

    def classify(
        self,
        images: Any,
        labels: Sequence[str],
        templates: str | Sequence[str] | None = None,
        multi: bool = False,
    ) -> Ranking | list[Ranking]:
        """Labels with probabilities, best first. `templates`: sentences with `{}`, or the name of a published set.

        `multi`: each label's own probability, of models with a sigmoid.
        """
        from rebus.tasks.classify import classify

        return classify(self._can("classify"), images, labels, templates, multi)

    def caption(self, images: Any, prompt: Prompt | None = None, **decoding: Any) -> str | list[str]:
        """What is in the image, in a sentence."""
        from rebus.tasks.caption import caption

        return caption(self._can("caption"), images, prompt, **decoding)

    def ask(self, images: Any, questions: str | Sequence[str], **decoding: Any) -> str | list[str]:
        """The answer to a question about the image."""
        from rebus.tasks.ask import ask

        return ask(self._can("ask"), images, questions, **decoding)

    def detect(
        self, images: Any, labels: str | Sequence[str] | None = None, **decoding: Any
    ) -> list[Box] | list[list[Box]]:
        """Boxes of the labelled things, in pixels of the given image."""
        from rebus.tasks.detect import detect

        return detect(self._can("detect"), images, labels, **decoding)

    def segment(self, images: Any, phrases: str | Sequence[str], **decoding: Any) -> list[Mask] | list[list[Mask]]:
        """Masks of the things that the phrases name, of the size of the given image."""
        from rebus.tasks.segment import segment

        return segment(self._can("segment"), images, phrases, **decoding)

    def complete(self, document: Any, **decoding: Any) -> Any:
        """What follows a list of text and images, files as `pathlib.Path`: text, or text and images in turn."""
        from rebus.tasks.complete import complete

        return complete(self._can("complete"), document, **decoding)

    def imagine(self, prompts: str | Sequence[str], **decoding: Any) -> Image.Image | list[Image.Image]:
        """An image of what the prompt describes."""
        from rebus.tasks.imagine import imagine

        return imagine(self._can("imagine"), prompts, **decoding)

    def stream(self, task: str, *args: Any, **options: Any) -> Iterator[str]:
        """The text of `caption`, `ask` or `complete`, piece by piece: `for piece in model.stream("caption", image)`."""
        from rebus.tasks.stream import stream

        self._can(task)
        return stream(self._can("stream"), task, *args, **options)

    def _can(self, task: str) -> "Model":
        if task not in self.tasks:
            raise self._unsupported(task, task)
        return self

    def _unsupported(self, name: str, task: str) -> UnsupportedTask:
        able = catalog.models_that_can(task)
        own = f"no model of this version can; its own tasks are: {', '.join(sorted(self.tasks))}"
        hint = f"models that can: {', '.join(able)}" if able else own
        return UnsupportedTask(f"{self.card.name} cannot {name}; {hint}")

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.network.parameters()
        yield from self.network.buffers()

    def _first(self) -> Tensor:
        return next(self._tensors(), torch.empty(0))


def create(name: str, **overrides: Any) -> Model:
    """An untrained model of a catalogue name. `overrides` replace fields of its configuration, nested ones as dicts.

    Honours `torch.device("meta")` and the default dtype: `with torch.device("meta"): rebus.create("clip/l14")`.
    Raises `UnknownName`, or `BadConfig` listing the fields that do not exist.
    """
    card = catalog.info(name)
    system = catalog.system(card.system)
    if card.preset not in system.presets and not card.bundled:
        raise UsageError(f"{name} is assembled from trained parts; use rebus.load({name!r})")
    config = _overridden(config_of(name)[1], overrides)
    processor = Processor(ImagePipeline(system.image_spec(config)) if system.image_spec else None, None)
    return Model(system.network(config), processor, config=config, card=card, system=system)


def _overridden(config: Any, overrides: Mapping[str, Any]) -> Any:
    values = to_dict(config)
    for field, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(values.get(field), Mapping)
        values[field] = {**values[field], **value} if nested else value
    return from_dict(type(config), values)


def load(
    source: str | os.PathLike[str],
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    quantize: str | None = None,
    compile: bool = False,
    revision: str | None = None,
    image_size: int | None = None,
) -> Model:
    """A trained model: a catalogue name, a local directory (or `.npz`), or a Hub id, looked up in this order.

    `device`: the GPU where there is one, else the CPU. `dtype`: as in the file, but half precision becomes float32 on
    a CPU. `quantize`: "int8" for 8-bit integer matrix products. `compile`: through `torch.compile`. `image_size`:
    pixels of a side of images, for which positions are interpolated; None: those that the network was trained with.
    Raises `UnknownName`, `MissingFile`, `BadConfig`, `BadCheckpoint` or `NetworkError`, each in one line.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind = _dtype(dtype)
    if quantize not in (None, "int8"):
        raise UsageError(f'quantize is None or "int8"; got {quantize!r}')
    model = _model(open_checkpoint(source, revision), target, kind, image_size)
    if quantize is not None:
        quantize_linears(model.network)
    if compile:
        _compile(model.network)
    return model


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if isinstance(dtype, str):
        found = getattr(torch, dtype, None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise UsageError(f"dtype is float32, bfloat16 or float16; got {dtype!r}")
        return found
    return dtype


def _model(opened: Opened, device: torch.device, dtype: torch.dtype | None, image_size: int | None = None) -> Model:
    system, config = opened.system, opened.config
    with on_meta():
        network = system.network(config)
    load_into(network, opened.tensors, device=device, dtype=_kind(opened.tensors, device, dtype))
    card = opened.card
    if not card.parameters:
        card = replace(card, parameters=sum(p.numel() for p in network.parameters()))
    parts = open_companions(system.companions, opened.folder, device)
    files = companion_files(system.companions, opened.folder)
    processor = opened.processor(image_size)
    return Model(network, processor, config=config, card=card, system=system, companions=parts, files=files)


def _kind(tensors: Mapping[str, LazyTensor], device: torch.device, dtype: torch.dtype | None) -> torch.dtype | None:
    """Half precision is slow and coarse on a CPU, so that it becomes float32 there unless asked for."""
    if dtype is None and device.type == "cpu" and any(t.dtype == torch.float16 for t in tensors.values()):
        return torch.float32
    return dtype


def _compile(network: nn.Module) -> None:
    """Compile what tasks call: the towers, and the decoding step over its static cache, on a GPU as a graph.

    There products over the same input are joined too: reading small matrices one by one is what a step waits for.
    """
    if any(parameter.is_cuda for parameter in network.parameters()):
        join_products(network)
    for name in ("embed_image", "embed_text", "see", "start"):
        if hasattr(network, name):
            setattr(network, name, torch.compile(getattr(network, name)))
    step: Any = getattr(network, "step", None)
    if step is not None:
        setattr(network, "step", GraphedStep(torch.compile(step, dynamic=False)))  # noqa: B010 - of a module, as above
