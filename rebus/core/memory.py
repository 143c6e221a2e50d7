"""How much memory this process, or its GPU, has had in use at most."""

import sys
from pathlib import Path
from typing import Any


def peak_memory(device: Any) -> int:
    """Bytes: of the GPU since its statistics were reset, elsewhere of the whole process; 0 where nobody can tell."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return peak_of_process()


def peak_of_process() -> int:
    """Most bytes of main memory that this process has had; 0 where nobody can tell.

    On Linux not from `getrusage`, whose peak a process inherits from the one that started it.
    """
    if sys.platform == "linux":
        try:
            status = Path("/proc/self/status").read_text()
            return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
        except (OSError, StopIteration):  # hidden in some containers
            pass
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
