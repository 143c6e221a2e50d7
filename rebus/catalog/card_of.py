"""The card of a checkpoint, filled in with what its system says of all of them."""

from typing import Any

from rebus.catalog.systems import SYSTEMS
from rebus.core.card import ModelCard


def card_of(system: str, variant: str, **fields: Any) -> ModelCard:
    """The card of a variant; what it shares with its system stands there. `name`: where it is not `system/variant`."""
    of = SYSTEMS[system]
    shared = {"family": of.family, "tasks": of.tasks, "idea": of.idea, "paper": of.paper}
    return ModelCard(system=system, **{"name": f"{system}/{variant}", **shared, **fields})
