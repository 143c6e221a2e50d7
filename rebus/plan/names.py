"""From a catalogue name to the configuration that a plan needs, without any weights."""

from typing import Any

from rebus import catalog
from rebus.core.errors import UsageError
from rebus.weights.checkpoint_files import read_config


def config_of(name: str) -> Any:
    """Raises `UnknownName`, with the nearest names; `UsageError` for what is put together without training."""
    card = catalog.info(name)
    system = catalog.system(card.system)
    if card.preset in system.presets:
        return system.presets[card.preset]
    layout = system.layouts["transformers"]
    if not card.bundled or layout.read_config is None:
        raise UsageError(f"{name} is put together from trained parts: there is nothing to train")
    return layout.read_config(read_config(catalog.checkpoint_folder() / name.replace("/", "_")))
