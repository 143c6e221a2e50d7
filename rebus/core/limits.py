"""Named limits, checked before the work begins. Each can be set through the environment: `REBUS_MAX_PIXELS=…`."""

import os

from rebus.core.errors import LimitExceeded, UsageError

DEFAULTS = {
    "MAX_PIXELS": 100_000_000,  # of one image, before decoding
    "MAX_SIDE": 30_000,  # pixels of the longer side
    "MAX_IMAGE_BYTES": 200_000_000,  # of one encoded image
    "MAX_IMAGE_MEMORY": 3_000_000_000,  # bytes of images that are decoded at once, and of those one call holds open
    "MAX_DOWNLOAD_MEMORY": 1_000_000_000,  # bytes of files that all threads of a download hold at once
    "MAX_ASPECT": 500,  # longer side / shorter side
    "MAX_IMAGES": 100_000,  # of one call
    "MAX_TOKENIZER_BYTES": 100_000_000,  # of one tokenizer file
    "MAX_TEXT_CHARS": 100_000,  # of one text
    "MAX_LABELS": 100_000,  # of one classify call
    "MAX_CONFIG_VALUE": 10_000_000,  # of an integer field of a configuration
    "MAX_LAYERS": 1_000,  # of one encoder
    "MAX_INPUT_SIDE": 8_192,  # pixels of the longer side of what a network reads
}


def limit(name: str) -> int:
    """The value in force: `REBUS_<name>` if set, else the default."""
    text = os.environ.get(f"REBUS_{name}")
    if text is None:
        return DEFAULTS[name]
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"REBUS_{name} must be a whole number; got {text!r}") from None


def check(name: str, value: float, what: str) -> None:
    """Raise `LimitExceeded` when `value` passes the limit, naming both and how to raise it."""
    most = limit(name)
    if value > most:
        raise LimitExceeded(f"{what}: {value:,.0f} passes the limit {name} = {most:,} (set REBUS_{name} to change it)")
