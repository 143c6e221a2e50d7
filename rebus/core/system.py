"""What a model file tells the rest of the library about itself: one `SYSTEM` at its end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rebus.core.specs import ImageSpec, Prompts, TextSpec


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
