"""From what a user names to a place on the disk: a local directory or file, or a repository of the Hub.

A repository that is whole in the local cache is used as it stands, without asking the network; `revision="main"` asks
whether there is something newer. Only the files that are needed are fetched: safetensors where there are any.
"""

import difflib
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rebus.core.atomic_write import DISK_FULL
from rebus.core.cache import cache_home
from rebus.core.errors import CannotWrite, MissingFile, NetworkError, RebusError, UnknownName
from rebus.weights.checkpoint_files import NAMES, READERS, read_json, weight_file
from rebus.weights.save import standing

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_SMALL = (".json", ".txt", ".model", ".jinja")  # configuration, tokenizer and preprocessor files
_WEB = ("httpx2", "httpx", "httpcore", "requests", "urllib3")


def hub_cache() -> Path:
    """Where Hub repositories lie: `HF_HUB_CACHE`, `HF_HOME/hub`, `REBUS_HOME/hub`, or where all Hub tools keep them."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(os.path.expandvars(cache)).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser() / "hub"
    if os.environ.get("REBUS_HOME"):
        return cache_home() / "hub"
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def find(source: str | os.PathLike[str], revision: str | None = None, *, prefer: str = "") -> Path:
    """The directory, or the file of weights, that `source` names; fetched from the Hub where it must be.

    `prefer`: the beginning of a weights file's name (`open_clip`), where a repository holds two layouts. Raises
    `MissingFile`, `UnknownName` or `NetworkError`, each saying what to do.
    """
    text = os.fspath(source)
    if not text.strip() or "\0" in text:
        raise UnknownName(f"a model is a name, a directory or a Hub id; got {text!r}.")
    path = Path(text).expanduser()
    try:
        here = standing(path)
        if here.exists():
            return here
    except MissingFile:
        raise
    except OSError as error:  # a name that is too long, a folder without permission
        raise MissingFile(f"{text[:200]!r} cannot be opened: {error.strerror}") from None
    if os.path.islink(path):
        raise MissingFile(f"{text!r} is a link that leads nowhere, or in a circle")
    known = _HUB_ID.fullmatch(text) is not None and path.suffix not in READERS
    if known and cached(text, revision, prefer=prefer) is not None:
        beside = []  # what lies here and looks alike is no misspelling of it
    else:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.6)
    if not known or (near and path.parent.name):
        hint = "; did you mean " + " or ".join(str(path.parent / n) for n in near) + "?" if near else "."
        if _looks_like_path(source, text, path):
            raise MissingFile(f'no directory or file "{text}"{hint}')
        raise UnknownName(f'no directory or file "{text}", and no Hub id either (those are "organisation/name"){hint}')
    folder = _from_hub(text, revision, prefer)
    weights = weight_file(folder, prefer=prefer)
    return weights if weights.suffix == ".npz" else folder


def _looks_like_path(source: str | os.PathLike[str], text: str, path: Path) -> bool:
    marked = text.startswith((".", "/", "~")) or "\\" in text or path.suffix in READERS
    return not isinstance(source, str) or marked or "/" in text


def cached(repo: str, revision: str | None = None, *, prefer: str = "") -> Path | None:
    """The folder of a Hub repository, if all of it that is needed lies in the local cache."""
    folder = _snapshot(repo, revision)
    return folder if folder is not None and _whole(folder, prefer) else None


def offline() -> bool:
    """Whether the user has switched the network off."""
    from huggingface_hub import constants

    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return bool(constants.HF_HUB_OFFLINE) or asked.upper() in ("1", "ON", "YES", "TRUE")


def _from_hub(repo: str, revision: str | None, prefer: str) -> Path:
    folder = _snapshot(repo, revision)
    whole = folder is not None and _whole(folder, prefer)
    pinned = revision is None or re.fullmatch(r"[0-9a-f]{40}", revision) is not None
    if folder is not None and whole and (pinned or offline()):
        return folder
    if offline():
        state = f"only a part of {repo} is" if folder is not None else f"{repo} is not"
        raise NetworkError(
            f"{state} in the local cache ({hub_cache()}) and downloads are disabled (HF_HUB_OFFLINE). "
            f"Download it once online (hf download {repo}), or name a local directory."
        )
    try:
        return _download(repo, revision, prefer)
    except NetworkError:
        if folder is not None and whole:
            return folder
        raise


def _snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder that the cache holds for a revision, whole or not."""
    root = hub_cache() / f"models--{repo.replace('/', '--')}"
    named = root / "refs" / (revision or "main")
    try:
        commit = named.read_text("utf-8").strip() if named.is_file() else revision or "main"
        folder = root / "snapshots" / commit
        # A damaged or crafted reference names no snapshot: it is as if the cache had none.
        return folder if re.fullmatch(r"[\w][\w.-]*", commit) and folder.is_dir() else None
    except (OSError, ValueError):
        return None


def _whole(folder: Path, prefer: str) -> bool:
    """Whether the weights are there, every shard of them, and a configuration to go with them."""
    try:
        weights = weight_file(folder, prefer=prefer)
        if weights.suffix != ".json":
            return weights.suffix in (".npz", ".pt") or any(folder.glob("*config.json"))
        shards = set(read_json(weights).get("weight_map", {}).values())
        return all((folder / str(shard)).is_file() for shard in shards) and any(folder.glob("*config.json"))
    except (RebusError, AttributeError):
        return False


def _download(repo: str, revision: str | None, prefer: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    cache, endpoint = hub_cache(), os.environ.get("HF_ENDPOINT") or None
    with _explained(repo, revision):
        info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        wanted = needed_files(sizes, prefer)
        if not wanted:
            raise UnknownName(f"{repo} holds no weights that rebus reads (safetensors, .bin or .npz). Check the name.")
        before = set(_blobs(cache, repo))
        exact = [glob.escape(name) for name in wanted]
        try:
            folder = snapshot_download(
                repo, revision=revision, cache_dir=cache, endpoint=endpoint, allow_patterns=exact
            )
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise CannotWrite(
                f"{repo}: it needs {sum(sizes[n] for n in wanted) / 1e6:,.2f} MB, and {cache} has "
                f"{_free(cache) / 1e6:,.2f} MB free. Free some, or set HF_HOME to another disk; a download resumes."
            ) from None
        _check_hashes(Path(folder), wanted, before, repo)
    return Path(folder)


def _free(folder: Path) -> int:
    """Bytes free where a folder is, or would be."""
    return shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists())).free


def needed_files(names: Iterable[str], prefer: str = "") -> list[str]:
    """Of a repository's files, those to fetch: one format of the weights, and the small files beside it."""
    top = [name for name in names if "/" not in name]
    order = sorted(NAMES, key=lambda n: not (prefer and n.startswith(prefer)))
    first = next((name for name in order if name in top), None)
    if first is None:
        arrays = [name for name in top if name.endswith((".safetensors", ".npz"))]
        weights = arrays if len(arrays) == 1 else []
    elif first.endswith(".index.json"):
        stem, ending = first.removesuffix(".index.json").rsplit(".", 1)
        weights = [n for n in top if n.startswith(stem) and n.endswith(ending) and _SHARD.search(n[len(stem) :])]
    else:
        weights = [first]
    if not weights:
        return []
    small = [n for n in top if n.endswith(_SMALL) and (not n.endswith(".index.json") or n == first)]
    return sorted({*weights, *small})


def _blobs(cache: Path, repo: str) -> Iterator[Path]:
    folder = cache / f"models--{repo.replace('/', '--')}" / "snapshots"
    return (path.resolve() for path in folder.glob("*/*"))


def _check_hashes(folder: Path, wanted: Iterable[str], before: set[Path], repo: str) -> None:
    """What was just fetched must have the hash by which the Hub names it; else it is removed."""
    for name in wanted:
        blob = (folder / name).resolve()
        if blob in before or not blob.is_file() or not _SHA256.fullmatch(blob.name):
            continue
        with blob.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != blob.name:
            blob.unlink()
            (folder / name).unlink(missing_ok=True)
            raise NetworkError(
                f"{repo}: hash mismatch in {name}: wanted {blob.name[:12]}…, got {digest[:12]}…. The damaged download "
                "was removed; run the same command again."
            )


@contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """The Hub's and the network's errors as ours, in one line that says what to do."""
    try:
        yield
    except RebusError:
        raise
    except Exception as error:
        raise _translated(error, repo, revision) from error


def _translated(error: Exception, repo: str, revision: str | None) -> Exception:
    from huggingface_hub import errors

    page = f"{os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}/{repo}"
    if isinstance(error, errors.GatedRepoError):
        return NetworkError(
            f"{repo} is gated: accept its licence at {page}, then log in (hf auth login, or HF_TOKEN) and run again."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownName(f'{repo} has no revision "{revision}". See {page}/refs for those it has.')
    if isinstance(error, errors.RepositoryNotFoundError):
        return UnknownName(
            f'no repository "{repo}" on the Hub, or it is private: check the name, or log in (HF_TOKEN).'
        )
    if isinstance(error, errors.HfHubHTTPError):
        return NetworkError(f"{repo}: {_answer(error.response)}")
    if isinstance(error, errors.HFValidationError):
        return UnknownName(f'"{repo}" is neither a local path nor a Hub id: {str(error).splitlines()[0]}')
    if isinstance(error, PermissionError):
        return CannotWrite(f"{repo}: {hub_cache()} cannot be written: {error.strerror}. Set HF_HOME to another folder.")
    text = (str(error) or type(error).__name__).splitlines()[0]
    if "onsistency check" in text or "ncomplete" in text:
        return NetworkError(f"{repo}: the download broke off ({text[:200]}). Run the same command again: it resumes.")
    outside = type(error).__module__.split(".")[0] in _WEB or isinstance(error, errors.LocalEntryNotFoundError)
    if outside or isinstance(error, ConnectionError | TimeoutError):
        return NetworkError(
            f"{repo} is not in the local cache and the Hub cannot be reached ({type(error).__name__}). "
            "Check the connection and run again: a download resumes; a local directory works offline."
        )
    return error


def _answer(response: Any) -> str:
    status = response.status_code
    if status == 429:
        wait = response.headers.get("Retry-After")
        return f"the Hub answers 429, too many requests. Wait {wait + ' s' if wait else 'a while'} and run again."
    if status in (401, 403):
        return f"the Hub answers {status}, refused. Check the name, log in (hf auth login), or set a valid HF_TOKEN."
    return f"the Hub answers {status}. Try again later; what is already in the cache works offline."
