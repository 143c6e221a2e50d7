"""`load` and `create`, and the object they return: a network, its processor, and the tasks it can do."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rebus import catalog
from rebus.backbones.vision.mask_vqvae import MaskVQVAE, load_npz
from rebus.codec.images import ImagePipeline, image_spec_to_json
from rebus.codec.processor import Processor, load_processor
from rebus.codec.text import Prompt
from rebus.core.answers import Box, Mask, Ranking
from rebus.core.card import ModelCard
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadConfig, MissingFile, UnsupportedTask, UsageError
from rebus.core.system import Layout, System
from rebus.generation import OPTIONS
from rebus.generation import generate as write
from rebus.nn.int8 import is_quantized, quantize_linears
from rebus.weights.checkpoint_files import open_weights, read_config
from rebus.weights.hub import find
from rebus.weights.keymap import KeyMap
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.load_weights import load_into, on_meta
from rebus.weights.npz import big_vision, open_npz
from rebus.weights.save import save_directory

OPEN_CLIP = "open_clip_config.json"
MASK_DECODER = "vae-oid.npz"  # the released name of the mask VQ-VAE


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
        mask_decoder: MaskVQVAE | None = None,
        files: Mapping[str, bytes] | None = None,
    ):
        self.network = network.eval()
        self.processor = processor
        self.config = config
        self.card = card
        self.system = system
        self.mask_decoder = mask_decoder
        self._files = dict(files or {})

    def __call__(self, **batch: Any) -> Any:
        return self.network(**batch)

    def __repr__(self) -> str:
        return f"Model({self.card.name}, {self.num_parameters():,} parameters, {self.dtype}, {self.device})"

    @property
    def tasks(self) -> frozenset[str]:
        """The names of the task methods that this model can do."""
        return self.system.tasks

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
        if self.mask_decoder is not None:
            self.mask_decoder.to(self.device)
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

    def save(self, directory: str | os.PathLike[str], layout: str = "transformers") -> Path:
        """Write the model in a released layout, whole or not at all; gives the directory.

        `layout`: "transformers" (default) or another that the system has, such as "open_clip".
        """
        if layout not in self.system.layouts:
            have = ", ".join(self.system.layouts)
            raise UsageError(f"{self.system.name} is not written in the layout {layout!r}; there is: {have}")
        form = self.system.layouts[layout]
        if form.write_config is None:
            raise UsageError(f"the layout {layout!r} is read only")
        if is_quantized(self.network):
            raise UsageError("an 8-bit model is not saved: load it without quantize, and save that one")
        cfg = getattr(self.network, "cfg", self.config)  # as it is now: pairs of ASIF come and go
        tensors = form.keys(cfg).to_theirs(self.network.state_dict())
        extra = {**self._files, **self.processor.files()}
        config = form.write_config(cfg)
        config |= {"dtype": str(self.dtype).removeprefix("torch.")} if layout == "transformers" else {}
        target = Path(directory)
        if layout == "open_clip":
            if self.processor.image is not None:
                config["preprocess_cfg"] = image_spec_to_json(self.processor.image.spec, processor_class="open_clip")
            extra = {name: data for name, data in extra.items() if name not in ("preprocessor_config.json", OPEN_CLIP)}
            save_directory(target, config, tensors, extra, config_name=OPEN_CLIP, weights_name="open_clip_model")
        else:
            save_directory(target, config, tensors, extra)
        return target

    def embed_images(self, images: Any) -> Tensor:
        """Unit vectors, float32 (n, d), of one image or a list."""
        from rebus.tasks.embed import embed_images

        return embed_images(self._can("embed_images"), images)

    def embed_texts(self, texts: str | Sequence[str]) -> Tensor:
        """Unit vectors, float32 (n, d), of one text or a list."""
        from rebus.tasks.embed import embed_texts

        return embed_texts(self._can("embed_texts"), texts)

    def match(self, images: Any, texts: str | Sequence[str]) -> Tensor:
        """Similarity scores (images, texts)."""
        from rebus.tasks.match import match

        return match(self._can("match"), images, texts)

    def classify(
        self, images: Any, labels: Sequence[str], templates: str | Sequence[str] | None = None
    ) -> Ranking | list[Ranking]:
        """Labels with probabilities, best first. `templates`: sentences with `{}`, or the name of a published set."""
        from rebus.tasks.classify import classify

        return classify(self._can("classify"), images, labels, templates)

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

    def stream(self, task: str, *args: Any, **options: Any) -> Iterator[str]:
        """The same text as `caption` or `ask`, piece by piece: `for piece in model.stream("caption", image)`."""
        from rebus.tasks.stream import stream

        self._can(task)
        return stream(self._can("stream"), task, *args, **options)

    def _can(self, task: str) -> "Model":
        if task not in self.tasks:
            raise self._unsupported(task, task)
        return self

    def _unsupported(self, name: str, task: str) -> UnsupportedTask:
        able = catalog.models_that_can(task)
        hint = f"models that can: {', '.join(able)}" if able else f"its tasks are: {', '.join(sorted(self.tasks))}"
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
    if card.bundled:
        base = _identify(_folder(card))[2]
    elif card.preset in system.presets:
        base = system.presets[card.preset]
    else:
        raise UsageError(f"{name} is assembled from trained parts; use rebus.load({name!r})")
    config = _overridden(base, overrides)
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
) -> Model:
    """A trained model: a catalogue name, a local directory (or `.npz`), or a Hub id, looked up in this order.

    `device`: the GPU where there is one, else the CPU. `dtype`: as in the file, but half precision becomes float32 on
    a CPU. `quantize`: "int8" for 8-bit integer matrix products. `compile`: through `torch.compile`.
    Raises `UnknownName`, `MissingFile`, `BadConfig`, `BadCheckpoint` or `NetworkError`, each in one line.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind = _dtype(dtype)
    if quantize not in (None, "int8"):
        raise UsageError(f'quantize is None or "int8"; got {quantize!r}')
    model = _open(source, target, kind, revision)
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


def _open(
    source: str | os.PathLike[str], device: torch.device, dtype: torch.dtype | None, revision: str | None
) -> Model:
    rows = {card.name: card for card in catalog.cards()}
    card = rows.get(os.fspath(source))
    if card is None and os.fspath(source).split("/")[0] in catalog.MODULES and not Path(source).exists():
        catalog.info(os.fspath(source))  # a misspelt catalogue name: says which are near
    if card is not None and card.name == "asif/starter":
        from rebus.models.training_free.starter import build_starter

        parts = build_starter(device, dtype)
        system = catalog.system(card.system)
        return Model(parts.network, parts.processor, config=parts.config, card=card, system=system)
    if card is None:
        path = find(source, revision)
    elif card.bundled:
        path = _folder(card)
    elif card.repo is not None:
        path = find(card.repo, revision)
    else:
        raise MissingFile(f"no weights of {card.name} were released; use {card.instead}")
    return _read(path, card, os.fspath(source), device, dtype)


def _folder(card: ModelCard) -> Path:
    return catalog.checkpoint_folder() / card.name.replace("/", "_")


def _read(path: Path, card: ModelCard | None, name: str, device: torch.device, dtype: torch.dtype | None) -> Model:
    system, layout, config, tensors = _identify(path)
    keys: KeyMap = layout.keys(config)
    ours = keys.to_ours(tensors)
    with on_meta():
        network = system.network(config)
    load_into(network, ours, device=device, dtype=_kind(ours, device, dtype))
    folder = path if path.is_dir() else path.parent
    image = system.image_spec(config) if system.image_spec else None
    text = system.text_spec(config) if system.text_spec else None
    processor = load_processor(folder, image, text)
    card = card or ModelCard(
        name=name,
        system=system.name,
        family=system.family,
        preset="",
        parameters=sum(p.numel() for p in network.parameters()),
        idea="",
        paper="",
        tasks=system.tasks,
        license="see the directory",
    )
    decoder = folder / MASK_DECODER
    masks = load_npz(decoder).to(device).eval() if "segment" in system.tasks and decoder.is_file() else None
    files = {MASK_DECODER: decoder.read_bytes()} if masks is not None else {}
    return Model(network, processor, config=config, card=card, system=system, mask_decoder=masks, files=files)


def _identify(path: Path) -> tuple[System, Layout, Any, Mapping[str, LazyTensor]]:
    """What a checkpoint is, from its files alone."""
    if path.suffix == ".npz":
        raw = open_npz(path)
        arrays = big_vision(raw)
        system = catalog.system("paligemma" if any(name.startswith("llm/") for name in arrays) else "siglip")
        layout = system.layouts["big_vision"]
        assert layout.infer_config is not None
        return system, layout, layout.infer_config({name: t.shape for name, t in raw.items()}), arrays
    if not path.is_dir():
        raise MissingFile(f"{path} is neither a checkpoint directory nor a .npz file")
    if not (path / "config.json").is_file() and (path / OPEN_CLIP).is_file():
        data = read_config(path, OPEN_CLIP)
        custom = str(((data.get("model_cfg") or {}).get("vision_cfg") or {}).get("timm_model_name", ""))
        system, layout_name, prefer = (
            catalog.system("siglip" if "siglip" in custom else "clip"),
            "open_clip",
            "open_clip",
        )
    else:
        data = read_config(path)
        if "model_type" not in data:
            raise BadConfig(f"{path / 'config.json'}: model_type: missing")
        system, layout_name, prefer = (
            catalog.system(catalog.system_of_type(str(data["model_type"]))),
            "transformers",
            "",
        )
    layout = system.layouts[layout_name]
    assert layout.read_config is not None
    try:
        return system, layout, layout.read_config(data), open_weights(path, prefer=prefer)
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from None


def _kind(tensors: Mapping[str, LazyTensor], device: torch.device, dtype: torch.dtype | None) -> torch.dtype | None:
    """Half precision is slow and coarse on a CPU, so that it becomes float32 there unless asked for."""
    if dtype is None and device.type == "cpu" and any(t.dtype == torch.float16 for t in tensors.values()):
        return torch.float32
    return dtype


def _compile(network: nn.Module) -> None:
    """Compile what tasks call: the towers, and the decoding step over its static cache."""
    for name in ("embed_image", "embed_text", "see", "start", "step"):
        if hasattr(network, name):
            setattr(network, name, torch.compile(getattr(network, name), dynamic=False if name == "step" else None))
