"""rebus: a library of vision-language models.

    model = rebus.load("clip/b32")
    model.classify("cat.jpg", ["a cat", "a dog"])

Importing it is fast: torch is imported when something needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rebus.core.answers import Box, Mask, Ranking, TextLine
from rebus.core.card import ModelCard
from rebus.core.errors import (
    BadCheckpoint,
    BadConfig,
    BadImage,
    BadRegions,
    BadText,
    CannotWrite,
    LimitExceeded,
    MissingExtra,
    MissingFile,
    NetworkError,
    NotFinite,
    RebusError,
    UnknownName,
    UnsupportedTask,
    UsageError,
)

if TYPE_CHECKING:
    from rebus.api import Model as Model
    from rebus.api import create as create
    from rebus.api import join as join
    from rebus.api import load as load
    from rebus.catalog import info as info
    from rebus.catalog import list_models as list_models
    from rebus.codec.clips import Clip as Clip
    from rebus.codec.image_files import images_in as images_in
    from rebus.codec.region_files import RegionFiles as RegionFiles
    from rebus.codec.regions import ImageRegions as ImageRegions

__version__ = "0.1.0"
__all__ = [
    "BadCheckpoint",
    "BadConfig",
    "BadImage",
    "BadRegions",
    "BadText",
    "Box",
    "CannotWrite",
    "Clip",
    "ImageRegions",
    "LimitExceeded",
    "Mask",
    "MissingExtra",
    "MissingFile",
    "Model",
    "ModelCard",
    "NetworkError",
    "NotFinite",
    "Ranking",
    "RebusError",
    "RegionFiles",
    "TextLine",
    "UnknownName",
    "UnsupportedTask",
    "UsageError",
    "create",
    "images_in",
    "info",
    "list_models",
    "join",
    "load",
]
_LATE = {
    "Model": "rebus.api",
    "create": "rebus.api",
    "join": "rebus.api",
    "load": "rebus.api",
    "info": "rebus.catalog",
    "list_models": "rebus.catalog",
    "Clip": "rebus.codec.clips",
    "images_in": "rebus.codec.image_files",
    "ImageRegions": "rebus.codec.regions",
    "RegionFiles": "rebus.codec.region_files",
}
_FAMILIAR = {"from_pretrained": "load", "load_model": "load", "create_model": "create"}  # names from elsewhere


def __getattr__(name: str) -> Any:
    if name in _LATE:
        found = getattr(import_module(_LATE[name]), name)
        globals()[name] = found
        return found
    hint = f"; ours is rebus.{_FAMILIAR[name]}" if name in _FAMILIAR else ""
    raise AttributeError(f"module 'rebus' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
