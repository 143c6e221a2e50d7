"""Where a command writes its files: found writable before the work begins."""

import os
import secrets
from pathlib import Path

from rebus.core.errors import CannotWrite, UsageError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def check_folder(folder: Path, *, create: bool = False) -> None:
    """Raise `CannotWrite` unless files can be made in `folder`; with `create` it is made where it is absent."""
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".rebus-{secrets.token_hex(4)}"
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        probe.unlink()
    except (FileNotFoundError, NotADirectoryError, FileExistsError):
        raise CannotWrite(f"{folder}: no such folder. Make it first, or choose another --out") from None
    except OSError as error:
        raise CannotWrite(f"{folder}: cannot be written: {error.strerror}. Choose another --out") from None


def check_image(path: Path) -> None:
    """Raise `UsageError` for an ending that is no image's, `CannotWrite` where the file cannot be made."""
    if path.suffix.lower() not in IMAGE_ENDINGS:
        raise UsageError(f"--out {path}: an image ends in {', '.join(IMAGE_ENDINGS)}; got {path.suffix or 'nothing'}")
    if path.is_dir():
        raise CannotWrite(f"{path} is a folder; --out names the image to write")
    check_folder(path.parent)
