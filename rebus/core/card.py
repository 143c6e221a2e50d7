"""The card of a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rebus.core.html_table import html_table
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json

FILE = "card.json"  # beside the weights
PHOTOS, SHAPES = "photos", "shapes"  # domains


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
    parts: Mapping[str, str] = field(default_factory=dict)  # of a model that joins trained ones: the name of a part → a
    # catalogue name, a Hub id, or "." for the folder of a bundled model itself
    shares: Mapping[str, str] = field(default_factory=dict)  # parts of a bundled network that are stored once: the
    # name of the part → the bundled model in which a part of that name has the same weights
    settings: Mapping[str, Any] = field(default_factory=dict)  # fields of its configuration beside the parts
    extra: str | None = None  # the optional dependency that brings the weights
    domain: str = PHOTOS  # what it was trained on; SHAPES: drawn ones alone, the scenes world
    ready: bool = True  # False: a base for fine-tuning, never chosen by itself
    note: str = ""
    scores: Mapping[str, Any] = field(
        default_factory=dict
    )  # command, seed, hardware and held-out scores of bundled ones

    def _repr_html_(self) -> str:
        """As notebooks show it: what is known, a row each."""
        shown = {
            "name": self.name,
            "idea": self.idea,
            "paper": self.paper,
            "parameters": f"{self.parameters:,}",
            "tasks": ", ".join(sorted(self.tasks)),
            "trained on": self.domain,
            "licence": self.license,
            "weights": self.repo or ("in this package" if self.bundled else ""),
            "instead": self.instead,
            "note": self.note,
        }
        return html_table(("model", self.system), [row for row in shown.items() if row[1]])


def domain_files(domain: str) -> dict[str, bytes]:
    """The file saved with the weights from which `domain_in` reads their training domain; none for photos."""
    return {} if domain == PHOTOS else {FILE: (to_json({"domain": domain}, indent=2) + "\n").encode()}


def domain_in(folder: Path) -> str:
    """The training domain of the weights in a checkpoint directory; photos if it does not say."""
    try:
        found = json.loads(read_small(folder / FILE))
    except (OSError, ValueError, RecursionError):  # a file of that name may be anybody's
        return PHOTOS
    return SHAPES if isinstance(found, dict) and found.get("domain") == SHAPES else PHOTOS
