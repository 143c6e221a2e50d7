"""rebus: one library for every kind of vision-language model.

    model = rebus.load("clip/b32")
    model.classify("cat.jpg", ["a cat", "a dog"])

Importing it is cheap: torch comes in when something needs it.
"""

from typing import TYPE_CHECKING, Any

from rebus.core.answers import Box, Mask, Ranking
from rebus.core.card import ModelCard
from rebus.core.errors import RebusError, UnsupportedTask

if TYPE_CHECKING:
    from rebus.api import Model as Model
    from rebus.api import create as create
    from rebus.api import load as load
    from rebus.catalog import info as info
    from rebus.catalog import list_models as list_models

__version__ = "0.1.0"
__all__ = [
    "Box",
    "Mask",
    "Model",
    "ModelCard",
    "Ranking",
    "RebusError",
    "UnsupportedTask",
    "create",
    "info",
    "list_models",
    "load",
]
_API = ("Model", "create", "load")
_CATALOG = ("info", "list_models")


def __getattr__(name: str) -> Any:
    if name in _API or name in _CATALOG:
        from importlib import import_module

        found = getattr(import_module("rebus.catalog" if name in _CATALOG else "rebus.api"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'rebus' has no attribute {name!r}")
