"""Memory that is freed stays in the process, for the next batch to use.

glibc gives every large block back to the kernel at once, so that each batch's activations are mapped, and set to zero,
page by page again: a third of the time of large images on a CPU.
"""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed; whether it does. For processes of our own: what a program that uses
    this library frees is not ours to keep. Other allocators, and settings in the environment, stay as they are."""
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if chosen or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
