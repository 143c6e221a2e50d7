"""All names that `rebus.load` knows: tables of systems and checkpoints, imported on first use, without torch."""

import difflib
import json
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from rebus.catalog.card_of import card_of
from rebus.catalog.checkpoints import ROWS, SMALL
from rebus.catalog.systems import BACKBONES, SYSTEMS, SystemRow
from rebus.core.card import SHAPES, ModelCard
from rebus.core.errors import MissingFile, UnknownName, unknown
from rebus.core.system import Find, System

__all__ = ["BACKBONES", "ROWS", "SMALL", "SYSTEMS", "SystemRow"]


def checkpoint_folder() -> Path:
    """The folder of the bundled checkpoints in this package."""
    return Path(__file__).parents[1] / "checkpoints"


@cache
def bundled() -> dict[str, ModelCard]:
    """The checkpoints in the package, `<system>/scenes`, with the scores on their cards."""
    found = {}
    for path in sorted(checkpoint_folder().glob("*/card.json")):
        data = json.loads(path.read_text())
        found[data["name"]] = card_of(
            data["system"],
            data["name"].removeprefix(f"{data['system']}/"),
            preset="",
            parts=data.get("parts", {}),
            settings=data.get("settings", {}),
            shares=data.get("shares", {}),
            parameters=data["parameters"],
            license="Apache-2.0",
            bundled=True,
            domain=SHAPES,
            note=data.get("note", ""),
            scores={key: data[key] for key in ("command", "seed", "hardware", "scores") if key in data},
            **({"tasks": frozenset(data["tasks"])} if "tasks" in data else {}),
        )
    return found


def scene_judge() -> str:
    """The bundled detector that finds the shapes of scenes best, to evaluate generated images. Raises
    `MissingFile` where there is none."""
    able = [card for card in bundled().values() if "detect" in card.tasks]
    if not able:
        raise MissingFile("this copy of the package holds no detector of scenes, which says what is in a drawing")

    def ap50(card: ModelCard) -> float:
        return float(card.scores.get("scores", {}).get("test", {}).get("detection_ap50", 0.0))

    return max(able, key=ap50).name


def bundled_folder(name: str) -> Path:
    """The folder of the bundled checkpoint of that name."""
    return checkpoint_folder() / name.replace("/", "_")


def cards() -> Iterator[ModelCard]:
    """All rows: bundled ones first, then the published ones."""
    yield from bundled().values()
    yield from ROWS.values()


def list_models(family: str | None = None, task: str | None = None, released: bool | None = None) -> list[ModelCard]:
    """The cards of all models, optionally only those of a family, with a task, or with (un)released weights."""
    return [
        row
        for row in cards()
        if (family is None or row.family == family)
        and (task is None or task in row.tasks)
        and (released is None or row.released == released)
    ]


def info(name: str) -> ModelCard:
    """The card of a catalogue name. Raises `UnknownName` with the nearest names."""
    rows = {row.name: row for row in cards()}
    if name not in rows:
        raise unknown("model", name, rows, see="`rebus models` lists them all.")
    return rows[name]


def find(name: str) -> ModelCard | None:
    """The card of a name; None if it is not of the form of a catalogue name. Raises `UnknownName` for a misspelt
    one.
    """
    rows = {row.name: row for row in cards()}
    if name in rows or name.split("/")[0] not in SYSTEMS or Path(name).exists():
        return rows.get(name)
    return info(name)


def system_row(name: str) -> SystemRow:
    """A system or backbone by its name."""
    rows = SYSTEMS | BACKBONES
    if name not in rows:
        raise unknown("system", name, rows)
    return rows[name]


def system(name: str) -> System:
    """The `SYSTEM` at the end of a system's file; imports torch. A system with parts of other systems receives the
    look-up function."""
    found: System | Callable[[Find], System] = import_module(system_row(name).module).SYSTEM
    return found if isinstance(found, System) else found(system)


def tasks_of(system: System, config: Any) -> frozenset[str]:
    """The tasks of a network with this configuration: all of its system, or those of its head."""
    return system_row(system.name).tasks if system.tasks is None else system.tasks(config)


def systems() -> Iterator[System]:
    """All systems, backbones last."""
    yield from map(system, (*SYSTEMS, *BACKBONES))


def backbone_of(network: Any) -> System | None:
    """The backbone that a network is an instance of, or None."""
    return next((found for found in map(system, BACKBONES) if type(network) is found.network), None)


def models_that_can(task: str) -> list[str]:
    """Some model names for a task: the smallest published models that are ready to use, then bundled ones."""
    there = (row for row in cards() if row.released or row.bundled or row.extra is not None)
    able = sorted((row for row in there if task in row.tasks and row.ready), key=lambda row: row.parameters)
    return [row.name for row in able if not row.bundled][:3] + [row.name for row in able if row.bundled]


def system_of_type(model_type: str) -> str:
    """The system of a released `model_type`. Raises `UnknownName` listing the supported ones."""
    types = {kind: name for name, row in (SYSTEMS | BACKBONES).items() for kind in row.model_types}
    if model_type in types:
        return types[model_type]
    near = difflib.get_close_matches(model_type, types, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UnknownName(f"config.json: model_type {model_type!r} is not one of {', '.join(types)}{hint}")
