"""The card of a model: what a person should know before using it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One row of the catalogue. `name` is what `rebus.load` takes: `<system>/<variant>`."""

    name: str
    system: str
    family: str
    preset: str  # key of the system's PRESETS
    parameters: int  # true count of the architecture, tied weights once
    idea: str
    paper: str
    tasks: frozenset[str]
    license: str
    released: bool = False  # published weights exist
    bundled: bool = False  # the weights are in this package
    repo: str | None = None  # Hub id of the released weights
    instead: str | None = None  # what to use when nothing was released
    extra: str | None = None  # the optional dependency that brings the weights
    domain: str = "photos"  # what it was trained on: "photos", or "shapes" (drawn ones alone: the scenes world)
    ready: bool = True  # False: a base for fine-tuning, never chosen by itself
    note: str = ""
    scores: Mapping[str, Any] = field(
        default_factory=dict
    )  # command, seed, hardware and held-out scores of bundled ones
