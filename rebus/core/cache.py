"""Where things are kept that can be made again."""

import os
import sys
from pathlib import Path


def cache_home() -> Path:
    """Where rebus keeps what it can make again: `REBUS_HOME`, or `rebus` in the platform's cache directory."""
    if home := os.environ.get("REBUS_HOME"):
        return Path(home).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rebus"
