"""The description of a system for the rest of the library: one `SYSTEM` at the end of its file."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rebus.core.config import from_dict
from rebus.core.errors import BadConfig, UsageError
from rebus.core.places import LocationNotation, OutlineNotation
from rebus.core.specs import ImageSpec, ImageTokens, NamedTask, Prompts, TextSpec


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One released file format of a system.

    `keys(config)` is the `rebus.weights.keymap.KeyMap` between the names of the file and ours. A layout with a
    configuration file reads and writes it; one without (`config_file` None) infers the configuration from the shapes
    of the arrays by their names in the file.

    Checkpoints are recognised by the `model_type` of their `config.json`, which the catalogue lists; `recognises` tells
    for all others, from what the configuration file holds or, without one, from the names of the arrays.
    """

    name: str  # "transformers", "open_clip" or "big_vision"
    keys: Callable[[Any], Any]
    config_file: str | None = "config.json"
    recognises: Callable[[Any], bool] | None = None
    read_config: Callable[[Mapping[str, Any]], Any] | None = None
    write_config: Callable[[Any], dict[str, Any]] | None = None
    infer_config: Callable[[Mapping[str, tuple[int, ...]]], Any] | None = None  # shapes by name → config
    read_metadata: Callable[[Mapping[str, Any], Collection[str]], Any] | None = None  # metadata and names of the
    # tensors of a GGUF file → config, for the layout of such files, which `recognises` their metadata
    complete: Callable[[Any, Collection[str]], Any] | None = None  # config and names in the file → config, where these
    # say what the configuration file does not
    prepare: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None  # arrays of the file → one for each name
    # that `keys` knows
    read_files: Callable[[Path, Any], tuple[Any, Mapping[str, Any]]] | None = None  # (directory, what
    # `read_config` made of its file) → config, and tensors for the names that `keys` knows: of a release in several
    # files, each by a name of its own
    weights_name: str = "model"  # stem of the file of weights
    antialias: bool = False  # positions that are resized, as the reference resizes those of this layout
    wrappers: Collection[str] = ("state_dict", "model")  # where in a pickle the weights lie
    whole: bool = True  # False: its files hold trained parts alone, which are laid over other checkpoints
    save: Callable[[Path, Any, Mapping[str, Any]], None] | None = None  # (directory, config, tensors by their names):
    # for layouts that are not a configuration beside safetensors

    def config_data(self, config: Any) -> dict[str, Any]:
        """What the configuration file holds for `config`.

        It is read back first: raises `BadConfig` naming every field that this layout would lose, and `UsageError`
        where the layout writes no configuration.
        """
        if self.write_config is None or self.read_config is None:
            raise UsageError(f"the {self.name} layout is read and not written")
        data = self.write_config(config)
        try:
            again = self.read_config(data)
        except BadConfig as error:
            raise BadConfig(f"the {self.name} layout cannot hold this configuration: {error}") from None
        lost = _differences(config, again, "")
        if lost:
            raise BadConfig(f"the {self.name} layout cannot hold this configuration: {'; '.join(lost)}")
        return data


class Assembled(NamedTuple):
    """A model put together from parts that are installed: `tensors` go by our names."""

    config: Any
    tensors: Mapping[str, Any]
    processor: Any


@dataclass(frozen=True, kw_only=True)
class Part:
    """A network inside another one: the system that it is of, and its configuration as plain data."""

    system: str
    config: Any


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Something in a file of its own beside the network that some tasks need: a mask decoder, an answer list.

    A checkpoint without it still opens; the tasks that need it then raise `MissingFile`. It is saved again as it was.
    """

    file: str  # its released name in the checkpoint directory
    load: Callable[[Path], Any]  # what a task is given; a module is moved with the network
    tasks: frozenset[str]
    purpose: str  # for messages: "without which …"


@dataclass(frozen=True, kw_only=True)
class System:
    """A system: its network, its configurations and its released formats."""

    name: str  # "clip"
    network: Callable[..., Any]  # config → nn.Module; see `build`
    config: type
    presets: Mapping[str, Any]
    layouts: Mapping[str, Layout]  # models are saved in the first that can write them
    prompts: Prompts = field(default_factory=Prompts)
    tasks: Callable[[Any], frozenset[str]] | None = None  # config → what a network of it can do, where they differ
    objective: str | Callable[[Any], str] | None = None  # the kind of `rebus.objectives` that its paper trains it by,
    # "softmax", "next token", or config → kind where networks of the system differ
    objective_options: Mapping[str, Any] = field(default_factory=dict)  # its settings where they depart from the kind's
    example: Callable[..., dict[str, Any]] | None = None  # (config, rows, *, prompt, answer) → a batch in the shapes
    # of training; `prompt` and `answer` are numbers of tokens, which dual encoders leave out
    image_spec: Callable[[Any], ImageSpec | None] | None = None  # config → how released models of it see images; None
    # for one that reads features of regions and sees no image itself
    any_image_size: bool = False  # its images may have another size than `image_spec` says; else the network was
    # trained with positions of that size, and a preprocessor of another is refused
    text_spec: Callable[[Any], TextSpec] | None = None  # config → how they read text
    locations: LocationNotation | None = None  # how its text states places
    lines: LocationNotation | None = None  # how it states lines of writing, by their corners
    outlines: OutlineNotation | None = None  # how it states masks, by polygons
    named_tasks: Mapping[str, NamedTask] = field(default_factory=dict)  # the release's own names of tasks
    image_tokens: Callable[[Any], ImageTokens] | None = None  # config → how its text states images
    companions: Mapping[str, Companion] = field(default_factory=dict)
    decoding: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # task → options where the user gives none
    assemble: Mapping[str, Callable[..., Assembled]] = field(default_factory=dict)  # preset of a card → made of what is
    # installed, and of the open checkpoints of the card's parts, which come as keywords
    parts: tuple[str, ...] = ()  # fields of the configuration that are a `Part`: trained networks of other systems,
    # which are handed to this one's network as keywords of these names
    find: "Find | None" = None  # of a system with parts: the look-up by which it builds them
    join: Callable[..., Any] | None = None  # (config, the processor of each part by its name) → their processor
    read_processor: Callable[[Path, Any], Any] | None = None  # (directory, config) → the processor of a system whose
    # files are more than a tokenizer and a preprocessor
    suited: Callable[[Any], Mapping[str, Any]] | None = None  # config → fields of this `System` that depend on it
    borrow: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] | None = None  # tensors of a file of another
    # network, by its names → those that a network of this system can begin with, by ours; None for an unknown file
    # config → the checkpoints that stay whole beside it, each a catalogue name or a folder inside its own: the network
    # is given theirs by `hand(image=…, text=…)`, images are seen as by "image" and text is read as by "text"
    handed: Callable[[Any], Mapping[str, str]] | None = None
    # config → the network of a dual encoder without what sees images, which `embed_text` does without; quick to build
    text_side: Callable[[Any], Any] | None = None

    def build(self, config: Any) -> Any:
        """The network of a configuration; its parts are built by their own systems."""
        found = {name: self.part(config, name) for name in self.parts}
        return self.network(config, **{name: system.build(own) for name, (system, own) in found.items()})

    def part(self, config: Any, name: str) -> tuple["System", Any]:
        """The system and the configuration of a part. Raises `UnknownName`, or `BadConfig` naming unknown fields."""
        assert self.find is not None
        part = getattr(config, name)
        system = self.find(part.system)
        return system, from_dict(system.config, part.config, name)

    def suited_to(self, config: Any) -> "System":
        """The same with the prompts and decoding options of a configuration."""
        return self if self.suited is None else replace(self, **self.suited(config))

    def layout_for(self, config: Any, first: Layout | None = None) -> Layout:
        """The layout in which a model of this configuration is saved: `first` where it can be, else the first that can.

        Raises `UsageError` where none can.
        """
        reasons = []
        for layout in (*([first] if first is not None else []), *self.layouts.values()):
            if layout.save is not None:
                return layout
            if layout.write_config is not None:
                try:
                    layout.config_data(config)
                    return layout
                except (BadConfig, UsageError) as error:
                    reasons.append(str(error))
        raise UsageError(f"a model of {self.name} with this configuration cannot be saved: {'; '.join(reasons)}")


Find = Callable[[str], System]  # by name


def _differences(config: Any, again: Any, where: str) -> list[str]:
    """ "text.eps: 0.001 would be read as 1e-05", for each field in which two configurations differ."""
    if not is_dataclass(config) or type(config) is not type(again):
        return [] if config == again else [f"{where[1:]}: {config!r} would be read as {again!r}"]
    parts = ((f"{where}.{f.name}", getattr(config, f.name), getattr(again, f.name)) for f in fields(config))
    return [line for name, one, other in parts for line in _differences(one, other, name)]
