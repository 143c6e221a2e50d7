"""The errors of the library. Each says what was wrong, where, and what to do; all derive from `RebusError`."""

import difflib
from collections.abc import Iterable


class RebusError(ValueError):
    """An error that the caller can fix. The command line prints it as one line and exits with 1."""


class UsageError(RebusError):
    """A call with invalid arguments: a wrong option, an unknown field. The command line exits with 2."""


class UnknownName(UsageError):
    """There is no model, recipe, benchmark or field of that name."""


class UnsupportedTask(UsageError):
    """The model does not support this task; the message names models that do."""


class BadImage(RebusError):
    """An image that is empty, truncated, too large, or not an image."""


class BadRegions(BadImage):
    """Region features that are missing, of a wrong width, not finite, or of another image."""


class BadText(RebusError):
    """A text that cannot be encoded, or does not fit the context."""


class BadConfig(RebusError):
    """A configuration with unknown, missing or impossible fields."""


class BadCheckpoint(RebusError):
    """Weights that are missing, unexpected, of the wrong shape, damaged or not finite."""


class MissingFile(RebusError, FileNotFoundError):
    """A required file does not exist."""


class CannotWrite(RebusError):
    """A result could not be written: no space, no permission, or the path is taken."""


class MissingExtra(RebusError):
    """An optional dependency is not installed; the message gives the command that installs it."""

    def __init__(self, extra: str, need: str, command: str | None = None):
        command = command or f'pip install "rebus-vlm[{extra}]"'
        super().__init__(f'{need} needs the extra "{extra}". Install it with: {command}')


class NotFinite(RebusError):
    """A network's output is NaN or infinite: half precision overflowed, or the weights are damaged."""


class LimitExceeded(RebusError):
    """A limit of `rebus.core.limits` was exceeded; the message names it and both numbers."""


class NetworkError(RebusError):
    """The Hub could not be reached or denied access; the message says which, and what works offline."""


def unknown(kind: str, name: str, known: Iterable[str], see: str = "") -> UnknownName:
    """An `UnknownName` with the nearest known names: `no model "clip/b23"; did you mean "clip/b32"?`"""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = "; did you mean " + " or ".join(f'"{n}"' for n in near) + "?" if near else "."
    return UnknownName(f'no {kind} "{name}"{hint}' + (f" {see}" if see else ""))


def unknown_part(part: str, names: Iterable[str]) -> UnknownName:
    """Of a network, whose modules and parameters are `names`; tells those at its top."""
    known = [name for name in names if name]
    top = ", ".join(dict.fromkeys(name.split(".")[0] for name in known))
    return unknown("part of the network", part, known, f"There are {top}, and parts of these, joined by a dot.")
