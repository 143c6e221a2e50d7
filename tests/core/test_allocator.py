"""Memory that is freed is used again, and only in processes of our own."""

import os
import subprocess
import sys
import textwrap

import pytest

from rebus.core import allocator

COUNT = """
    import ctypes, resource, sys
    from rebus.core.allocator import keep_freed_memory
    kept = keep_freed_memory() if sys.argv[1] == "keep" else None
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    def fill():
        block = libc.malloc(64 * 2**20)
        ctypes.memset(block, 1, 64 * 2**20)
        libc.free(block)
    fill()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        fill()
    print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", textwrap.dedent(COUNT), how]
    kept, count = subprocess.check_output(command, env=clean | environment, text=True).split()
    return kept, int(count)


@pytest.mark.skipif(sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"), reason="not glibc")
def test_a_block_that_is_freed_is_not_mapped_again():
    kept, few = faults("keep")
    _, many = faults("leave")
    assert kept == "True"
    assert few * 10 < many
    assert faults("keep", MALLOC_ARENA_MAX="2")[0] == "False"  # who chose something has it


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
