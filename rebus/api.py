"""`load`, `create` and `join`, and the `Model` that they return: a network, its processor, and its tasks."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rebus import catalog
from rebus.codec.images import ImagePipeline
from rebus.codec.processor import Processor
from rebus.core.card import PHOTOS, SHAPES, ModelCard, domain_files
from rebus.core.config import from_dict, to_dict
from rebus.core.errors import BadCheckpoint, UnsupportedTask, UsageError
from rebus.core.system import System
from rebus.generation import OPTIONS
from rebus.generation import generate as write
from rebus.generation.cuda_graph import GraphedStep
from rebus.generation.familiar import in_our_names
from rebus.nn.linear import join_products
from rebus.nn.packed import pack_linears
from rebus.nn.quantized import KINDS, Kind, is_quantized, quantize_linears
from rebus.open_checkpoint import Opened, config_of, joined_config, open_checkpoint
from rebus.save_checkpoint import save_checkpoint
from rebus.tasks.methods import Tasks
from rebus.weights.companions import companion_files, open_companions
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.load_weights import load_into, on_meta

_FAMILIAR = {  # what people of other libraries try
    "encode_image": "model.embed_images(images), of unit length",
    "encode_text": "model.embed_texts(texts), of unit length",
    "get_image_features": "model.embed_images(images), of unit length",
    "get_text_features": "model.embed_texts(texts), of unit length",
    "forward": "model(**batch), or model.network",
    "train": "model.network.train(), or `rebus train RECIPE`",
    "tokenizer": "model.processor.text.tokenizer",
    "image_processor": "model.processor.image",
    "cuda": 'model.to("cuda")',
    "cpu": 'model.to("cpu")',
    "half": "model.to(torch.float16)",
    "float": "model.to(torch.float32)",
    "bfloat16": "model.to(torch.bfloat16)",
    "named_parameters": "model.network.named_parameters()",
    "load_state_dict": "rebus.load(directory), which checks that every weight fits",
    "predict": "one of model.tasks",
    "chat": "model.ask(images, questions)",
    "vqa": "model.ask(images, questions)",
    "similarity": "model.match(images, texts)",
}


class Model(Tasks):
    """A network with its processor, and the tasks that they support.

    `network` is the `nn.Module`; calling the model calls it. `processor` turns images and text into its batch. Tasks
    take one item or a list, and return one answer or a list. An unsupported task raises `UnsupportedTask`.
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
        inside: Sequence[str] = (),
    ):
        self.network = network.eval()
        self.processor = processor
        self.config = config
        self.card = card
        self.system = system.suited_to(config)
        self.companions: Mapping[str, Any] = dict(companions or {})
        self._files = dict(files or {})
        self._inside = tuple(inside)  # folders of its parts, which are not written again

    def __call__(self, **batch: Any) -> Any:
        return self.network(**batch)

    def __repr__(self) -> str:
        return f"Model({self.card.name}, {self.num_parameters():,} parameters, {self.dtype}, {self.device})"

    @property
    def tasks(self) -> frozenset[str]:
        """The names of the task methods that this model supports."""
        return self.card.tasks

    @property
    def device(self) -> torch.device:
        return self._first().device

    @property
    def dtype(self) -> torch.dtype:
        return next((t.dtype for t in self._tensors() if t.is_floating_point()), torch.float32)

    def num_parameters(self) -> int:
        """The number of parameters of the network, tied weights counted once."""
        return sum(p.numel() for p in self.network.parameters())

    def to(self, *args: Any, **kwargs: Any) -> "Model":
        """Move the network, as `nn.Module.to` does; returns the model."""
        self.network.to(*args, **kwargs)
        for part in self.companions.values():
            if isinstance(part, nn.Module):
                part.to(self.device)
        return self

    def generate(self, *, max_new_tokens: int = 64, **options: Any) -> Tensor:
        """Generate tokens after the prompts: (B, ≤ max_new_tokens) int64, each row padded after its end.

        Takes a batch (`pixels`, `tokens`, `mask`) and decoding options together; see `rebus.generation`.
        """
        if "stream" not in self.tasks:
            raise self._unsupported("generate", "stream")
        options = in_our_names(options)
        batch = {name: options.pop(name) for name in list(options) if name not in OPTIONS}
        return write(
            self.network,  # type: ignore[arg-type]
            batch,
            max_new_tokens=max_new_tokens,
            **{**self.endings(), **options},
        )

    def endings(self) -> dict[str, Any]:
        """The special tokens of this model's texts: `eos_id`, `pad_id`, `first_id` and `last_id` where every answer
        begins with a start token, and `decode` where there is a tokenizer; `read` where another network reads them."""
        text = self.processor.text
        spec = text.spec if text is not None else self.system.text_spec and self.system.text_spec(self.config)
        if spec is None:
            raise UsageError(f"{self.card.name} has no text")
        read = getattr(self.processor, "read", None)
        forced = {"first_id": spec.bos_id, "last_id": spec.eos_id} if spec.bos_before_answer else {}
        decode = text and text.tokenizer.decode
        return {"eos_id": spec.eos_id, "pad_id": spec.pad_id, "decode": decode, "read": read, **forced}

    def save(self, directory: str | os.PathLike[str], layout: str | None = None, *, part: str | None = None) -> Path:
        """Write the model in a released layout, atomically; returns the directory.

        `layout`: "transformers", "open_clip" or another layout of the system; None: the first that can represent the
        model. `part`: "image" or "text", to write only that encoder as a backbone: a ResNet in torchvision's layout, a
        BERT in that of transformers. Raises `UsageError` for a part without a layout of its own.
        """
        if part is not None:
            return self._part(part).save(directory, layout)
        if self._inside:
            raise UsageError(
                f"{self.card.name} has encoders in folders of its own ({', '.join(self._inside)}): copy it"
            )
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
            raise UsageError("a quantised model is not saved: load it without quantize, and save that one")
        weights = self.network.state_dict()
        files = {**self._files, **domain_files(self.card.domain)}
        return save_checkpoint(Path(directory), form, cfg, weights, processor=self.processor, files=files)

    def _part(self, name: str) -> "Model":
        """The backbone under that name in the network, as a model of its own."""
        network: Any = getattr(self.network, name, None)
        system = catalog.backbone_of(network)
        if system is None:
            raise UsageError(
                f'part expects an encoder that is a backbone, "image" or "text"; {self.card.name}.{name} is not'
            )
        image, text = (self.processor.image, None) if name == "image" else (None, self.processor.text)
        card = replace(self.card, system=system.name, tasks=frozenset())
        return Model(network, Processor(image, text), config=network.cfg, card=card, system=system)

    def eval(self) -> "Model":
        """Returns the model, which is always in evaluation mode; `rebus train` trains networks."""
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The weights of the network under our names; `save` writes them under the released ones."""
        return self.network.state_dict()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the network."""
        return self.network.parameters()

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **options: Any) -> "Model":
        """`rebus.load`, under its name in other libraries."""
        return load(source, **options)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> Path:
        """`save`, under its name in other libraries."""
        return self.save(directory)

    def __getattr__(self, name: str) -> Any:
        hint = f"; ours is {_FAMILIAR[name]}" if name in _FAMILIAR else ""
        raise AttributeError(f"a rebus model has no attribute {name!r}{hint}")

    def __getstate__(self) -> dict[str, Any]:
        """For `pickle`, `copy` and `torch.save`: the system, which is code, goes by its name."""
        return {**self.__dict__, "system": self.system.name}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, system=catalog.system(state["system"]).suited_to(state["config"]))

    def _can(self, task: str) -> "Model":
        if task not in self.tasks:
            raise self._unsupported(task, task)
        return self

    def _unsupported(self, name: str, task: str) -> UnsupportedTask:
        able = catalog.models_that_can(task)
        own = f"no model of this version supports it; its own tasks are: {', '.join(sorted(self.tasks))}"
        hint = f"models that can: {', '.join(able)}" if able else own
        return UnsupportedTask(f"{self.card.name} cannot {name}; {hint}")

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.network.parameters()
        yield from self.network.buffers()

    def _first(self) -> Tensor:
        return next(self._tensors(), torch.empty(0))


def create(name: str, **overrides: Any) -> Model:
    """A randomly initialised model of a catalogue name. `overrides` replace fields of its configuration, nested ones as
    dicts.

    Honours `torch.device("meta")` and the default dtype: `with torch.device("meta"): rebus.create("clip/l14")`.
    Raises `UnknownName`, or `BadConfig` listing the fields that do not exist.
    """
    card = catalog.info(name)
    system = catalog.system(card.system)
    if card.preset not in system.presets and not card.bundled:
        raise UsageError(f"{name} is assembled from trained parts; use rebus.load({name!r})")
    config = _overridden(config_of(name)[1], overrides)
    card = replace(card, tasks=catalog.tasks_of(system, config))
    spec = system.image_spec(config) if system.image_spec else None
    blind = system.image_spec is not None and spec is None
    processor = Processor(None if spec is None else ImagePipeline(spec), None, reads_regions=blind)
    return Model(system.build(config), processor, config=config, card=card, system=system)


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
    quantize: Kind | None = None,
    compile: bool = False,
    revision: str | None = None,
    processor: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    pack: bool = False,
) -> Model:
    """Load a pretrained model: a catalogue name, a local directory, a file of weights (with its configuration in the
    same directory, unless the weight names identify it), or a Hub id, looked up in this order.

    `device`: by default the GPU if there is one. `dtype`: by default that of the file, but half precision becomes
    float32 on a CPU. `quantize`: "int8" for 8-bit integer matrix products, "int4" for 4-bit weights in generative
    models. `compile`: use `torch.compile`. `pack`: bfloat16 weights laid out for the CPU, where it has products of
    bfloat16 (`pack_linears`): quicker and equal to the last bit, but not to be trained. `processor`: a source of other
    tokenizer and preprocessor files. `image_size`: side of the images in pixels, to which position embeddings are
    interpolated; None: as trained. Raises `UnknownName`, `MissingFile`, `BadConfig`, `BadCheckpoint` or `NetworkError`.
    """
    target, kind = _device(device), _dtype(dtype)
    if quantize not in (None, *KINDS):
        raise UsageError(f"quantize is None, {' or '.join(map(repr, KINDS))}; got {quantize!r}")
    opened = open_checkpoint(source, revision)
    if not opened.layout.whole:
        known = ", ".join(card.name for card in catalog.cards() if card.system == opened.system.name and card.parts)
        raise BadCheckpoint(
            f"{opened.name} has only the trained weights of {opened.system.name}, without the pretrained networks that "
            f"it uses. Load it by a name that includes these: {known}"
        )
    found = opened.processor(image_size) if processor is None else opened.processor_of(processor, image_size)
    model = _model(opened, target, kind, found)
    if quantize is not None:
        quantize_linears(model.network, quantize)
    if pack and not compile:  # the compiler has its own layout
        pack_linears(model.network)
    if compile:
        _compile(model.network)
    return model


def join(system: str, *, name: str = "", **parts_and_settings: Any) -> Model:
    """Combine loaded models into one of a system that is made of pretrained networks: `rebus.join("magic", text=…,
    guide=…, beta=1.0)`.

    The parts are shared, not copied: they remain usable, and move between devices together. Other arguments are fields
    of the configuration. Raises `UsageError` for a system without parts and for missing parts, `BadConfig` for unknown
    fields and for parts without the required capability.
    """
    kind, row = catalog.system(system), catalog.system_row(system)
    parts = {part: parts_and_settings.pop(part, None) for part in kind.parts}
    if not parts or not all(isinstance(part, Model) for part in parts.values()):
        wanted = ", ".join(f"{part}=MODEL" for part in kind.parts) or "nothing: it has no parts"
        raise UsageError(f"{system} joins {wanted}; a part is what rebus.load gives")
    config = joined_config(kind, parts, "", parts_and_settings)
    assert kind.join is not None
    network = kind.network(config, **{part: model.network for part, model in parts.items()})
    processor = kind.join(config, **{part: model.processor for part, model in parts.items()})
    cards = [model.card for model in parts.values()]
    card = ModelCard(
        name=name or f"{system} of {' and '.join(card.name for card in cards)}",
        system=system,
        family=row.family,
        preset="",
        parameters=sum(p.numel() for p in network.parameters()),
        idea=row.idea,
        paper=row.paper,
        tasks=catalog.tasks_of(kind, config),
        license="; ".join(dict.fromkeys(card.license for card in cards)),
        domain=PHOTOS if all(card.domain == PHOTOS for card in cards) else SHAPES,
    )
    return Model(network, processor, config=config, card=card, system=kind)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UsageError(f'device {device!r} cannot be used here ({reason}). Try device="cpu"') from None
    return found


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is not None or isinstance(dtype, str):
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise UsageError(f"dtype is float32, bfloat16 or float16; got {dtype!r}")
        return found
    return None


def _model(opened: Opened, device: torch.device, dtype: torch.dtype | None, processor: Processor) -> Model:
    system, config = opened.system, opened.config
    with on_meta():
        network = system.build(config)
    for part in network.modules():
        if hasattr(part, "antialias"):
            part.antialias = opened.layout.antialias
    load_into(network, opened.tensors, device=device, dtype=_kind(opened.tensors, device, dtype))
    if opened.handed:
        networks = {name: _model(part, device, dtype, part.processor()).network for name, part in opened.handed.items()}
        network.hand(**networks)
    card = opened.card
    if not card.parameters:
        card = replace(card, parameters=sum(p.numel() for p in network.parameters()))
    parts = open_companions(system.companions, opened.folder, device)
    files = companion_files(system.companions, opened.folder)
    inside = [
        part.folder.name for part in opened.handed.values() if part.folder and part.folder.parent == opened.folder
    ]
    return Model(
        network, processor, config=config, card=card, system=system, companions=parts, files=files, inside=inside
    )


def _kind(tensors: Mapping[str, LazyTensor], device: torch.device, dtype: torch.dtype | None) -> torch.dtype | None:
    """Half precision is slow and coarse on a CPU, so that it becomes float32 there unless asked for."""
    if dtype is None and device.type == "cpu" and any(t.dtype == torch.float16 for t in tensors.values()):
        return torch.float32
    return dtype


def _compile(network: nn.Module) -> None:
    """Compile what tasks call: the encoders, and the decoding step over its static cache, on a GPU as a graph.

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
