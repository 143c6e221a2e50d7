"""The state of a run on disk: PyTorch's distributed checkpoint in safetensors, written beside the next steps.

`step_00001000/` holds one file a rank and `state.json`, which lists every file with its size and hash and is written
last: a folder without it does not exist. Tensors are found by name and place, so that any number of ranks opens what
any other number wrote.
"""

import hashlib
import json
import logging
import re
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import async_save

from rebus.core.atomic_write import DISK_FULL, place_folder
from rebus.core.errors import BadCheckpoint, CannotWrite
from rebus.core.small_files import read_small
from rebus.core.strict_json import to_json
from rebus.train.ema import Average

LOG = logging.getLogger("rebus")
STATE = "state.json"
_PREFIX = "step_"
_FULL = re.compile("No space|File too large|quota exceeded|os error (?:28|27|122)", re.IGNORECASE)


class State:
    """All tensors needed to resume a run, by name: `network.*`, `average.*`, and the optimisers' `exp_avg.*`, …"""

    def __init__(self, network: nn.Module, optimisers: list[torch.optim.Optimizer], average: Average | None):
        self.network, self.optimisers, self.average = network, optimisers, average

    def tensors(self) -> dict[str, Tensor]:
        found = {f"network.{name}": value.detach() for name, value in self.network.state_dict().items()}
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        for optimiser in self.optimisers:
            for parameter, state in optimiser.state.items():
                found |= {f"optimiser.{key}.{names[id(parameter)]}": value for key, value in state.items()}
        if self.average is not None:
            found |= {f"average.{name}": value for name, value in self.average.values.items()}
        return found

    def make_room(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give the optimisers empty state of the kinds that a checkpoint holds."""
        parameters = dict(self.network.named_parameters())
        owners = {id(p): o for o in self.optimisers for group in o.param_groups for p in group["params"]}
        for name, shape in shapes.items():
            kind, _, rest = name.partition(".")
            key, _, of = rest.partition(".")
            if kind != "optimiser" or of not in parameters or id(parameters[of]) not in owners:
                continue
            like = parameters[of]
            room = torch.zeros_like(like) if shape == tuple(like.shape) and shape else torch.zeros(shape)
            owners[id(like)].state[like][key] = room if room.shape else room.to(like.device)


class Saver:
    """Writes checkpoints into a folder, one at a time, while the training goes on."""

    def __init__(self, folder: Path, keep: int, leads: bool):
        self.folder, self.keep, self.leads = folder, keep, leads
        self._pending: tuple[Future[Any], Path, int, dict[str, Any]] | None = None
        # Files are talked about in the background, which must not mix with what the steps say.
        self._group: Any = dist.new_group(backend="gloo") if dist.is_initialized() else None
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)

    def save(self, step: int, state: State, facts: Mapping[str, Any]) -> None:
        """Begin to write `step_<step>`: copies the tensors, and returns. `facts` go into `state.json`."""
        self.finish()
        draft = self.folder / f".draft_{step:08d}"
        if self.leads:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        if dist.is_initialized():
            dist.barrier()
        writer = HuggingFaceStorageWriter(path=str(draft), save_distributed=True)
        future: Any = async_save(state.tensors(), storage_writer=writer, process_group=self._group)
        self._pending = (future, draft, step, dict(facts))

    def poll(self) -> None:
        """Finish the checkpoint under way if all of it is written."""
        if self._pending is not None and self._pending[0].done() and not dist.is_initialized():
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint under way, and put it in its place. Raises `CannotWrite`; older ones are intact."""
        if self._pending is None:
            return
        future, draft, step, facts = self._pending
        self._pending = None
        try:
            future.result()
            if self.leads:
                self._place(draft, step, facts)
        except (Exception, CheckpointException) as error:  # which is no Exception
            if self.leads:
                shutil.rmtree(draft, ignore_errors=True)
            if isinstance(error, OSError | CheckpointException) or _FULL.search(str(error)):
                raise CannotWrite(f"{self.folder}: the checkpoint of step {step:,} {_reason(error)}") from error
            raise
        if dist.is_initialized():
            dist.barrier()

    def _place(self, draft: Path, step: int, facts: dict[str, Any]) -> None:
        files = {}
        for file in sorted(draft.iterdir()):
            files[file.name] = {"bytes": file.stat().st_size, "sha256": _hash(file)}
        (draft / STATE).write_text(to_json({"step": step, **facts, "files": files}))
        target = self.folder / draft.name.replace(".draft_", _PREFIX)
        if target.exists():
            shutil.rmtree(target)
        place_folder(draft, target)
        for old in steps(self.folder)[: -self.keep] if self.keep else []:
            shutil.rmtree(_folder_of(self.folder, old))


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder whose files are all there, oldest first.

    A folder counts whose `state.json` says the step of its name: a renamed one is of other weights.
    """
    found = []
    for path in folder.glob(_PREFIX + "*"):
        listed = _listed(path)
        if listed and all(_size(path / n) == entry["bytes"] for n, entry in listed.items()):
            found.append(int(path.name.removeprefix(_PREFIX)))
    return sorted(found)


def newest(folder: Path) -> int:
    """The step of the newest checkpoint whose every byte is as it was written; 0 where there is none.

    Damaged ones are named in the log and passed over.
    """
    for draft in folder.glob(".draft_*"):  # of a run that was killed
        shutil.rmtree(draft, ignore_errors=True)
    for step in reversed(steps(folder)):
        path = _folder_of(folder, step)
        wrong = [n for n, entry in _listed(path).items() if _hash(path / n) != entry.get("sha256")]
        if not wrong:
            return step
        LOG.warning("%s: %s is damaged; using the previous checkpoint", path, wrong[0])
    return 0


def load(folder: Path, step: int, state: State) -> dict[str, Any]:
    """Put a checkpoint back, and give its facts. Raises `BadCheckpoint` where it is of another configuration."""
    source = _folder_of(folder, step)
    try:
        reader = HuggingFaceStorageReader(path=str(source))
        shapes = {n: tuple(entry.size) for n, entry in reader.read_metadata().state_dict_metadata.items()}  # type: ignore[union-attr]
    except Exception as error:  # a parser of others may raise anything over bytes that only claim to be tensors
        raise _damaged(source, error) from error
    state.make_room(shapes)
    wanted = state.tensors()
    wrong = sorted({*wanted} ^ {*shapes}) or [n for n in wanted if shapes[n] != tuple(wanted[n].shape)]
    if wrong:
        raise BadCheckpoint(f"{source}: not of this configuration ({', '.join(map(repr, wrong[:3]))} differ)")
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that a single process is meant
            load_state(wanted, storage_reader=reader)
    except (Exception, CheckpointException) as error:
        raise _damaged(source, error) from error
    facts: dict[str, Any] = json.loads((source / STATE).read_text())
    return facts


def _damaged(source: Path, error: BaseException) -> BadCheckpoint:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return BadCheckpoint(f"{source}: damaged ({reason!r}). Remove this folder; the same command uses the one before")


def _folder_of(folder: Path, step: int) -> Path:
    return folder / f"{_PREFIX}{step:08d}"


def _listed(path: Path) -> dict[str, dict[str, Any]]:
    """The files of a checkpoint by name; none where its `state.json` is not that of this folder."""
    if not (path / STATE).is_file():  # to open a pipe would wait for its writer
        return {}
    try:
        state = json.loads(read_small(path / STATE))
        step, files = state["step"], state["files"]
        right = type(step) is int and path.name == f"{_PREFIX}{step:08d}" and isinstance(files, dict)
        right = right and all(
            Path(name).name == name and isinstance(entry["bytes"], int) for name, entry in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return files if right else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    causes: list[BaseException] = [error]
    if isinstance(error, CheckpointException):  # what each rank met
        causes += [failure[0] for failure in error.failures.values()]
    if any(getattr(cause, "errno", None) in DISK_FULL or _FULL.search(str(cause)) for cause in causes):
        return "does not fit on the disk. Free some space; the same command resumes from the one before"
    return f"could not be written: {str(error).splitlines()[0]}"
