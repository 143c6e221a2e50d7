"""What a model file tells the rest of the library about itself: one `SYSTEM` at its end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rebus.core.places import LocationNotation
from rebus.core.specs import ImageSpec, ImageTokens, Prompts, TextSpec


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One released file format of a system.

    `keys(config)` is the `rebus.weights.keymap.KeyMap` between the names of the file and ours. `read_config` turns the
    released configuration into ours, `write_config` ours into the released one; both are None for layouts whose
    configuration is inferred from the arrays (`infer_config`).
    """

    name: str  # "transformers", "open_clip" or "big_vision"
    keys: Callable[[Any], Any]
    read_config: Callable[[Mapping[str, Any]], Any] | None = None
    write_config: Callable[[Any], dict[str, Any]] | None = None
    infer_config: Callable[[Mapping[str, tuple[int, ...]]], Any] | None = None  # raw shapes by name → config
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # raw arrays → named tensors, before `keys`


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
    family: str  # "contrastive"
    network: Callable[[Any], Any]  # config → nn.Module
    config: type
    presets: Mapping[str, Any]
    layouts: Mapping[str, Layout]
    tasks: frozenset[str]
    prompts: Prompts = field(default_factory=Prompts)
    objective: str | None = None  # the kind of `rebus.objectives` that its paper trains it by: "softmax", "next token"
    example: Callable[..., dict[str, Any]] | None = None  # (config, rows, *, prompt, answer) → a batch in the shapes
    # of training; `prompt` and `answer` are numbers of tokens, which dual encoders leave out
    image_spec: Callable[[Any], ImageSpec] | None = None  # config → how released models of it see images
    text_spec: Callable[[Any], TextSpec] | None = None  # config → how they read words
    locations: LocationNotation | None = None  # how its text states places
    image_tokens: Callable[[Any], ImageTokens] | None = None  # config → how its text states images
    companions: Mapping[str, Companion] = field(default_factory=dict)
    decoding: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # task → options where the user gives none
