"""From a name or a path to an open checkpoint: its system, layout, configuration and tensors, none of them read yet.

`load`, training, evaluation and planning open checkpoints here, so that whatever one of them reads all of them read.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rebus import catalog
from rebus.codec.gguf_tokenizer import tokenizer_files
from rebus.codec.processor import Processor, load_processor, text_pipeline
from rebus.codec.tokenizer_files import read_definition
from rebus.codec.tokenizers import Tokenizer
from rebus.core import extras
from rebus.core.card import ModelCard, domain_in
from rebus.core.config import to_dict
from rebus.core.errors import BadCheckpoint, BadConfig, MissingFile, UsageError
from rebus.core.specs import ImageSpec
from rebus.core.system import Layout, System
from rebus.weights.checkpoint_files import open_weights, read_config
from rebus.weights.gguf import gguf_file, open_gguf
from rebus.weights.hub import find
from rebus.weights.lazy_tensor import LazyTensor
from rebus.weights.load_weights import misfits, on_meta

_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open checkpoint. `path`: its directory or file, None where it is assembled from installed parts; `tensors` go
    by our names and are read when asked for."""

    name: str  # as it was asked for
    path: Path | None
    system: System
    layout: Layout
    config: Any
    tensors: Mapping[str, LazyTensor]
    card: ModelCard
    assembled: Processor | None = None

    @property
    def folder(self) -> Path | None:
        """Where the files beside the weights lie."""
        return self.path if self.path is None or self.path.is_dir() else self.path.parent

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights in the file."""
        kinds = (tensor.dtype for tensor in self.tensors.values())
        return next((kind for kind in kinds if kind.is_floating_point), torch.float32)

    @cached_property
    def handed(self) -> dict[str, "Opened"]:
        """The checkpoints that are parts of this one. Raises `BadConfig` for one that lies elsewhere."""
        found = {}
        for name, source in (self.system.handed(self.config) if self.system.handed else {}).items():
            inside = Path(source).name == source and self.folder is not None and (self.folder / source).is_dir()
            if not inside and source not in {card.name for card in catalog.cards()}:
                raise BadConfig(f"{self.path}: its {name} part is neither a folder in it nor a known model: {source!r}")
            assert self.folder is not None
            found[name] = open_checkpoint(self.folder / source if inside else source)
        return found

    def processor(self, image_size: int | None = None) -> Processor:
        """Its tokenizer and preprocessor, for the images that the network was made for, or of `image_size` pixels.

        Raises `BadConfig` for files that do not fit the weights, `UsageError` for a size that the network cannot take.
        """
        if self.assembled is not None:
            return (
                self.assembled if image_size is None else _resized(self.assembled, self.system, self.config, image_size)
            )
        assert self.folder is not None
        own = processor_in(self.folder, self.system, self.config, image_size)
        if not self.handed:
            return own
        of = {name: part.processor(image_size if name == "image" else None) for name, part in self.handed.items()}
        image, text = (of.get(name, own) for name in ("image", "text"))
        return Processor(image.image, text.text, image_missing=image.image_missing, text_missing=text.text_missing)

    def processor_of(self, source: str | os.PathLike[str], image_size: int | None = None) -> Processor:
        """The tokenizer and preprocessor of another checkpoint, or of a directory that has nothing else, read as this
        system reads them. Raises `BadConfig` for files that do not fit the weights, `MissingFile` where there are none.
        """
        folder = Path(source).expanduser()
        if not folder.is_dir():
            other = open_checkpoint(source)
            if other.folder is None:
                raise UsageError(f"processor: {other.name} is assembled from parts; name a checkpoint with files")
            folder = other.folder
        found = processor_in(folder, self.system, self.config, image_size)
        if found.image is None and found.text is None:
            raise MissingFile(f"processor: {folder} has neither {found.image_missing} nor {found.text_missing}")
        return found


def open_checkpoint(source: str | os.PathLike[str], revision: str | None = None) -> Opened:
    """A catalogue name, a local directory or file of weights, or a Hub id, looked up in this order.

    Raises `UnknownName`, `MissingFile`, `MissingExtra`, `BadConfig`, `BadCheckpoint` or `NetworkError`, each in one
    line.
    """
    if not isinstance(source, str | os.PathLike) or isinstance(os.fspath(source), bytes):
        raise UsageError(f"a model is a name, a directory or a Hub id; got {source!r}")
    name = os.fspath(source)
    card = catalog.find(name)
    if card is not None:
        system = catalog.system(card.system)
        if card.preset in system.assemble:
            if card.extra is not None:
                extras.demand(card.extra, card.name)
            parts = {part: open_checkpoint(source) for part, source in card.parts.items()}
            config, tensors, processor = system.assemble[card.preset](**parts)
            lazy = {key: LazyTensor.of(tensor) for key, tensor in tensors.items()}
            return Opened(
                name=name,
                path=None,
                system=system,
                layout=system.layout_for(config),
                config=config,
                tensors=lazy,
                card=card,
                assembled=processor,
            )
        if card.parts:
            return _join(card)
    return _open(name, _locate(source, card, revision), card)


def _open(name: str, path: Path, card: ModelCard | None) -> Opened:
    file = gguf_file(path)
    processor = None
    if file is None:
        system, layout, config, tensors = _identify(path)
    else:
        system, layout, config, tensors, processor = _identify_gguf(file)
    faults: list[str] = []
    ours = {**layout.keys(config).to_ours(tensors, faults), **_shared(card)}
    if faults:  # then all of them at once, those included that would be found when the network is filled
        with on_meta():
            network = system.build(config)
        raise BadCheckpoint(f"{path}: " + ". ".join([*faults, *misfits(network, ours)]))
    if card is None:
        row = catalog.system_row(system.name)
        card = ModelCard(
            name=name,
            system=system.name,
            family=row.family,
            preset="",
            parameters=0,
            idea=row.idea,
            paper=row.paper,
            tasks=catalog.tasks_of(system, config),
            license="see the directory",
            domain=domain_in(path if path.is_dir() else path.parent),
        )
    else:
        card = replace(card, tasks=card.tasks & catalog.tasks_of(system, config))
    return Opened(
        name=name,
        path=path,
        system=system,
        layout=layout,
        config=config,
        tensors=ours,
        card=card,
        assembled=processor,
    )


def _shared(card: ModelCard | None) -> dict[str, LazyTensor]:
    """The weights that a bundled checkpoint has in common with another one, which keeps them, by our names."""
    found: dict[str, LazyTensor] = {}
    for part, source in (card.shares if card is not None else {}).items():
        whole = open_checkpoint(source).tensors
        found |= {name: tensor for name, tensor in whole.items() if name.startswith(f"{part}.")}
    return found


def _join(card: ModelCard) -> Opened:
    """A model of the catalogue that joins others, opened part by part."""
    system, parts = catalog.system(card.system), dict[str, Opened]()
    for name, source in card.parts.items():
        own = source == "."
        parts[name] = _open(card.name, catalog.bundled_folder(card.name), None) if own else open_checkpoint(source)
    config = joined_config(system, parts, card.preset, card.settings)
    tensors = {f"{name}.{key}": tensor for name, one in parts.items() for key, tensor in one.tensors.items()}
    assert system.join is not None
    processor = system.join(config, **{name: one.processor() for name, one in parts.items()})
    return Opened(
        name=card.name,
        path=None,
        system=system,
        layout=system.layout_for(config),
        config=config,
        tensors=tensors,
        card=card,
        assembled=processor,
    )


def joined_config(system: System, parts: Mapping[str, Any], preset: str, settings: Mapping[str, Any]) -> Any:
    """The configuration of a system over parts that are open (`.system`, `.config`): the settings given, over those of
    a preset. Raises `BadConfig` naming unknown fields, and parts that cannot do what is asked of them."""
    start = to_dict(system.presets[preset]) if preset in system.presets else {}
    given = {name: {"system": one.system.name, "config": to_dict(one.config)} for name, one in parts.items()}
    read = next(iter(system.layouts.values())).read_config
    assert read is not None
    return read({**start, **settings, **given})


def config_of(name: str) -> tuple[System, Any]:
    """The system and configuration of a catalogue name without any weights, of anything else from its files."""
    card = catalog.find(name)
    if card is not None:
        system = catalog.system(card.system)
        if card.preset in system.presets and not card.bundled:
            return system, system.presets[card.preset]
    opened = open_checkpoint(name)
    return opened.system, opened.config


def processor_in(folder: Path, system: System, config: Any, image_size: int | None = None) -> Processor:
    """The tokenizer and preprocessor in a folder, as a system reads them; for images of `image_size` pixels if given.

    Raises `BadConfig` where the preprocessor makes images of another size than the network was made for, which its
    positions would have to be stretched for, and nobody asked for that.
    """
    system = system.suited_to(config)
    image = system.image_spec(config) if system.image_spec else None
    text = system.text_spec(config) if system.text_spec else None
    read = system.read_processor
    processor: Processor = load_processor(folder, image, text) if read is None else read(folder, config)
    processor.reads_regions = system.image_spec is not None and image is None
    if image_size is not None:
        return _resized(processor, system, config, image_size)
    if image is not None and processor.image is not None and not system.any_image_size:
        found = processor.image.spec
        if found.size != image.size or found.patch_size != image.patch_size:
            raise BadConfig(
                f"{folder}: the preprocessor makes images of {_said(found)}, and the network was made for "
                f"{_said(image)}. Take the preprocessor of the same model, or set image_size"
            )
    return processor


def _said(spec: ImageSpec) -> str:
    height, width = spec.size
    patches = "" if spec.patch_size is None else f" in patches of {spec.patch_size}"
    return f"{height} × {width} pixels{patches}"


def _resized(processor: Processor, system: System, config: Any, side: int) -> Processor:
    own = system.image_spec(config) if system.image_spec is not None else None
    if own is None or processor.image is None or processor.image.spec.resize == "patches":
        raise UsageError(f"image_size: this {system.name} has no images of a fixed size")
    if processor.image.spec.size == (side, side):
        return processor
    patch = getattr(getattr(config, "image", config), "patch_size", 1)
    if own.size != (side, side) and (side < patch or side % patch):
        raise UsageError(f"image_size {side}: expected a multiple of the patch, {patch} pixels")
    return processor.resized(side)


def _locate(source: str | os.PathLike[str], card: ModelCard | None, revision: str | None) -> Path:
    if card is None:
        return find(source, revision)
    if card.bundled:
        return catalog.bundled_folder(card.name)
    if card.repo is None and card.released:
        raise MissingFile(f"the weights of {card.name} cannot be downloaded; use {card.instead}")
    if card.repo is None:
        raise MissingFile(f"no weights of {card.name} were released; use {card.instead}")
    return find(card.repo, revision)


def _identify(path: Path) -> tuple[System, Layout, Any, Mapping[str, LazyTensor]]:
    """What a checkpoint is, from its files alone; tensors under the names that the layout's `keys` knows."""
    if path.is_dir():
        found = _by_config(path)
        if found is not None:
            system, layout, config = found
            if layout.read_files is not None:
                return system, layout, *layout.read_files(path, config)
            tensors = open_weights(path, prefer=layout.weights_name.removesuffix("model"), wrappers=layout.wrappers)
            config = config if layout.complete is None else layout.complete(config, tensors.keys())
            return system, layout, config, tensors if layout.prepare is None else layout.prepare(tensors)
    elif not path.is_file():
        raise MissingFile(f"{path} is neither a checkpoint directory nor a file of weights")
    raw = open_weights(path)
    for system, layout in _layouts():
        if layout.infer_config is not None and layout.recognises is not None and layout.recognises(raw.keys()):
            config = layout.infer_config({name: tensor.shape for name, tensor in raw.items()})
            return system, layout, config, raw if layout.prepare is None else layout.prepare(raw)
    beside = None if path.is_dir() else _by_config(path.parent)
    if beside is not None:
        return _beside_config(path, *beside)
    names = ", ".join(list(raw)[:_NAMES_SHOWN])
    raise BadCheckpoint(
        f"{path}: weights named {names} … do not identify their network, and neither config.json nor "
        "open_clip_config.json lies beside them. Put the one of their model there"
    )


def _beside_config(
    file: Path, system: System, layout: Layout, config: Any
) -> tuple[System, Layout, Any, Mapping[str, LazyTensor]]:
    """A file of weights with a configuration beside it: in the layout of that, or where their names are those of
    another one, as open_clip's trainer writes them, in that."""
    with on_meta():
        network = system.network(config)

    def opened(one: Layout) -> tuple[System, Layout, Any, Mapping[str, LazyTensor]]:
        tensors = open_weights(file, wrappers=one.wrappers)
        return system, one, config, tensors if one.prepare is None else one.prepare(tensors)

    for one in (layout, *(other for other in system.layouts.values() if other is not layout)):
        faults: list[str] = []
        with suppress(BadCheckpoint, BadConfig):
            found = opened(one)
            ours = one.keys(config).to_ours(found[-1], faults)
            if not faults and not misfits(network, ours):
                return found
    return opened(layout)


def _identify_gguf(file: Path) -> tuple[System, Layout, Any, Mapping[str, LazyTensor], Processor]:
    """The same of a GGUF file, whose metadata holds configuration and tokenizer."""
    metadata, tensors = open_gguf(file)
    for system, layout in _layouts():
        if layout.read_metadata is None or layout.recognises is None or not layout.recognises(metadata):
            continue
        try:
            config = layout.read_metadata(metadata, tensors.keys())
            files = tokenizer_files(metadata)
            definition = read_definition(files)
            text = system.text_spec(config) if system.text_spec else None
            if definition is None or text is None:
                return system, layout, config, tensors, Processor(None, None, text_missing="tokenizer in its metadata")
            pipeline = text_pipeline(Tokenizer(definition, files), text)
        except (BadConfig, BadCheckpoint) as error:
            raise type(error)(f"{file}: {error}") from None
        return system, layout, config, tensors, Processor(None, pipeline)
    architecture = str(metadata.get("general.architecture"))[:200]
    raise BadCheckpoint(f"{file}: a GGUF file of the architecture {architecture!r}, which is not supported")


def _by_config(path: Path) -> tuple[System, Layout, Any] | None:
    """The layout whose configuration file lies in a directory, and what it says; None where there is no such file.

    A `config.json` is told by its `model_type`, every other file, and which of a system's layouts it is, by the
    layouts themselves.
    """
    data = read_config(path) if (path / "config.json").is_file() else {}
    if "model_type" in data:
        system = catalog.system(catalog.system_of_type(str(data["model_type"])))
        forms = [one for one in system.layouts.values() if one.config_file == "config.json"]
        layout = next((one for one in forms if one.recognises is not None and one.recognises(data)), forms[0])
        return system, layout, _read(layout, data, path)
    there = {file.name for file in path.iterdir()}
    for system, layout in _layouts():
        if layout.config_file in there and layout.recognises is not None:
            assert layout.config_file is not None
            found = data if layout.config_file == "config.json" else read_config(path, layout.config_file)
            if layout.recognises(found):
                return system, layout, _read(layout, found, path)
    if data or "config.json" in there:
        raise BadConfig(f"{path / 'config.json'}: model_type: missing")
    return None


def _read(layout: Layout, data: dict[str, Any], path: Path) -> Any:
    assert layout.read_config is not None
    try:
        return layout.read_config(data)
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from None


def _layouts() -> Iterator[tuple[System, Layout]]:
    for system in catalog.systems():
        for layout in system.layouts.values():
            yield system, layout
