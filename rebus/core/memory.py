"""How much memory this process, or its GPU, has had in use at most."""

import sys
from typing import Any


def peak_memory(device: Any) -> int:
    """Bytes: of the GPU since its statistics were reset, elsewhere of the whole process; 0 where nobody can tell."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
