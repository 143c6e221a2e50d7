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


def check_image(path: Path, *, page: str | None = None) -> None:
    """Raise `UsageError` for an ending that is no image's, `CannotWrite` where the file cannot be made.

    `page`: the ending of pages, where one may be written in an image's place.
    """
    ending = path.suffix.lower()
    if ending not in IMAGE_ENDINGS and ending != page:
        wanted = ", ".join(IMAGE_ENDINGS) + (f", a page in {page}" if page else "")
        raise UsageError(f"--out {path}: an image ends in {wanted}; got {path.suffix or 'nothing'}")
    if path.is_dir():
        raise CannotWrite(f"{path} is a folder; --out names the file to write")
    check_folder(path.parent)
