"""What a part is told, and where it writes what it found."""

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """`tiny`: every line of code on shapes of no interest, for a rehearsal. `ends`: when the part will be stopped."""

    device: torch.device
    tiny: bool
    out: Path
    ends: float  # of `time.monotonic`

    @property
    def rounds(self) -> int:
        return 1 if self.tiny else 3

    @property
    def left(self) -> float:
        """Seconds until the part is stopped."""
        return self.ends - time.monotonic()


@dataclass
class Figures:
    """What a part found, by name; on disk after each figure."""

    path: Path
    found: dict[str, Any] = field(default_factory=dict)

    def __setitem__(self, name: str, value: Any) -> None:
        self.found[name] = value
        write_json(self.path, self.found)
        print(f"    {name}: {_short(value)}", flush=True)

    def attempt_within(self, seconds: float, setting: Setting, name: str, work: Any) -> bool:
        """`attempt`, unless less than `seconds` are left to the part."""
        if setting.left < seconds:
            self[name] = f"left out: {setting.left:.0f} s were left, and it takes up to {seconds:.0f}"
            return False
        return self.attempt(name, work)

    def attempt(self, name: str, work: Any) -> bool:
        """The figure that `work` gives, or in its place why there is none; whether there is."""
        try:
            self[name] = work()
        except Exception as error:  # a figure that cannot be taken must not cost those after it
            self[name] = {"error": reason(error)}
            free()
            return False
        return True


def reason(error: BaseException) -> str:
    """An error in a line or two."""
    return f"{type(error).__name__}: {str(error).strip()[:600]}"


def free() -> None:
    """Give back what nobody holds, on the GPU too."""
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def write_json(path: Path, value: Any) -> None:
    """Atomically; strict JSON, without NaN."""
    write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Atomically: another name first."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(name, path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else json.dumps(_finite(value))
    return text if len(text) <= 300 else text[:297] + "..."
