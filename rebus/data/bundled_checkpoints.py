"""Where the checkpoints lie that come with the package."""

from importlib.resources import files
from pathlib import Path


def directory_of(name: str) -> Path:
    """The directory of a bundled checkpoint (`siglip/scenes`), or `name` itself where it is a directory."""
    bundled = Path(str(files("rebus"))) / "checkpoints" / name.replace("/", "_")
    return bundled if bundled.is_dir() and not Path(name).is_dir() else Path(name)
