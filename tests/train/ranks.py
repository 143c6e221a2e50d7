"""Several processes as torchrun would start them, for tests."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from rebus.train import loop

START = "forkserver"  # PyTorch is imported once for all processes of all tests


def together(ranks: int, folder: Path, work: Callable[..., Any], *args: Any) -> None:
    """`work(*args)` in that many processes that know of each other. Raises where one of them did."""
    folder.mkdir(exist_ok=True)
    meeting = tempfile.mkdtemp(dir=folder, prefix="ranks_")
    mp.start_processes(_run, (ranks, meeting, work, args), nprocs=ranks, start_method=START)


def _run(rank: int, ranks: int, meeting: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    loop.multiplies_bfloat16 = lambda: True  # type: ignore[assignment]  # in emulation where the processor does not
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": "0"}
    dist.init_process_group("gloo", f"file://{meeting}/meet", rank=rank, world_size=ranks)
    try:
        work(*args)
    finally:
        dist.destroy_process_group()
